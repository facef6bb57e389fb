"""The configs that are written: short, and with everything that belongs to the data in sight."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmmeta.config.backbones import SCHEME
from mmmeta.config.literals import literal
from mmmeta.models import FAMILIES
from mmmeta.utils.resources import base_path, resource_root
from mmmeta.weights import ZOO

WIDTH = 110
# Learning rates of AdamW from published and from random weights; a batch of 16 and more wants higher ones.
RATES = dict(seg=(1e-4, 5e-4), det=(1e-4, 2e-4), cls=(1e-4, 5e-4))
TITLES = dict(
    upernet='UperNet',
    fpn='Semantic FPN',
    retinanet='RetinaNet',
    mask_rcnn='Mask R-CNN',
    cascade_mask_rcnn='Cascade Mask R-CNN',
    classifier='a classifier',
)
BASES = dict(
    upernet='upernet_ade20k',
    fpn='fpn_ade20k',
    retinanet='retinanet_coco',
    mask_rcnn='mask_rcnn_1x_coco',
    cascade_mask_rcnn='cascade_mask_rcnn_3x_coco',
    classifier='imagenet',
)


def write_config(
    task: str, path: Path, backbone: str, dims: list[int], weights: str | None, data: dict[str, Any]
) -> str:
    """The text of a config.

    Args:
        task (str): ``'seg'``, ``'det'`` or ``'cls'``.
        path (Path): Where it will be: its base is named from there.
        backbone (str): Family and member.
        dims (list[int]): Channels of the backbone's stages.
        weights (str | None): Location of its weights; None for random ones.
        data (dict): What is known of the data and the schedule; see ``new.py``.
    """
    family, _, arch = backbone.rpartition('_')
    values = dict(
        title=f'{TITLES[data["method"]]} with {FAMILIES[family].__name__}-{arch.upper()}',
        base=literal(
            base_path(resource_root() / 'configs/_base_' / f'{BASES[data["method"]]}.py', path.parent),
            'path of the base',
        ),
        type=f'mmmeta.{FAMILIES[family].__name__}',
        arch=literal(
            ZOO[weights.removeprefix(SCHEME)].arch if weights and weights.startswith(SCHEME) else arch
        ),
        dims=list(dims),
        # Few images: less of what an ImageNet training drops.
        drop_path_rate=0.1 if weights else 0.0,
        init_cfg=f"dict(type='Pretrained', checkpoint={literal(weights, 'location')})" if weights else 'None',
        window=f'\n        window={data["window"]},' if data['window'] else '',
        lr=RATES[task][0 if weights else 1],
        side=data['side'],
        batch_size=data['batch_size'],
        epochs=data['epochs'],
        max_iters=data['iterations'],
        warmup=min(max(data['iterations'] // 10, 1), 500),
        interval=min(10, max(data['iterations'] // 10, 1)),
        val_interval=max(data['iterations'] // 10, 1),
    )
    write = {'seg': _segmentor, 'det': _detector, 'cls': _classifier}[task]
    return write(path, data, values)


def _lines(head: str, values: Sequence[Any], what: str, tail: str = '') -> str:
    """``head(values)tail`` on as many lines as it needs, indented as its head."""
    flat = f'{head}{literal(values, what)}{tail}'
    if len(flat) <= WIDTH:
        return flat
    indent = ' ' * (len(head) - len(head.lstrip()))
    lines = ['']
    for value in values:
        text = literal(value, what)
        if len(lines[-1]) + len(text) > WIDTH - 8 - len(indent):
            lines.append('')
        lines[-1] += f' {text},'
    opening, closing = '[]' if isinstance(values, list) else '()'
    return '\n'.join(
        [f'{head}{opening}', *(f'{indent}   {line}' for line in lines), f'{indent}{closing}{tail}']
    )


def _path(path: Path) -> str:
    return literal(path.as_posix(), 'path')


def _part(path: Path, part: dict[str, Any], name: str) -> str:
    """Where the listed images of a part are, as an argument."""
    listed = path.with_name(f'{path.stem}_{name}.txt')
    return f'\n        ann_file={_path(listed)},' if part['listed'] else ''


BACKBONE = """\
    backbone=dict(
        _delete_=True,
        type='{type}',
        arch={arch},{window}{out_indices}
        drop_path_rate={drop_path_rate},
        init_cfg={init_cfg},
    ),"""

SEGMENTOR = """\
# {title} for {count} classes.
_base_ = {base}
{classes}
{palette}num_classes = len(classes)
crop_size = ({side}, {side})
# Images are scaled so that their short side is that of the crops.
scale = ({long_side}, {side})
batch_size = {batch_size}
max_iters = {max_iters}  # {epochs} epochs
{load}
model = dict(
    data_preprocessor=dict(size=crop_size),
{backbone}
{heads}
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    load_labels,
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),{aligned}
    load_labels,
    dict(type='PackSegInputs'),
]
of_data = dict(
    type='BaseSegDataset',
    metainfo={metainfo},
    img_suffix={image_suffix},
    seg_map_suffix={mask_suffix},
    reduce_zero_label=False,
)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    dataset=dict(
        _delete_=True,
        **of_data,
        data_prefix=dict(img_path={train_images}, seg_map_path={train_masks}),{train_list}
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=2,
    dataset=dict(
        _delete_=True,
        **of_data,
        data_prefix=dict(img_path={val_images}, seg_map_path={val_masks}),{val_list}
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
# Test-time augmentation (--tta) reads the same labels at scales of the same size.
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1]['transforms'][0] = [
    dict(type='Resize', scale=(int(scale[0] * ratio), int(scale[1] * ratio)), keep_ratio=True)
    for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
]
tta_pipeline[1]['transforms'][-2] = [load_labels]

optim_wrapper = dict(optimizer=dict(lr={lr}))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end={warmup}),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin={warmup}, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval={val_interval})
default_hooks = dict(
    logger=dict(interval={interval}),
    checkpoint=dict(interval={val_interval}, max_keep_ckpts=2, save_best='mIoU'),
)
"""


def _segmentor(path: Path, data: dict[str, Any], values: dict[str, Any]) -> str:
    labels, dims = data['labels'], values['dims']
    if labels.is_mapped:
        stored, left_out = (
            _lines(f'    {key}=', values, 'label', ',')
            for key, values in (('labels', labels.classes), ('ignore', labels.ignore))
        )
        load = (
            '# What the masks store for each class, in their order, and what is no class.\n'
            f"load_labels = dict(\n    type='mmmeta.LoadMappedLabels',\n{stored}\n{left_out}\n)"
        )
    else:
        load = "load_labels = dict(type='LoadAnnotations')"
    upernet = data['method'] == 'upernet'
    heads = (
        f'    decode_head=dict(in_channels={dims}, num_classes=num_classes),\n'
        f'    auxiliary_head=dict(in_channels={dims[2]}, num_classes=num_classes),'
        if upernet
        else f'    neck=dict(in_channels={dims}),\n    decode_head=dict(num_classes=num_classes),'
    )
    train, val = data['parts']['train'], data['parts']['val']
    return SEGMENTOR.format(
        **values,
        count=len(labels.names),
        classes=_lines('classes = ', tuple(labels.names), 'class name'),
        palette=_lines('palette = ', labels.palette, 'palette') + '\n' if labels.palette else '',
        metainfo='dict(classes=classes, palette=palette)' if labels.palette else 'dict(classes=classes)',
        load=load,
        long_side=4 * data['side'],
        backbone=BACKBONE.format(**values, out_indices=''),
        heads=heads,
        aligned='' if upernet else "\n    dict(type='ResizeToMultiple', size_divisor=32),",
        image_suffix=literal(data['suffixes'][0], 'ending of images'),
        mask_suffix=literal(data['suffixes'][1], 'ending of masks'),
        train_images=_path(train['images']),
        train_masks=_path(train['masks']),
        val_images=_path(val['images']),
        val_masks=_path(val['masks']),
        train_list=_part(path, train, 'train'),
        val_list=_part(path, val, 'val'),
    )


DETECTOR = """\
# {title} for {count} classes.
_base_ = {base}
{classes}
num_classes = len(classes)
scale = ({long_side}, {side})
batch_size = {batch_size}
max_epochs = {epochs}  # {max_iters} iterations
{before}
model = dict(
{backbone}
    neck=dict(in_channels={channels}),
{heads}
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True{with_mask}),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True{with_mask}),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=batch_size,
    dataset=dict(
        metainfo=dict(classes=classes),
        data_root='',
        ann_file={train_file},
        data_prefix=dict(img={train_images}),
        filter_cfg=dict(filter_empty_gt=True, min_size=0),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        metainfo=dict(classes=classes),
        data_root='',
        ann_file={val_file},
        data_prefix=dict(img={val_images}),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={val_file})
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr={lr}))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end={warmup}),
    dict(
        type='MultiStepLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        milestones=[max_epochs * 2 // 3, max_epochs * 11 // 12],
        gamma=0.1,
    ),
]
train_cfg = dict(max_epochs=max_epochs, val_interval={val_epochs})
default_hooks = dict(
    logger=dict(interval={interval}),
    checkpoint=dict(interval={val_epochs}, max_keep_ckpts=2, save_best='coco/bbox_mAP'),
)
"""
STAGES = """\
# Each stage of the cascade has its own head.
heads = [dict(head, num_classes=num_classes) for head in _base_.model.roi_head.bbox_head]
"""


def _detector(path: Path, data: dict[str, Any], values: dict[str, Any]) -> str:
    method, dims = data['method'], values['dims']
    retinanet, masks = method == 'retinanet', 'mask_head=dict(num_classes=num_classes)'
    heads = {
        'retinanet': '    bbox_head=dict(num_classes=num_classes),',
        'mask_rcnn': f'    roi_head=dict(bbox_head=dict(num_classes=num_classes), {masks}),',
        'cascade_mask_rcnn': f'    roi_head=dict(bbox_head=heads, {masks}),',
    }
    files = {
        name: part['file'] or path.with_name(f'{path.stem}_{name}.json')
        for name, part in data['parts'].items()
    }
    return DETECTOR.format(
        **values,
        count=len(data['names']),
        classes=_lines('classes = ', tuple(data['names']), 'class name'),
        long_side=round(data['side'] * 5 / 3),
        before=STAGES if method == 'cascade_mask_rcnn' else '',
        backbone=BACKBONE.format(
            **values, out_indices='\n        out_indices=(1, 2, 3),' if retinanet else ''
        ),
        channels=dims[1:] if retinanet else dims,
        heads=heads[method],
        with_mask='' if retinanet else ', with_mask=True',
        train_file=_path(files['train']),
        val_file=_path(files['val']),
        train_images=_path(data['parts']['train']['images']),
        val_images=_path(data['parts']['val']['images']),
        val_epochs=max(data['epochs'] // 10, 1),
    )


CLASSIFIER = """\
# {title} for {count} classes.
_base_ = {base}
{classes}
num_classes = len(classes)
side = {side}
batch_size = {batch_size}
max_epochs = {epochs}  # {max_iters} iterations

