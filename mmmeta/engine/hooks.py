"""Hooks for training and testing."""

import os
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.hooks import LoggerHook as MMEngineLoggerHook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner

from mmmeta.config.inspection import iter_dicts
from mmmeta.datasets.categories import read_categories
from mmmeta.models import MetaFormer
from mmmeta.registry import HOOKS
from mmmeta.utils.errors import UsageError, nearest, shorten
from mmmeta.utils.mmengine_private import active_loops, checkpoint_of, is_resuming
from mmmeta.weights import (
    check_backbone_complete,
    check_complete,
    check_finite,
    check_structure,
    check_types,
    convert_checkpoint,
    find_state_dict,
)

from .checkpoint_hook import CheckpointHook, waiting_for_room
from .resuming import check_resumable, remove_paths
from .schedules import adopt_schedules


def _bare_model(runner: Runner) -> torch.nn.Module:
    """The model without the wrappers of distributed training and test-time augmentation."""
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


@HOOKS.register_module()
class CompleteWeightsHook(Hook):
    """Refuse a checkpoint that does not fit the config's model, before anything of it is loaded.

    MMEngine loads what fits, logs a warning, and continues with a network of which parts are random. A test
    needs exactly the tensors of the model, a training that starts from a checkpoint those of the backbone:
    heads may differ, as for another number of classes. A checkpoint in the layout of another repository is
    converted first. A run that is resumed needs the whole state of one of the same config, see
    :func:`~mmmeta.engine.resuming.check_resumable`.
    """

    # Before other hooks, such as EMAHook, read what was loaded.
    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the content of a checkpoint before other hooks and MMEngine act on it."""
        model, source = _bare_model(runner), str(checkpoint_of(runner))
        trains, validates, tests = active_loops(runner)
        if not (trains or validates or tests):
            return
        check_structure(checkpoint, source)
        # Other runners keep the states of optimisers in files of their own.
        if trains and is_resuming(runner) and isinstance(runner, Runner):
            check_resumable(runner, model, checkpoint, source)
            changed = adopt_schedules(runner, checkpoint)
            if changed:
                runner.logger.info(f'resuming with settings of the config: {shorten(changed)}')
            if not any(isinstance(hook, CheckpointHook) for hook in runner.hooks):  # ours does so itself
                remove_paths(checkpoint['message_hub']['runtime_info'])
        elif tests or not trains:
            convert_checkpoint(checkpoint, source)
            check_complete(model, checkpoint['state_dict'], source)
        elif not is_resuming(runner):
            if isinstance(getattr(model, 'backbone', None), MetaFormer):
                convert_checkpoint(checkpoint, source)
                state_dict = checkpoint['state_dict']
                check_backbone_complete(model.backbone, state_dict, source)
            else:
                state_dict = find_state_dict(checkpoint, source)
                check_finite(state_dict, source)
            check_types(model, state_dict, source)
            checkpoint['state_dict'] = state_dict  # a file may hold others, of which MMEngine loads this key
        if not isinstance(checkpoint.get('meta', {}), dict):
            del checkpoint['meta']  # hooks read the iteration in it


def inner_datasets(dataset: Any) -> list[Any]:
    """The data sets inside ``ConcatDataset``, ``RepeatDataset`` and the like; none of others.

    Args:
        dataset (Dataset): A data set that is built.
    """
    return list(filter(None, getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]))


@HOOKS.register_module()
class NothingDetectedHook(Hook):
    """Give COCO's metric its values where nothing was detected at all: MMDetection leaves them out.

    Without them a run has no best checkpoint, and its record no result.
    """

    # Before RuntimeInfoHook, from which what logs has them, and what records and compares.
    priority = 'HIGHEST'

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Complete the values of a validation."""
        self._complete(runner, runner.val_evaluator, metrics)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Complete the values of a test."""
        self._complete(runner, runner.test_evaluator, metrics)

    def _complete(self, runner: Runner, evaluator: Evaluator, metrics: dict[str, float] | None) -> None:
        if metrics is None:
            return
        for metric in evaluator.metrics:
            for kind in getattr(metric, 'metrics', ()) if type(metric).__name__ == 'CocoMetric' else ():
                prefix = f'{metric.prefix}/{kind}_' if metric.prefix else f'{kind}_'
                if kind not in ('bbox', 'segm') or any(key.startswith(prefix) for key in metrics):
                    continue
                items = metric.metric_items or ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
                metrics.update({f'{prefix}{item}': 0.0 for item in items})
                bounds = [part['score_thr'] for part in iter_dicts(runner.cfg.model) if 'score_thr' in part]
                reason = f', no score reaches score_thr={bounds[0]}' if bounds else ''
                runner.logger.warning(f'nothing was detected in any image{reason}: {prefix}mAP is 0')


@HOOKS.register_module()
class CocoCheckHook(Hook):
    """Reject COCO-style data that MMDetection would silently train or test on wrongly.

    MMDetection skips annotations of categories that it does not know, numbers the classes by those that the
    file has, and fails on a missing image only when it is loaded.
    """

    def before_train(self, runner: Runner) -> None:
        """Check the data of training, and of validation if there is any."""
        self.check(runner.train_dataloader.dataset)
        if runner.val_loop is not None:
            self.check(runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        """Check the data of the test."""
        self.check(runner.test_dataloader.dataset)

    def check(self, dataset: Any) -> None:
        """Check a data set, and those inside it.

        Args:
            dataset (Dataset): A data set that is built.

        Raises:
            UsageError: It would be trained or tested on wrongly.
        """
        for part in inner_datasets(dataset):
            self.check(part)
        if not (hasattr(dataset, 'cat_ids') and hasattr(dataset, 'cat_img_map')):
            return
        classes, name = dataset.metainfo['classes'], type(dataset).__name__
        remedy = 'or name the classes to train on in metainfo=dict(classes=...) of the data set'
        if len(dataset.cat_ids) != len(classes):
            # Read again, since the data set keeps no names; only where a run ends anyway.
            categories = read_categories(dataset.ann_file, dataset.backend_args)
            there = {category['name'] for category in categories}
            meant = {one: nearest(one, there - set(classes)) for one in classes if one not in there}
            lost = (f"'{one}'" + (f" (is it '{other}'?)" if other else '') for one, other in meant.items())
            raise UsageError(
                f"'{dataset.ann_file}' lists {len(dataset.cat_ids)} of the {len(classes)} classes of {name}, "
                f'not {shorten(lost)}: give it all categories, {remedy}'
            )
        used = {category for category, images in dataset.cat_img_map.items() if images}
        unknown = ', '.join(map(str, sorted(used - set(dataset.cat_ids))))
        # A config that names a subset of the classes leaves out the others on purpose.
        if unknown and tuple(classes) == tuple(type(dataset).METAINFO['classes']):
            raise UsageError(
                f"'{dataset.ann_file}' has objects of the categories {unknown}, which are "
                f'no classes of {name}: correct their category_id, {remedy}'
            )
        if dataset.backend_args:
            return  # the images are not on this machine
        names = {category['id']: category['name'] for category in read_categories(dataset.ann_file)}
        ordered = [names[category] for category in dataset.cat_ids]
        if sorted(ordered) == sorted(classes) and ordered != list(classes):
            there, meant = next(pair for pair in zip(ordered, classes, strict=True) if pair[0] != pair[1])
            raise UsageError(
                f"'{dataset.ann_file}' orders its categories {shorten(ordered)}, and {name} its classes "
                f"{shorten(classes)}: MMDetection joins them by position, and '{there}' would be learnt as "
                f"'{meant}'; write metainfo=dict(classes=...) in the order of the file, or order all files "
                'as the classes'
            )
        paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
        folders = {os.path.dirname(path) for path in paths}
        there = {
            os.path.join(folder, name)
            for folder in folders
            if os.path.isdir(folder)
            for name in os.listdir(folder)
        }
        missing = [path for path in paths if path not in there]
        if missing:
            raise UsageError(
                f"'{dataset.ann_file}' lists {len(missing)} images that are not there, such as "
                f"'{missing[0]}': {_find_by_slashes(missing[0])}"
            )


def _find_by_slashes(path: str) -> str:
    """What to do about an image that is not there, with backslashes in its name or not."""
    folder, name = os.path.split(path)
    parts = name.split('\\')
    tails = ('/'.join(parts[i:]) for i in range(len(parts)))
    found = next((tail for tail in tails if len(parts) > 1 and os.path.isfile(f'{folder}/{tail}')), None)
    if found is None:
        return 'add them, or take them out of the annotations'
    return (
        f"backslashes part folders on Windows alone; write '{found}' in place of '{name}', and so for all "
        '(as python -m mmmeta new does)'
    )


@HOOKS.register_module()
class LoggerHook(MMEngineLoggerHook):
    """MMEngine's ``LoggerHook``; one process writes the file with the metrics of a test, not all of them.

    A run that waits for room on a full disk goes on without the lines that cannot be written.
    """

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Log, and write the scalars."""
        with waiting_for_room(runner):
            super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log the metrics, and write them to ``<timestamp>.json``."""
        if is_main_process():
            super().after_test_epoch(runner, metrics)


@HOOKS.register_module()
class MeanLossHook(Hook):
    """Log the mean of the losses over all processes.

    MMEngine logs those of the first process. The mean over n processes is what one process with n times
    the batch would log.
    """

    # Before RuntimeInfoHook, which records the losses.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.names: list[str] | None = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Average the scalars in ``outputs`` in place, each over the processes that have it.

        All processes communicate alike, whatever their losses are called: about those that any of them had in
        the first iteration. Others stay a process's own.
        """
        if get_world_size() == 1:
            return
        outputs = outputs or {}
        losses = {
            key: value.detach().float()
            for key, value in outputs.items()
            if isinstance(value, torch.Tensor) and value.numel() == 1
        }
        if self.names is None:
            self.names = sorted(set().union(*all_gather_object(list(losses))))
        own = [name for name in self.names if name in losses]
        sums = torch.zeros(2, len(self.names), device=next(runner.model.parameters()).device)
        if own:
            places = torch.tensor([self.names.index(name) for name in own], device=sums.device)
            sums[0, places] = torch.stack([losses[name].reshape(()) for name in own]).to(sums.device)
            sums[1, places] = 1
        all_reduce(sums)
        for name in own:
            total, count = sums[:, self.names.index(name)]
            outputs[name] = total / count
