"""The configs that are written: short, and with everything that belongs to the data in sight."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmmeta.config.backbones import SCHEME
from mmmeta.config.literals import literal
from mmmeta.models import FAMILIES
from mmmeta.weights import ZOO

from .decisions import Decisions
from .facts import Facts, Pixels, Split
from .places import Places

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


# Filled by `str.format`.
TEMPLATES = Path(__file__).parent / 'templates'
# Its first iteration has a hundredth of the rate, so that one of a single iteration would never leave it.
WARMUP = """
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end={warmup}),"""
BATCH = '\n    batch_size=batch_size,'
# Of training; else all images count.
FILTER = '\n        filter_cfg=dict(filter_empty_gt=True, min_size=0),'
# Of images that are not of 8 bits of red, green and blue.
READING = """\
# The images store {dtype}; channels are in the order of the files.
load_image = dict(type='mmmeta.LoadUnchangedImage', channels={channels}{in_range})
# Of images for training, for each channel.
mean = {mean}
std = {std}
"""
STAGES = """\
# Each stage of the cascade has its own head.
heads = [dict(head, num_classes=num_classes) for head in _base_.model.roi_head.bbox_head]
"""


def write_config(
    task: str,
    path: Path,
    places: Places,
    backbone: str,
    dims: list[int],
    weights: str | None,
    facts: Facts,
    decisions: Decisions,
) -> str:
    """The text of a config.

    Args:
        task (str): ``'seg'``, ``'det'`` or ``'cls'``.
        path (Path): Where it will be.
        places (Places): How it names files.
        backbone (str): Family and member.
        dims (list[int]): Channels of the backbone's stages.
        weights (str | None): Location of its weights; None for random ones.
        facts (Facts): What the data are.
        decisions (Decisions): How the network is trained.
    """
    family, _, arch = backbone.rpartition('_')
    iterations, epochs = decisions.iterations, decisions.epochs
    warmup = min(iterations // 10, 500)
    warmup = warmup if warmup > 1 else 0
    values = dict(
        title=f'{TITLES[decisions.method]} with {FAMILIES[family].__name__}-{arch.upper()}',
        base=literal(BASES[decisions.method], 'base'),
        here=places.here,
        data_root=places.data_root,
        type=f'mmmeta.{FAMILIES[family].__name__}',
        arch=literal(
            ZOO[weights.removeprefix(SCHEME)].arch if weights and weights.startswith(SCHEME) else arch
        ),
        dims=list(dims),
        # Few images: less of what an ImageNet training drops.
        drop_path_rate=0.1 if weights else 0.0,
        init_cfg=f"dict(type='Pretrained', checkpoint={places.weights(weights)})" if weights else 'None',
        window=f'\n        window={decisions.window},' if decisions.window else '',
        lr=RATES[task][0 if weights else 1],
        side=decisions.side,
        batch_size=decisions.batch_size,
        epochs=epochs,
        max_iters=iterations,
        warmup=warmup,
        warmup_step=WARMUP.format(warmup=warmup) if warmup else '',
        interval=min(10, max(iterations // 10, 1)),
        # The last iteration or epoch is followed by a validation in any case.
        val_interval=decisions.val_iterations,
        val_epochs=decisions.val_epochs,
    )
    values.update(_reading(task, facts.pixels))
    write = {'seg': _segmentor, 'det': _detector, 'cls': _classifier}[task]
    return write(path, places, facts, decisions, values)


def _reading(task: str, pixels: Pixels | None) -> dict[str, Any]:
    """Return what templates have for images that are read by MMCV, or as they are stored."""
    if pixels is None:
        return dict(
            reading='',
            load_image="dict(type='LoadImageFromFile')",
            in_channels='',
            normalization='',
            distortion="    dict(type='PhotoMetricDistortion'),\n",
            tta='',
            preprocessor='',
            normalize='',
            backend='pillow',
            interpolation='bicubic',
        )
    # MMEngine's preprocessor, which MMDetection's is, takes one or three numbers.
    in_pipeline = task == 'det' and pixels.channels not in (1, 3)
    order = 'to_rgb' if task == 'cls' else 'bgr_to_rgb'
    return dict(
        reading=READING.format(
            dtype=pixels.dtype,
            channels=pixels.channels,
            in_range=f', in_range={pixels.in_range}' if pixels.in_range else '',
            mean=pixels.mean,
            std=pixels.std,
        ),
        load_image='load_image',
        in_channels='' if pixels.channels == 3 else f'\n        in_channels={pixels.channels},',
        normalization=f', mean=mean, std=std, {order}=False',
        distortion='',
        tta='tta_pipeline[0] = load_image\n',
        preprocessor='    data_preprocessor=dict(mean=None, std=None, bgr_to_rgb=False),\n'
        if in_pipeline
        else '    data_preprocessor=dict(mean=mean, std=std, bgr_to_rgb=False),\n',
        normalize="    dict(type='Normalize', mean=mean, std=std, to_rgb=False),\n" if in_pipeline else '',
        backend='cv2',
        interpolation='bilinear',
    )


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


def _fill(template: str, /, **values: Any) -> str:
    """Fill a template."""
    return (TEMPLATES / f'{template}.txt').read_text().format(**values)


def _loaders(
    template: str, places: Places, facts: Facts, values: Callable[[str, Split], dict[str, Any]]
) -> str:
    """The data loaders; the test is that of validation where there are no images for it.

    Args:
        template (str): Name of the template of a loader.
        places (Places): How the config names files.
        facts (Facts): What the data are.
        values (callable): What a part of the data has in it, by its name.
    """
    text = ''
    for name, split in facts.splits.items():
        train = name == 'train'
        text += _fill(
            template,
            name=name,
            images=places.in_root(split.images),
            batch=BATCH if train else '',
            pipeline='train' if train else 'test',
            **values(name, split),
        )
    return text if 'test' in facts.splits else f'{text}test_dataloader = val_dataloader\n'


def _listed(path: Path, places: Places, name: str, split: Split) -> str:
    """Where the listed images of a split are, as an argument."""
    return f'\n        ann_file={places.beside(f"{path.stem}_{name}.txt")},' if split.is_listed else ''


def _segmentor(path: Path, places: Places, facts: Facts, decisions: Decisions, values: dict[str, Any]) -> str:
    labels, dims = facts.labels, values['dims']
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
    upernet = decisions.method == 'upernet'
    heads = (
        f'    decode_head=dict(in_channels={dims}, num_classes=num_classes),\n'
        f'    auxiliary_head=dict(in_channels={dims[2]}, num_classes=num_classes),'
        if upernet
        else f'    neck=dict(in_channels={dims}),\n    decode_head=dict(num_classes=num_classes),'
    )
    return _fill(
        'segmentor',
        **values,
        count=len(labels.names),
        classes=_lines('classes = ', tuple(labels.names), 'class name'),
        palette=_lines('palette = ', labels.palette, 'palette') + '\n' if labels.palette else '',
        metainfo='dict(classes=classes, palette=palette)' if labels.palette else 'dict(classes=classes)',
        load=load,
        long_side=4 * decisions.side,
        backbone=_fill('backbone', **values, out_indices=''),
        heads=heads,
        aligned='' if upernet else "\n    dict(type='ResizeToMultiple', size_divisor=32),",
        image_suffix=literal(facts.suffixes[0], 'ending of images'),
        mask_suffix=literal(facts.suffixes[1], 'ending of masks'),
        loaders=_loaders(
            'segmentor_loader',
            places,
            facts,
            lambda name, split: dict(
                labels=places.in_root(split.labels), ann_file=_listed(path, places, name, split)
            ),
        ),
    )


def _detector(path: Path, places: Places, facts: Facts, decisions: Decisions, values: dict[str, Any]) -> str:
    method, dims = decisions.method, values['dims']
    retinanet, masks = method == 'retinanet', 'mask_head=dict(num_classes=num_classes)'
    heads = {
        'retinanet': '    bbox_head=dict(num_classes=num_classes),',
        'mask_rcnn': f'    roi_head=dict(bbox_head=dict(num_classes=num_classes), {masks}),',
        'cascade_mask_rcnn': f'    roi_head=dict(bbox_head=heads, {masks}),',
    }
    files = {
        name: places.beside(f'{path.stem}_{name}.json') if split.is_written else places.path(split.labels)
        for name, split in facts.splits.items()
    }
    # With the AP of each class.
    evaluators = f'val_evaluator = dict(ann_file={files["val"]}, classwise=True)\n'
    tested = f'dict(ann_file={files["test"]}, classwise=True)' if 'test' in facts.splits else 'val_evaluator'
    evaluators += f'test_evaluator = {tested}\n'
    return _fill(
        'detector',
        **values,
        count=len(facts.classes),
        classes=_lines('classes = ', tuple(facts.classes), 'class name'),
        long_side=round(decisions.side * 5 / 3),
        before=STAGES if method == 'cascade_mask_rcnn' else '',
        backbone=_fill(
            'backbone', **values, out_indices='\n        out_indices=(1, 2, 3),' if retinanet else ''
        ),
        channels=dims[1:] if retinanet else dims,
        heads=heads[method],
        with_mask='' if retinanet else ', with_mask=True',
        loaders=_loaders(
            'detector_loader',
            places,
            facts,
            lambda name, split: dict(ann_file=files[name], filter=FILTER if name == 'train' else ''),
        )
        + evaluators,
    )


def _classifier(
    path: Path, places: Places, facts: Facts, decisions: Decisions, values: dict[str, Any]
) -> str:
    count = len(facts.classes)
    return _fill(
        'classifier',
        **values,
        count=count,
        classes=_lines('classes = ', facts.classes, 'class name'),
        channels=values['dims'][-1],
        loaders=_loaders(
            'classifier_loader',
            places,
            facts,
            lambda name, split: dict(ann_file=_listed(path, places, name, split)),
        ),
        topk='(1, 5)' if count > 5 else '(1,)',
    )
