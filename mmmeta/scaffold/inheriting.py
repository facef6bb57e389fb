"""Any config that a MetaFormer can be put into, for somebody's data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from mmmeta.config.inspection import bare_model, classes_of, datasets, iter_dicts
from mmmeta.config.literals import Expression, comment
from mmmeta.swapping.recipe import STEP, scale_sizes, training_size
from mmmeta.swapping.swap import swap_with_reasons
from mmmeta.swapping.writing import base_of, format_differences, plain
from mmmeta.utils.errors import UsageError

from .decisions import Decisions
from .facts import Facts
from .places import Places
from .text import RATES

SCOPES = dict(seg='mmseg', det='mmdet', cls='mmpretrain')
# Wrappers whose pipelines mix several images; others repeat or join data sets, which are replaced.
MIXING = ('MultiImageMixDataset',)
BEST = dict(seg='mIoU', det='coco/bbox_mAP', cls='auto')


def check_original(task: str, config: str, original: Config) -> str:
    """Check that a config is one for a task, and return the method of ours that needs the same labels.

    Args:
        task (str): ``'seg'``, ``'det'`` or ``'cls'``.
        config (str): Its name, as a person gave it.
        original (Config): The config, as it was loaded.

    Raises:
        UsageError: It is of another package, or trains on no data.
    """
    scope = original.get('default_scope')
    if scope != SCOPES[task]:
        fitting = next((name for name, other in SCOPES.items() if other == scope), None)
        hint = f'write new {fitting}' if fitting else 'give one of MMDetection, MMSegmentation or MMPretrain'
        raise UsageError(f"--config '{config}' is of {scope}, and {task} needs one of {SCOPES[task]}: {hint}")
    inner = next(datasets(original.get('train_dataloader') or {}), None)
    if inner is None or not classes_of(inner, scope):
        raise UsageError(f"--config '{config}' trains on no data set with classes: take another")
    with_mask = any(step.get('with_mask') for step in _loading_steps(inner.pipeline))
    return dict(seg='upernet', cls='classifier').get(task, 'mask_rcnn' if with_mask else 'retinanet')


def write_inheriting(
    task: str,
    config: str,
    original: Config,
    path: Path,
    places: Places,
    backbone: str,
    weights: str | None,
    facts: Facts,
    decisions: Decisions,
) -> str:
    """The text of a config that inherits from another one; see :func:`~mmmeta.scaffold.text.write_config`.

    Args:
        task (str): As there.
        config (str): The other one, as a person gave it.
        original (Config): The other one, as it was loaded.
        path (Path): As there; so are the others.
        places (Places): As there.
        backbone (str): As there.
        weights (str | None): As there.
        facts (Facts): As there.
        decisions (Decisions): As there.

    Raises:
        UsageError: No MetaFormer fits into it, or it is made for classes of its own.
    """
    before = training_size(original)
    factor = decisions.side / min(before) if before else 1
    size = None
    if before is not None:
        height, width = (max(STEP, round(side * factor / STEP) * STEP) for side in before)
        size = height, width
    swapped = swap_with_reasons(original, backbone, size)
    cfg = swapped.cfg
    if before is not None and size is not None:
        tested = [cfg[name].dataset for name in ('val_dataloader', 'test_dataloader')]
        for dataset in {id(dataset): dataset for dataset in tested}.values():  # which may be one
            scale_sizes(dataset, before, size)
    pretrained = weights and ConfigDict(type='Pretrained', checkpoint=Expression(places.weights(weights)))
    bare_model(cfg).backbone.init_cfg = pretrained
    inner = next(datasets(original.train_dataloader))
    _put_classes(cfg, config, len(classes_of(inner, SCOPES[task])), len(facts.classes))
    for name in ('train', 'val', 'test'):
        part = name if name in facts.splits else 'val'
        _put_data(task, cfg[f'{name}_dataloader'], path, places, facts, part)
    if task == 'seg':
        for step in _loading_steps(cfg.get('tta_pipeline') or []):
            _put_labels(step, facts)
    _put_metrics(task, cfg, decisions.method == 'mask_rcnn', len(facts.classes))
    _put_schedule(task, cfg, decisions, RATES[task][0 if weights else 1])
    text = format_differences(base_of(config, original, path), plain(original), plain(cfg), swapped.reasons)
    base, _, rest = text.partition('\n')
    return (
        f'{comment(f"{config} with {backbone} for {len(facts.classes)} classes.")}\n{base}\n'
        '# The folders of this file and of the data: all other paths begin with one of them.\n'
        f'here = {places.here}\ndata_root = {places.data_root}\n{rest}'
    )


def _loading_steps(pipeline: object) -> Iterator[dict[str, Any]]:
    """Steps of a pipeline that load annotations."""
    return (step for step in iter_dicts(pipeline) if step.get('type') == 'LoadAnnotations')


def _put_classes(cfg: Config, config: str, old: int, new: int) -> None:
    """Give all parts of a model another number of classes, in place."""
    for part in (*iter_dicts(cfg.model), *iter_dicts(cfg.get('data_preprocessor') or {})):
        if part.get('num_stuff_classes') or 'thing_classes' in part:
            raise UsageError(f"--config '{config}' is made for things and stuff: take one for objects alone")
        for key in ('num_classes', 'num_things_classes', 'out_channels'):
            is_output = key != 'out_channels' or part.get('num_classes') in (old, new)
            if part.get(key) == old and is_output:
                part[key] = new
        rates = part.get('class_weight')
        if isinstance(rates, (list, tuple)) and len(rates) in (old, old + 1) and len({*rates[:old]}) == 1:
            part['class_weight'] = [*rates[:1] * new, *rates[old:]]


def _put_labels(step: dict[str, Any], facts: Facts) -> None:
    """Let a step read the labels of somebody's masks, in place."""
    step.clear()
    step['type'] = 'LoadAnnotations'
    if facts.labels.is_mapped:
        ignored = list(facts.labels.ignore)
        step.update(type='mmmeta.LoadMappedLabels', labels=list(facts.labels.classes), ignore=ignored)