model = dict(
    backbone=dict(
        type='{type}',
        arch={arch},
        drop_path_rate={drop_path_rate},
        init_cfg={init_cfg},
    ),
    head=dict(num_classes=num_classes, in_channels={channels}),
    # Mixup and CutMix, which the base has, need longer trainings than few images allow.
    train_cfg=None,
)
data_preprocessor = dict(num_classes=num_classes)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=side, crop_ratio_range=(0.35, 1.0), backend='pillow'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=side, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=side),
    dict(type='PackInputs'),
]
of_data = dict(type='CustomDataset', metainfo=dict(classes=classes), data_root='')
train_dataloader = dict(
    batch_size=batch_size,
    dataset=dict(_delete_=True, **of_data, data_prefix={train_images},{train_list}
        pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=batch_size,
    dataset=dict(_delete_=True, **of_data, data_prefix={val_images},{val_list}
        pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk={topk})
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr={lr}))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end={warmup}),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=False, begin={warmup}, end={max_iters}),
]
train_cfg = dict(max_epochs=max_epochs, val_interval={val_epochs})
default_hooks = dict(logger=dict(interval={interval}), checkpoint=dict(interval={val_epochs}))
"""


def _classifier(path: Path, data: dict[str, Any], values: dict[str, Any]) -> str:
    train, val = data['parts']['train'], data['parts']['val']
    count = len(data['names'])
    return CLASSIFIER.format(
        **values,
        count=count,
        classes=_lines('classes = ', data['names'], 'class name'),
        channels=values['dims'][-1],
        train_images=_path(train['images']),
        val_images=_path(val['images']),
        train_list=_part(path, train, 'train'),
        val_list=_part(path, val, 'val'),
        val_epochs=max(data['epochs'] // 10, 1),
        topk='(1, 5)' if count > 5 else '(1,)',
    )
