"""What a run does with what is found: it ends, or prints warnings."""

import sys

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmeta.config.inspection import our_backbone
from mmmeta.registry import HOOKS
from mmmeta.utils.errors import UsageError
from mmmeta.utils.processes import is_first_process

from .check import check_dataset, check_while_reading
from .depth import check_depth
from .finding import Finding
from .folders import check_folders
from .labels import name_damaged_maps
from .objects import check_sample, find_short_polygons
from .pixels import check_batches


def refuse(cfg: Config, findings: list[Finding]) -> None:
    """Print warnings, and end with the first mistake; of a backbone that is not ours all are warnings.

    Args:
        cfg (Config): The config.
        findings (list[Finding]): What was found in it, or in its data.

    Raises:
        UsageError: There is a mistake.
    """
    ours = our_backbone(cfg) is not None
    mistakes = [one for one in findings if one.is_fatal or (ours and not one.is_warning)]
    if is_first_process():
        for finding in findings:
            if finding not in mistakes:
                print(f'warning: {finding.text}', file=sys.stderr)
    if mistakes:
        more = f'; {len(mistakes) - 1} more: python -m mmmeta check' if len(mistakes) > 1 else ''
        way = '' if mistakes[0].is_fatal else ' (--no-checks trains or tests as it is)'
        raise UsageError(f'{mistakes[0].text}{more}{way}')


@HOOKS.register_module()
class CheckLabelsHook(Hook):
    """Check some annotations of the data sets that a network is trained on and validated with."""

    def before_train(self, runner: Runner) -> None:
        """Check them, and let the training set end the run at a label out of range."""
        loaders = [('train_dataloader', runner.train_dataloader)]
        if runner.val_loop is not None:
            loaders.append(('val_dataloader', runner.val_dataloader))
        for name, loader in loaders:
            findings: list[Finding] = []
            if is_main_process():
                of_files = [
                    *check_depth(name, loader.dataset),
                    *check_dataset(runner.cfg, name, loader.dataset),
                ]
                findings = of_files or list(check_batches(runner.cfg, name, loader.dataset))
                findings += check_sample(name, loader.dataset)
            shared = [findings]
            broadcast_object_list(shared)  # all end together
            refuse(runner.cfg, shared[0])
            name_damaged_maps(loader.dataset)
        refuse(runner.cfg, list(check_folders({name: loader.dataset for name, loader in loaders})))
        if runner.val_loop is not None:
            _check_polygons(runner)
        check_while_reading(runner.cfg, runner.train_dataloader.dataset)


def _check_polygons(runner: Runner) -> None:
    """Refuse polygons that a metric of the validation would fail on, after an epoch."""
    for metric in runner.val_evaluator.metrics:
        api = getattr(metric, '_coco_api', None)
        if api is None or 'segm' not in metric.metrics:
            continue
        path = getattr(runner.val_dataloader.dataset, 'ann_file', 'val_evaluator.ann_file')
        text = next(find_short_polygons(api.dataset['annotations'], path), None)
        if text is not None:
            refuse(runner.cfg, [Finding('val_dataloader.dataset.ann_file', text)])