def _put_data(task: str, loader: ConfigDict, path: Path, places: Places, facts: Facts, part: str) -> None:
    """Put a loader on a part of somebody's data, with the pipeline that it has, in place."""
    inner, split = next(datasets(loader)), facts.splits[part]
    pipeline = inner.pipeline
    images = Expression(places.in_root(split.images))
    data: dict[str, Any] = dict(metainfo=dict(classes=tuple(facts.classes)))
    data['data_root'] = Expression('data_root')
    if task == 'det':
        beside = places.beside(f'{path.stem}_{part}.json')
        file = beside if split.is_written else places.path(split.labels)
        data.update(type='CocoDataset', ann_file=Expression(file), data_prefix=dict(img=images))
        if part == 'train':
            data['filter_cfg'] = dict(filter_empty_gt=True, min_size=0)
        else:
            data['test_mode'] = True
    elif task == 'seg':
        for step in _loading_steps(pipeline):
            _put_labels(step, facts)
        prefix = dict(img_path=images, seg_map_path=Expression(places.in_root(split.labels)))
        suffixes = dict(img_suffix=facts.suffixes[0], seg_map_suffix=facts.suffixes[1])
        data.update(type='BaseSegDataset', data_prefix=prefix, reduce_zero_label=False, **suffixes)
        if facts.labels.palette:
            data['metainfo']['palette'] = facts.labels.palette
    else:
        data.update(type='CustomDataset', data_prefix=images)
    if split.is_listed:
        data['ann_file'] = Expression(places.beside(f'{path.stem}_{part}.txt'))
    inner.clear()
    inner.update(data, pipeline=pipeline)
    if loader.dataset.type not in MIXING:
        loader.dataset = inner


def _put_metrics(task: str, cfg: Config, with_mask: bool, count: int) -> None:
    """Measure with the metric of the layout that the data are in, in place."""
    for part in ('val', 'test'):
        metric: dict[str, Any] = dict(type='IoUMetric', iou_metrics=['mIoU'])
        if task == 'det':
            metric = dict(type='CocoMetric', metric=['bbox', 'segm'] if with_mask else 'bbox')
            metric.update(ann_file=next(datasets(cfg[f'{part}_dataloader'])).ann_file, classwise=True)
        elif task == 'cls':
            metric = dict(type='Accuracy', topk=(1, 5) if count > 5 else (1,))
            cfg[f'{part}_evaluator'] = [ConfigDict(metric), ConfigDict(type='mmmeta.ClassAccuracy')]
            continue
        cfg[f'{part}_evaluator'] = ConfigDict(metric)


def _put_schedule(task: str, cfg: Config, decisions: Decisions, rate: float) -> None:
    """Train as long as somebody's data want, in place."""
    epochs, iterations, loop = decisions.epochs, decisions.iterations, cfg.train_cfg
    by_epoch = 'max_iters' not in loop
    length, old = (epochs, loop.get('max_epochs')) if by_epoch else (iterations, loop.max_iters)
    interval = decisions.val_epochs if by_epoch else decisions.val_iterations
    kept = {key: loop[key] for key in ('type', 'by_epoch') if key in loop}
    kept['max_epochs' if by_epoch else 'max_iters'] = length
    cfg.train_cfg = ConfigDict(kept, val_interval=interval)
    cfg.train_dataloader.update(batch_size=decisions.batch_size, num_workers=2)
    cfg.optim_wrapper.optimizer.lr = rate
    schedule = dict(type='PolyLR', eta_min=0.0, power=1.0, begin=0, end=length, by_epoch=False)
    if by_epoch:
        schedule.update(by_epoch=True, convert_to_iter_based=True)
    warmup = min(iterations // 10, 500)
    first = dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup)
    cfg.param_scheduler = [ConfigDict(one) for one in ([first] if warmup > 1 else []) + [schedule]]
    for hook in cfg.get('custom_hooks') or []:
        for key in ('switch_epoch', 'num_last_epochs'):
            if isinstance(hook.get(key), int) and old:
                hook[key] = max(round(hook[key] * length / old), 1)
    cfg.default_hooks.checkpoint.update(interval=interval, max_keep_ckpts=2, save_best=BEST[task])
    cfg.default_hooks.logger.update(interval=min(10, max(iterations // 10, 1)))
