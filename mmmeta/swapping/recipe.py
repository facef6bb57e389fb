"""How a network with another backbone is trained: optimiser, schedule, pixels, sizes, windows."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from mmmeta.config.inspection import ALL_LOADERS, bare_model, bare_type, iter_dicts, scope_of
from mmmeta.utils.errors import UsageError
from mmmeta.validation.pixels import LAYER_DECAY
from mmmeta.weights import MEAN, STD

# AdamW's learning rate, batch and weight decay of our own configs: of Semantic FPN, of UperNet, of detectors
# and of classifiers. Others of a kind take the same.
RECIPES = dict(
    fpn=(2e-4, 32, 1e-4), mmseg=(6e-5, 16, 0.01), mmdet=(1e-4, 16, 0.05), mmpretrain=(4e-3, 4096, 0.05)
)
GPUS = 8  # as OpenMMLab trains where a config's name has no other number
WARMUP = 1500  # iterations, of our UperNets
# Arguments of the constructors in LAYER_DECAY, which know the layers of other backbones.
DECAY_KEYS = ('decay_rate', 'decay_type', 'num_layers', 'layer_decay_rate')
STEP = 32
# Arguments of transforms and of batches that are sizes in pixels.
SIZES = ('scale', 'scales', 'crop_size', 'img_scale', 'size', 'border', 'random_size_range', 'max_size')


def put_optimizer(cfg: Config, names: list[str]) -> dict[tuple, str]:
    """Train as MetaFormers are trained, in place.

    Args:
        cfg (Config): The config, with the other backbone.
        names (list[str]): Names of the model's parameters.

    Returns:
        dict[tuple, str]: Why, by the key.
    """
    wrapper = cfg.get('optim_wrapper')
    optimizer = wrapper.get('optimizer') if isinstance(wrapper, dict) else None
    if not isinstance(optimizer, dict):
        return {}
    reasons: dict[tuple[str, ...], str] = {}
    kind, batch = _kind(cfg), _batch_size(cfg)
    if not isinstance((cfg.get('auto_scale_lr') or {}).get('base_batch_size'), int):
        enable = bool((cfg.get('auto_scale_lr') or {}).get('enable'))
        cfg.auto_scale_lr = ConfigDict(enable=enable, base_batch_size=batch)
        known = '' if _gpus(cfg) else f', on {GPUS} GPUs'
        reasons['auto_scale_lr',] = f'For --auto-scale-lr: what the learning rate is for{known}.'
    if optimizer.get('type') != 'AdamW':
        rate, base, decay = RECIPES[kind]
        before = optimizer.get('lr')
        new = float(f'{rate * batch / base:.2g}')
        wrapper.optimizer = ConfigDict(type='AdamW', lr=new, betas=(0.9, 0.999), weight_decay=decay)
        reasons['optim_wrapper', 'optimizer'] = (
            f'The rate of our configs at a batch of {base}.'
            if batch == base
            else f'{rate:g} for a batch of {base} in our configs, in proportion for {batch} here.'
        )
        if isinstance(before, (int, float)) and before:
            reasons['param_scheduler',] = _scale_schedule(cfg, new / before)
        if scope_of(cfg) == 'mmseg' and _add_warmup(cfg):
            reasons['param_scheduler',] = 'As UperNet: AdamW begins with a warm-up.'
    paramwise = dict(wrapper.get('paramwise_cfg') or {})
    if wrapper.get('constructor') in LAYER_DECAY:
        wrapper.pop('constructor')
        for key in DECAY_KEYS:
            paramwise.pop(key, None)
    custom = paramwise.get('custom_keys')
    if custom:
        kept = {key: value for key, value in custom.items() if any(key in name for name in names)}
        paramwise.pop('custom_keys')
        if kept:
            paramwise['custom_keys'] = kept
        if 'constructor' not in wrapper and _decays(kept, names):
            wrapper.constructor = 'mmmeta.FlatDecayOptimWrapperConstructor'
            reasons['optim_wrapper', 'constructor'] = 'flat_decay_mult holds below custom_keys as well.'
    paramwise['flat_decay_mult'] = 0.0
    wrapper.paramwise_cfg = ConfigDict(paramwise)
    reasons['optim_wrapper', 'paramwise_cfg'] = (
        "No decay of norms, biases, residual scales and StarReLU's scalars."
    )
    return reasons


def _decays(custom: dict[str, dict], names: list[str]) -> bool:
    """Whether an entry of ``custom_keys`` names parameters of the backbone, and lets them decay."""
    keys = [key for key, value in custom.items() if value.get('decay_mult', 1)]
    return any(key in name for key in keys for name in names if 'backbone.' in name)


def _kind(cfg: Config) -> str:
    scope = scope_of(cfg)
    head = bare_model(cfg).get('decode_head')
    if scope == 'mmseg' and isinstance(head, dict) and bare_type(head) == 'FPNHead':
        return 'fpn'
    return scope if scope in RECIPES else 'mmdet'


def _batch_size(cfg: Config) -> int:
    """Images for a step that the learning rate is for, on all GPUs."""
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if isinstance(base, int):
        return base
    images = (cfg.get('train_dataloader') or {}).get('batch_size', 1)
    return (_gpus(cfg) or GPUS) * images * (cfg.optim_wrapper.get('accumulative_counts') or 1)


def _gpus(cfg: Config) -> int | None:
    """GPUs in the name of a config, or of one that it inherits from."""
    names = [cfg.filename or '', *bases_of(cfg)]
    found = next(filter(None, (re.search(r'(\d+)xb\d+', Path(name).name) for name in names)), None)
    return int(found[1]) if found else None


def bases_of(cfg: Config) -> list[str]:
    """Files that a config was read from, which its text names before the content of each."""
    lines = (cfg.text or '').splitlines()
    return [line for line in lines if line.endswith('.py') and os.path.isfile(line)]


def _scale_schedule(cfg: Config, factor: float) -> str:
    """Scale learning rates that schedulers end at; take out those of a momentum that AdamW has not.

    Returns:
        str: What was done.
    """
    schedulers = cfg.get('param_scheduler')
    if not schedulers:
        return ''
    single = isinstance(schedulers, dict)
    kept = []
    said = 'AdamW has no momentum to schedule.'
    for scheduler in [schedulers] if single else schedulers:
        if 'Momentum' in str(scheduler.get('type')):
            continue
        for key in ('eta_min', 'eta_max', 'min_lr'):
            if isinstance(scheduler.get(key), (int, float)):
                scheduler[key] = float(f'{scheduler[key] * factor:.2g}')
                said = 'Its ends are scaled with the learning rate.'
        kept.append(scheduler)
    cfg.param_scheduler = kept[0] if single and kept else kept
    return said


def _add_warmup(cfg: Config) -> bool:
    """Begin a schedule of iterations with a warm-up, unless it has one."""
    schedulers = cfg.get('param_scheduler')
    if not isinstance(schedulers, list) or len(schedulers) != 1:
        return False
    (only,) = schedulers
    if only.get('by_epoch', True) or only.get('begin') != 0 or only.get('end', 0) <= WARMUP:
        return False
    only.begin = WARMUP
    warmup = dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=WARMUP)
    cfg.param_scheduler = [ConfigDict(warmup), only]
    return True


def put_pixels(cfg: Config) -> dict[tuple, str]:
    """Normalise as the published weights know, wherever a config normalises, in place."""
    order = 'to_rgb' if scope_of(cfg) == 'mmpretrain' else 'bgr_to_rgb'
    known = {'mean': list(MEAN), 'std': list(STD), order: True}
    outer = [part.get('data_preprocessor') for part in iter_dicts(cfg.model) if 'backbone' in part]
    outer += [cfg.model.get('data_preprocessor'), cfg.get('data_preprocessor')]
    reasons = {}
    if any(bare_type(part) == 'Normalize' for part in _transforms(cfg)):
        outer = []  # it normalises there, once
    for value in {id(part): part for part in map(_innermost, outer) if part is not None}.values():
        if any(_differs(value.get(name), wanted) for name, wanted in known.items()):
            value.update(known)
            value.pop('rgb_to_bgr', None)
            reasons['data_preprocessor', 'mean'] = 'What the weights know: red first, statistics of ImageNet.'
    for transform in _transforms(cfg):
        if 'mean' in transform and 'to_rgb' in transform:
            transform.update(mean=list(MEAN), to_rgb=True)
            if 'std' in transform:
                transform['std'] = list(STD)
    return reasons


def _preprocessors(cfg: Config) -> list[dict]:
    """The data preprocessors, beside the model and in it."""
    return [owner.get('data_preprocessor') or {} for owner in (cfg, bare_model(cfg))]


def _transforms(cfg: Config, loaders: Sequence[str] = ALL_LOADERS) -> Iterator[dict]:
    """Transforms of the pipelines, and data sets around them."""
    for name in loaders:
        for part in iter_dicts((cfg.get(name) or {}).get('dataset') or {}):
            if 'type' in part:
                yield part


def _innermost(preprocessor: dict | None) -> dict | None:
    """The data preprocessor inside those that split batches."""
    while isinstance(preprocessor, dict) and isinstance(preprocessor.get('data_preprocessor'), dict):
        preprocessor = preprocessor['data_preprocessor']
    return preprocessor


def _differs(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        close = isinstance(value, (list, tuple)) and len(value) == len(wanted)
        return not close or any(abs(a - b) > 0.1 for a, b in zip(value, wanted, strict=True))
    return value is not wanted


def take_out_weights(cfg: Config) -> dict[tuple, str]:
    """Take out weights of another backbone, in place."""
    reasons = {}
    model = bare_model(cfg)
    if model.get('pretrained'):
        model.pretrained = None
    init = model.get('init_cfg')
    given = [one for one in (init if isinstance(init, list) else [init]) if one]
    kept = [one for one in given if one['type'] != 'Pretrained']
    if kept != given:
        model.init_cfg = kept or None
    if cfg.get('load_from'):
        cfg.load_from = None
        reasons['load_from',] = 'They are of another backbone.'
    if cfg.get('resume'):
        cfg.resume = False
        reasons['resume',] = 'What is there is of another backbone.'
    return reasons


def _sizes(value: Any) -> Iterator[list[int]]:
    """All pairs of sizes in pixels, and single ones, in an argument."""
    if isinstance(value, int) and not isinstance(value, bool):
        yield [value]
    elif isinstance(value, (list, tuple)):
        if value and all(isinstance(side, int) for side in value):
            yield list(value)
        else:
            for part in value:
                yield from _sizes(part)


def largest_side(cfg: Config) -> int:
    """The largest side of images in training and testing, as far as pipelines say, in pixels."""
    sides = [0]
    for part in (*_transforms(cfg), *iter_dicts(_preprocessors(cfg))):
        for key in ('scale', 'scales', 'img_scale', 'crop_size', 'random_size_range'):
            sides += (side for pair in _sizes(part.get(key)) for side in pair if side < 1e5)
    return max(sides)


def training_size(cfg: Config) -> tuple[int, int] | None:
    """Height and width that images are trained with; None if a config does not say."""
    batches = [part for part in iter_dicts(_preprocessors(cfg)) if 'type' in part]
    transforms = [*_transforms(cfg, ('train_dataloader',)), *batches]
    # The last one counts: a crop after resizing, or a resizing after a crop.
    for transform in reversed(transforms):
        for key in ('crop_size', 'img_scale', 'scale', 'scales'):
            pairs = [pair for pair in _sizes(transform.get(key)) if min(pair) >= STEP]
            if not pairs:
                continue
            pair = max(pairs, key=lambda sides: (max(sides), min(sides)))
            pair = pair * 2 if len(pair) == 1 else pair
            # Widths are first in sizes that images are resized to, with the longer one where it is kept.
            return (pair[0], pair[1]) if key == 'crop_size' else (min(pair), max(pair))
    return None


def put_training_size(cfg: Config, size: tuple[int, int]) -> None:
    """Train on images of another size, in place: what is resized, cropped, padded and slid over.

    Args:
        cfg (Config): The config.
        size (tuple[int, int]): Height and width in pixels, multiples of 32.

    Raises:
        UsageError: The size is none, or the config does not say what it trains with.
    """
    if any(side < STEP or side % STEP for side in size):
        raise UsageError(f'--train-size {size[0]} {size[1]}: give multiples of {STEP}')
    before = training_size(cfg)
    if before is None:
        raise UsageError('--train-size: the training pipeline of this config resizes and crops to no size')
    train, model = cfg.get('train_dataloader') or {}, bare_model(cfg)
    preprocessors = [owner.get('data_preprocessor') or {} for owner in (cfg, cfg.model, model)]
    # Hooks that switch pipelines have those of the last epochs.
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if isinstance(hook, dict)]
    parts = (train.get('dataset') or {}, *preprocessors, *hooks)
    for part in {id(part): part for part in parts}.values():  # of a model that is in no other, once
        scale_sizes(part, before, size)
    test = model.get('test_cfg')
    if isinstance(test, ConfigDict) and test.get('mode') == 'slide':
        test.stride = type(test.stride)(
            max(1, round(stride * new / old))
            for stride, new, old in zip(test.stride, size, before, strict=True)
        )
        test.crop_size = type(test.crop_size)(size)


def scale_sizes(part: dict, before: tuple[int, int], size: tuple[int, int]) -> None:
    """Scale the sizes in a part of a config, in place; heights and widths of ``before`` become ``size``."""
    for value in iter_dicts(part):
        for key in SIZES if 'type' in value else ():
            if key in value:
                value[key] = _scale(value[key], key, before, size)


def _scale(value: Any, key: str, before: tuple[int, int], size: tuple[int, int]) -> Any:
    factor = math.sqrt(size[0] * size[1] / (before[0] * before[1]))
    if isinstance(value, int) and not isinstance(value, bool):
        return _rounded(value * factor) if abs(value) >= STEP else value
    if not isinstance(value, (list, tuple)):
        return value
    pair = tuple(value)
    # Heights are first in what is cut and padded, widths in what is resized to.
    if key in ('crop_size', 'size') and pair == before:
        pair = size
    elif key in ('scale', 'img_scale') and pair in (before, before[::-1]):
        pair = size[::-1]
    else:
        pair = tuple(_scale(part, key, before, size) for part in value)
    return type(value)(pair)


def _rounded(value: float) -> int:
    """A multiple of the stride, not zero."""
    sign = 1 if value > 0 else -1
    return sign * max(STEP, round(abs(value) / STEP) * STEP)
