"""Pixels against the weights and the backbone, and the optimiser against what such networks train with."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from mmengine.config import Config
from torch import Tensor

from mmmeta.config.inspection import iter_dicts, our_backbone, pads_labels, preprocessor_of, scope_of
from mmmeta.weights import MEAN, STD, name_of_location

from .depth import describe_inputs
from .finding import Finding
from .labels import size_of

# AdamW trains all of ours; 4e-3 at a batch of 4096 images is the largest rate of the papers.
LARGEST_RATE = 1e-2
# Constructors of MMDetection and MMSegmentation, which know the layers of backbones of their own alone.
LAYER_DECAY = ('LearningRateDecayOptimizerConstructor', 'LayerDecayOptimizerConstructor')
# Of the last stage, in pixels; and images to look at.
STRIDE, SAMPLE = 32, 4
# Images whose sizes are compared with those of their batch.
BATCHED = 64


def _normalises_elsewhere(cfg: Config) -> bool:
    """Whether a pipeline normalises, or reads images in another order than blue first."""
    return any(
        'Normalize' in str(value.get('type'))
        or 'rgb' in (value.get('channel_order'), value.get('color_type'))
        for name in ('train_dataloader', 'test_dataloader')
        for value in iter_dicts(cfg.get(name) or {})
    )


def check_pixels(cfg: Config) -> Iterator[Finding]:
    """Mean, deviation and order of channels, where the backbone starts from weights that are known."""
    backbone = our_backbone(cfg) or {}
    init = backbone.get('init_cfg') or {}
    if name_of_location(init.get('checkpoint') or '') is None or _normalises_elsewhere(cfg):
        return
    key, given = preprocessor_of(cfg)
    channels = backbone.get('in_channels', len(MEAN))
    if channels != len(MEAN):  # what the weights know is of red, green and blue
        yield from _check_channels(key, given, channels, scope_of(cfg) == 'mmdet')
        return
    weights = f'the weights {init["checkpoint"]}'
    for name, known in (('mean', MEAN), ('std', STD)):
        value = given.get(name)
        fits = (
            isinstance(value, (list, tuple))
            and len(value) == 3
            and all(abs(a - b) < 1 for a, b in zip(value, known, strict=True))
        )
        if not fits:
            yield Finding(
                f'{key}.{name}', f'{key}.{name}={value}, and {weights} know {name}={list(known)}: write that'
            )
    order = 'to_rgb' if scope_of(cfg) == 'mmpretrain' else 'bgr_to_rgb'
    if not given.get(order):
        yield Finding(
            f'{key}.{order}',
            f'{key}.{order}={given.get(order, False)}: images are read blue first, and {weights} know red '
            f'first; write {key}.{order}=True',
        )


def _check_channels(key: str, given: dict[str, Any], channels: int, of_mmdet: bool) -> Iterator[Finding]:
    """Check the mean and standard deviation of images of other channels than three."""
    for name in ('mean', 'std'):
        value = given.get(name)
        if not isinstance(value, (list, tuple)) or len(value) != channels:
            yield Finding(
                f'{key}.{name}',
                f'{key}.{name}={value}, and model.backbone.in_channels={channels}: give {channels} numbers, '
                'those of your images',
            )
        elif of_mmdet and channels != 1:
            yield Finding(
                f'{key}.{name}',
                f'{key}.{name} has {channels} numbers, and data preprocessors of MMDetection take 1 or 3: '
                f"write {key}.{name}=None and dict(type='Normalize', mean=[...], std=[...], to_rgb=False) in "
                'the pipelines',
                is_fatal=True,
            )


def check_optimizer(cfg: Config) -> Iterator[Finding]:
    """Optimisers and learning rates that such networks are not trained with."""
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if our_backbone(cfg) is None or not optimizer:
        return
    key, name, rate = 'optim_wrapper.optimizer', optimizer.get('type'), optimizer.get('lr')
    if name in ('SGD', 'RMSprop'):
        yield Finding(
            f'{key}.type',
            f"{key}.type='{name}': MetaFormers are trained with AdamW, and learn little with {name}; write "
            "optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05)",
            is_warning=True,
        )
    elif isinstance(rate, float) and rate > LARGEST_RATE:
        yield Finding(
            f'{key}.lr', f'{key}.lr={rate:g}: none of ours is trained with more than 4e-3', is_warning=True
        )


def check_sizes(cfg: Config, name: str, dataset: Any, facts: list[str]) -> Iterator[Finding]:
    """Find images smaller than the stride of the backbone, of other channels, or far from what is normalised.

    Args:
        cfg (Config): The config.
        name (str): Name of its data loader.
        dataset (Dataset): The data set, built; a few images are looked at.
        facts (list[str]): What the images are is added.
    """
    backbone = our_backbone(cfg)
    if backbone is None:
        return
    inputs = (dataset[i]['inputs'] for i in range(0, len(dataset), max(1, len(dataset) // SAMPLE)))
    images = [one for one in inputs if isinstance(one, Tensor)]
    shapes = [tuple(one.shape) for one in images]
    key, channels = f'{name}.dataset.pipeline', backbone.get('in_channels', len(MEAN))
    small = next((shape for shape in shapes if min(shape[-2:]) < STRIDE), None)
    if small is not None:
        yield Finding(
            key,
            f'the pipeline of {name} makes images of {small[-2]}x{small[-1]} pixels, and the backbone needs '
            f'{STRIDE}x{STRIDE} at least: resize to more',
        )
    other = next((shape[-3] for shape in shapes if shape[-3] != channels), None)
    if other is not None:
        yield Finding(
            key,
            f'the pipeline of {name} makes images of {other} channels, and model.backbone.in_channels='
            f'{channels}: write model.backbone.in_channels={other}, or read images of {channels}',
        )
    elif images:
        fact, findings = describe_inputs(name, images, preprocessor_of(cfg)[1])
        facts.append(fact)
        yield from findings


def check_batches(cfg: Config, name: str, dataset: Any) -> Iterator[Finding]:
    """Batches of a segmentor's validation whose images differ in size, of which no tensor can be made.

    Args:
        cfg (Config): The config.
        name (str): Name of its data loader.
        dataset (Dataset): The data set, built.
    """
    _, preprocessor = preprocessor_of(cfg)
    is_padded = preprocessor.get('test_cfg') or not pads_labels(preprocessor)
    if name == 'train_dataloader' or scope_of(cfg) != 'mmseg' or is_padded:
        return
    batch = cfg[name].get('batch_size', 1)
    if not isinstance(batch, int):
        return
    count = min(len(dataset), BATCHED)
    paths = [dataset.get_data_info(i).get('img_path') for i in range(count if batch > 1 else 0)]
    sizes = [size_of(path) for path in paths]
    # Stored sizes are quickly read; what a pipeline makes of those that differ is looked at for a few.
    pairs = ((start, i) for start in range(0, len(sizes), batch) for i in range(start, start + batch))
    differing = ((a, b) for a, b in pairs if b < len(sizes) and sizes[a] != sizes[b])
    for pair in islice(differing, SAMPLE):
        shapes: list[Sequence[int]] = [getattr(dataset[i]['inputs'], 'shape', ())[-2:] for i in pair]
        if shapes[0] != shapes[1]:
            shown = ' and '.join(
                f"'{paths[i]}' of {shape[0]}x{shape[1]}" for i, shape in zip(pair, shapes, strict=True)
            )
            yield Finding(
                f'{name}.batch_size',
                f'{name}.batch_size={batch}, and its pipeline makes images of several sizes, such as {shown} '
                f'pixels, which no batch can have: write {name}.batch_size=1, and in test_dataloader too',
            )
            return


def check_layer_decay(cfg: Config) -> Iterator[Finding]:
    """Learning rates that fall from layer to layer, by a constructor that does not know our layers."""
    wrapper = cfg.get('optim_wrapper') or {}
    constructor = str(wrapper.get('constructor')).rpartition('.')[2]
    backbone = our_backbone(cfg)
    if backbone is None or constructor not in LAYER_DECAY:
        return
    given = wrapper.get('paramwise_cfg') or {}
    rate = given.get('decay_rate', given.get('layer_decay_rate', 0.9))
    yield Finding(
        'optim_wrapper.constructor',
        f"optim_wrapper.constructor='{constructor}' does not know the layers of {backbone['type']}: "
        "write constructor='mmmeta.LayerDecayOptimWrapperConstructor' and "
        f'paramwise_cfg=dict(_delete_=True, layer_decay_rate={rate}, flat_decay_mult=0.0)',
        is_fatal=True,
    )
