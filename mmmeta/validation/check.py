"""All checks of a config, and of its data."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmmeta.config.building import build
from mmmeta.config.data import check_data, explain_data_errors
from mmmeta.config.inspection import TRAIN_LOADERS, bare_model, scope_of
from mmmeta.engine.hooks import CocoCheckHook, inner_datasets
from mmmeta.utils.errors import UsageError, counted

from .classes import check_class_names, check_classes, check_losses, check_queries
from .depth import check_depth
from .finding import Finding, Report
from .folders import check_folders
from .labels import LabelCheck, check_labels
from .names import check_keys, check_loop, check_pretrained, check_types, check_types_elsewhere
from .objects import BadObjects, Parsed, check_objects, parsed_once
from .packages import check_packages
from .pipelines import check_inputs, check_pipelines
from .pixels import check_batches, check_layer_decay, check_optimizer, check_pixels, check_sizes
from .schedule import check_learning_rates, check_schedule, check_together
from .wiring import check_anchors, check_wiring

# Maps that are read when a run starts.
SAMPLE = 64


def check_config(cfg: Config) -> list[Finding]:
    """Check a config without its data.

    Args:
        cfg (Config): As :func:`~mmmeta.apis.load_config` returns it.

    Returns:
        list[Finding]: What is wrong, or likely to be.
    """
    init_default_scope(scope_of(cfg))
    named = _collect(
        *(cfg, check_keys, check_pretrained, check_types, check_types_elsewhere, check_loop, check_together),
        check_packages,
        *(check_class_names, check_schedule, check_pipelines, check_inputs),
    )
    if any(finding.is_fatal and finding.key.startswith('model') for finding in named):
        return named  # the model cannot be built
    return named + _collect(
        cfg,
        check_wiring,
        check_anchors,
        check_classes,
        check_losses,
        check_queries,
        check_pixels,
        check_optimizer,
        check_layer_decay,
    )


def _collect(cfg: Config, *functions: Callable[[Config], Iterator[Finding]]) -> list[Finding]:
    """Findings of several checks; one that fails is said to, and leaves the others and the run alone."""
    findings: list[Finding] = []
    for function in functions:
        try:
            findings += function(cfg)
        except Exception as error:
            name = getattr(function, 'func', function).__name__
            text = f'{name} cannot read this config ({type(error).__name__}: {error})'
            findings.append(Finding('', text, is_warning=True))
    return findings


def check(
    cfg: Config, count: int | None = None, progress: Callable[[Iterable], Iterator] = iter
) -> list[Finding]:
    """Check a config and its data; see :func:`examine`.

    Returns:
        list[Finding]: What is wrong, or likely to be; nothing of a config that is right.
    """
    return examine(cfg, count, progress).findings


def examine(cfg: Config, count: int | None = None, progress: Callable[[Iterable], Iterator] = iter) -> Report:
    """Check a config and its data, as ``python -m mmmeta check`` does.

    Args:
        cfg (Config): As :func:`~mmmeta.apis.load_config` returns it.
        count (int | None): Annotation maps to read of each data set, evenly spread. Defaults to None: all.
        progress (callable): Wraps the maps while they are read. Defaults to ``iter``.

    Returns:
        Report: What was found, and what a training will do.

    Raises:
        UsageError: Data are not there, or not in the format of their data set.
    """
    # Several loaders are for a loop of the user's.
    loaders = [name for name in TRAIN_LOADERS if cfg.get(name) and isinstance(cfg[name], dict)]
    report = Report(check_config(cfg))
    if any(finding.is_fatal for finding in report.findings):
        return report  # data sets cannot be built
    check_data(cfg, loaders)
    with parsed_once() as parsed:
        loaded = {name: _check_loader(cfg, name, parsed, count, progress, report) for name in loaders}
    report.findings.extend(check_folders(loaded))
    return report


def _check_loader(
    cfg: Config,
    name: str,
    parsed: Parsed,
    count: int | None,
    progress: Callable[[Iterable], Iterator],
    report: Report,
) -> Any:
    """Check the data of a loader, and return its data set, if that can be read; see :func:`examine`."""
    findings = report.findings
    try:
        with explain_data_errors(cfg, [name], 'building'):
            dataset = build(DATASETS.build, cfg[name].dataset)
            if hasattr(dataset, 'full_init'):
                dataset.full_init()
    except BadObjects as error:
        findings.append(Finding(f'{name}.dataset.ann_file', str(error)))
        return None
    use = name.removesuffix('_dataloader').replace('train', 'training').replace('val', 'validation')
    report.read.append(f'{counted(len(dataset), "image")} for {use}')
    of_data = list(check_depth(name, dataset, count))
    if all(finding.is_warning for finding in of_data):  # else labels are not those of the files
        of_data += check_dataset(cfg, name, dataset, count, progress)
    of_data += check_objects(cfg, name, dataset, parsed)
    findings += of_data
    readable = all(finding.is_warning for finding in of_data)
    if name == 'val_dataloader' and len(dataset) and readable:
        with explain_data_errors(cfg, [name], 'reading'):
            findings += [*check_sizes(cfg, name, dataset, report.facts), *check_batches(cfg, name, dataset)]
    try:
        CocoCheckHook().check(dataset)
    except UsageError as error:
        findings.append(Finding(f'{name}.dataset', str(error)))
    if name == 'train_dataloader':
        findings += _collect(cfg, partial(check_learning_rates, images=len(dataset), facts=report.facts))
    return dataset


def check_dataset(
    cfg: Config,
    name: str,
    dataset: Any,
    count: int | None = SAMPLE,
    progress: Callable[[Iterable], Iterator] = iter,
) -> list[Finding]:
    """Check the annotation maps of a data set that is built, and of those inside it; see :func:`check`."""
    parts = inner_datasets(dataset)
    if parts:
        return [finding for part in parts for finding in check_dataset(cfg, name, part, count, progress)]
    numbers = _labels_of_head(cfg)
    if not hasattr(dataset, 'reduce_zero_label') or numbers is None:
        return []
    with explain_data_errors(cfg, [name], 'reading'):
        return list(check_labels(name, dataset, *numbers, count, progress))


def _labels_of_head(cfg: Config) -> tuple[int, int] | None:
    """Classes of a segmentor's head, and the label that it leaves out."""
    head = bare_model(cfg).get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    classes = head.get('num_classes')
    return (classes, head.get('ignore_index', 255)) if isinstance(classes, int) else None


def check_while_reading(cfg: Config, dataset: Any) -> None:
    """Let a data set of segmentation end a run at a label out of range, whichever map it is in.

    Args:
        cfg (Config): The config.
        dataset (Dataset): A data set that is built; its pipeline is extended, and those of data sets inside.
    """
    for part in inner_datasets(dataset):
        check_while_reading(cfg, part)
    numbers, pipeline = _labels_of_head(cfg), getattr(dataset, 'pipeline', None)
    transforms = getattr(pipeline, 'transforms', None)
    if numbers is not None and hasattr(dataset, 'reduce_zero_label') and transforms:
        transforms.append(LabelCheck(*numbers, int(bool(dataset.reduce_zero_label))))
