"""Transforms of the data: names, arguments, order, and what they leave for the model."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import TRANSFORMS

from mmmeta.config.inspection import (
    ALL_LOADERS,
    bare_model,
    bare_type,
    dataset_class,
    datasets,
    iter_dicts,
    pads_labels,
    parts_of,
    preprocessor_of,
    scope_of,
)

from .finding import Finding
from .names import check_arguments, explain_missing_type, look_up

PACKS = dict(mmseg='PackSegInputs', mmdet='PackDetInputs', mmpretrain='PackInputs')
# Transforms that move pixels; annotations have to be there before.
GEOMETRIC = ('Resize', 'RandomResize', 'RandomChoiceResize', 'RandomCrop', 'RandomFlip', 'RandomRotate')
# What turned into packing when MMCV 2 came.
FORMER = ('DefaultFormatBundle', 'Collect', 'ImageToTensor')
# Heads that pool a map to one pixel, of which a batch norm needs two.
POOLING_HEADS = ('UPerHead', 'PSPHead', 'ASPPHead', 'DepthwiseSeparableASPPHead')


def check_pipelines(cfg: Config) -> Iterator[Finding]:
    """Transforms that are not registered, take other arguments, or stand in the wrong order."""
    if cfg.get('default_scope') is None:
        return
    seen = []
    for name in ALL_LOADERS:
        loader = cfg.get(name) or {}
        outermost = loader.get('dataset') if isinstance(loader, dict) else None
        for dataset in datasets(loader):
            pipeline = dataset.pipeline
            if pipeline in seen or not isinstance(pipeline, (list, tuple)):
                continue
            seen.append(pipeline)
            key = f'{name}.dataset.pipeline'
            yield from _check_transforms(cfg, key, pipeline)
            if name == 'train_dataloader':
                yield from _check_order(key, pipeline)
            else:
                yield from _check_random(key, pipeline)
            if dataset is outermost and pipeline:
                yield from _check_packing(cfg, key, pipeline)


def _check_transforms(cfg: Config, key: str, pipeline: Sequence[dict]) -> Iterator[Finding]:
    scope = scope_of(cfg)
    for i, transform in enumerate(pipeline):
        name = transform.get('type') if isinstance(transform, dict) else None
        if not isinstance(name, str):
            continue
        cls = look_up(TRANSFORMS, name, scope)
        if cls is None:
            yield Finding(f'{key}.{i}.type', _explain_type(f'{key}.{i}', name, scope), is_fatal=True)
        elif inspect.isclass(cls):
            yield from check_arguments(f'{key}.{i}', transform, cls)


def _explain_type(key: str, name: str, scope: str) -> str:
    if name in FORMER:
        return f"{key}.type='{name}' is of MMCV 1, whose work {PACKS.get(scope)} does now: take it out"
    return explain_missing_type(TRANSFORMS, key, name, scope, 0.6)


def _names(pipeline: Sequence[dict]) -> list[str]:
    """Types of the transforms, without scopes."""
    types = (transform.get('type') if isinstance(transform, dict) else None for transform in pipeline)
    return [name.rpartition('.')[2] if isinstance(name, str) else '' for name in types]


def _check_order(key: str, pipeline: Sequence[dict]) -> Iterator[Finding]:
    names = _names(pipeline)
    first = next((i for i, name in enumerate(names) if name in GEOMETRIC), None)
    loads = names.index('LoadAnnotations') if 'LoadAnnotations' in names else None
    if first is not None and loads is not None and loads > first:
        yield Finding(
            f'{key}.{loads}',
            f'{key} has LoadAnnotations (number {loads}) after {names[first]} (number {first}), which then '
            'moves the image alone: load annotations before',
        )


def _check_random(key: str, pipeline: Sequence[dict]) -> Iterator[Finding]:
    """Crops at random, after which predictions and annotations of an evaluation are of other pixels."""
    for i, name in enumerate(_names(pipeline)):
        if name in ('RandomCrop', 'RandomResizedCrop'):
            yield Finding(
                f'{key}.{i}',
                f'{key}.{i} is {name}, and an evaluation is of whole images, the same each time: take it out',
            )


def _check_packing(cfg: Config, key: str, pipeline: Sequence[dict]) -> Iterator[Finding]:
    wanted = PACKS.get(scope_of(cfg))
    inside = [str(value.get('type')) for value in iter_dicts(pipeline)]
    # Test-time augmentation packs inside, and others bring transforms of their own.
    known = all(cls in ('', *_known_names()) for cls in _names(pipeline))
    if wanted and known and not any('Pack' in name or 'Format' in name for name in inside):
        yield Finding(
            key, f'{key} ends in {_names(pipeline)[-1]}, and nothing packs what the model takes: add {wanted}'
        )


def _known_names() -> set[str]:
    """Transforms of MMCV, which pack nothing."""
    return set(TRANSFORMS.module_dict) | set(GEOMETRIC) | {'LoadAnnotations', 'PhotoMetricDistortion'}


def check_inputs(cfg: Config) -> Iterator[Finding]:
    """What pipelines leave against what the model takes: masks, labels, sizes, batches."""
    loader, model = cfg.get('train_dataloader') or {}, bare_model(cfg)
    if cfg.get('default_scope') is None or not loader:
        return
    for name in ALL_LOADERS:
        for dataset in datasets(cfg.get(name) or {}):
            yield from _check_zero(f'{name}.dataset', dataset, scope_of(cfg))
    _, preprocessor = preprocessor_of(cfg)
    for dataset in datasets(loader):
        yield from _check_mask_loading(dataset, model)
        pipeline = dataset.pipeline if isinstance(dataset.pipeline, (list, tuple)) else []
        if 'Normalize' in (names := _names(pipeline)) and preprocessor.get('mean') is not None:
            yield Finding(
                f'train_dataloader.dataset.pipeline.{names.index("Normalize")}',
                'pixels are normalised twice, by Normalize in the pipeline and by the data_preprocessor with '
                f'mean={preprocessor["mean"]}: take Normalize out',
            )
    if scope_of(cfg) == 'mmseg':
        yield from _check_sizes(cfg, loader)
        yield from _check_batch(loader, model)
        yield from _check_padding(cfg, loader, model)


def _loads(dataset: ConfigDict) -> list[tuple[int, dict]]:
    """Transforms that load annotations, with their places."""
    pipeline = dataset.pipeline if isinstance(dataset.pipeline, (list, tuple)) else []
    return [(i, pipeline[i]) for i, name in enumerate(_names(pipeline)) if name == 'LoadAnnotations']


def _check_zero(key: str, dataset: ConfigDict, scope: str) -> Iterator[Finding]:
    if scope != 'mmseg':
        return
    cls = dataset_class(dataset, scope)
    parameter = inspect.signature(cls).parameters.get('reduce_zero_label') if cls else None
    default = parameter.default if parameter is not None else None
    of_data = dataset.get('reduce_zero_label', default)
    for i, transform in _loads(dataset):
        lowers = transform.get('reduce_zero_label')
        if lowers is not None and isinstance(of_data, bool) and lowers != of_data:
            yield Finding(
                f'{key}.pipeline.{i}.reduce_zero_label',
                f'{key}.pipeline.{i}.reduce_zero_label={lowers}, and the data set has {of_data}: leave it to '
                'the data set',
            )


def _check_mask_loading(dataset: dict, model: dict) -> Iterator[Finding]:
    roi_head = model.get('roi_head')
    if not isinstance(roi_head, dict) or not roi_head.get('mask_head'):
        return
    for i, transform in _loads(dataset):
        if not transform.get('with_mask') and not transform.get('with_seg'):
            key = f'train_dataloader.dataset.pipeline.{i}.with_mask'
            yield Finding(
                key, f'model.roi_head.mask_head learns masks, and none are loaded: write {key}=True'
            )


def _check_sizes(cfg: Config, loader: dict) -> Iterator[Finding]:
    """Padding of a batch; MMSegmentation takes a size or a divisor, not both."""
    key, given = preprocessor_of(cfg)
    if not pads_labels(given):
        return
    size, divisor = given.get('size'), given.get('size_divisor')
    crops = [
        transform.get('crop_size')
        for dataset in datasets(loader)
        for transform in iter_dicts(dataset.pipeline)
        if transform.get('type') == 'RandomCrop'
    ]
    crop = _as_pair(crops[0]) if len(crops) == 1 else None
    if (size is None) == (divisor is None):
        said = f'{key} has both size={size} and size_divisor={divisor}' if size else f'{key} has no size'
        wanted = f'{key}.size={crop}' if crop else f'{key}.size'
        yield Finding(f'{key}.size', f'{said}, and batches are padded to one of the two: write {wanted}')
    elif crop and (size := _as_pair(size)) and size[0] * size[1] > crop[0] * crop[1]:
        share = 1 - crop[0] * crop[1] / (size[0] * size[1])
        yield Finding(
            f'{key}.size',
            f'{key}.size={size}, and crops are {crop}: {share:.0%} of what is computed is padding; write '
            f'{key}.size={crop}',
            is_warning=True,
        )


def _as_pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, int):
        return value, value
    ints = isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, int) for v in value)
    return tuple(value) if ints else None


def _check_batch(loader: dict, model: dict) -> Iterator[Finding]:
    for key, head in parts_of(model):
        name = bare_type(head)
        norm = str((head.get('norm_cfg') or {}).get('type'))
        decodes = key.startswith('model.decode_head') and name in POOLING_HEADS
        if loader.get('batch_size') == 1 and decodes and norm == 'BN':
            yield Finding(
                'train_dataloader.batch_size',
                f'train_dataloader.batch_size=1, and {name} ({key}) pools a map to one pixel, of which its '
                "norm ('BN') needs two: write 2 or more",
            )


def _check_padding(cfg: Config, loader: dict, model: dict) -> Iterator[Finding]:
    """The label of padding, which the losses of all heads have to leave out."""
    key, preprocessor = preprocessor_of(cfg)
    padding = preprocessor.get('seg_pad_val', 255)
    if not pads_labels(preprocessor):
        return
    if all(_has_one_size(dataset.pipeline) for dataset in datasets(loader)):
        return
    for name, head in parts_of(model):
        classes, ignored = head.get('num_classes'), head.get('ignore_index', 255)
        if (
            not isinstance(classes, int)
            or not isinstance(ignored, int)
            or padding in (ignored, *range(classes))
        ):
            continue
        evaluator = cfg.get('val_evaluator')
        metric = isinstance(evaluator, dict) and bare_type(evaluator) == 'IoUMetric'
        more = ''
        if metric and ignored < classes and evaluator.get('ignore_index', 255) != ignored:
            more = f', and val_evaluator.ignore_index={ignored}, since its metric counts that class'
        yield Finding(
            f'{key}.seg_pad_val',
            f'{name}.ignore_index={ignored}, and padding gets the label {padding} ({key}.seg_pad_val), '
            f'which is none of {classes} classes: write {key}.seg_pad_val={ignored}{more}',
        )
        return


def _has_one_size(pipeline: Any) -> bool:
    """Whether a pipeline makes all images of one size, so that batches are not padded."""
    moves = [value for value in iter_dicts(pipeline) if bare_type(value) in GEOMETRIC]
    sized = [value for value in moves if 'Flip' not in bare_type(value) and 'Rotate' not in bare_type(value)]
    return bool(sized) and bare_type(sized[-1]) == 'Resize' and not sized[-1].get('keep_ratio')
