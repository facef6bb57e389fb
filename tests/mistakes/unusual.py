"""Right configs that are not like ours: images of other depth and channels, classes as types, joined data."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from mmengine.config import Config
from PIL import Image

from mmmeta.apis import load_config, new

SHAPE = (64, 96)
HIGHEST = dict(uint8=250, uint16=4000, float32=1.0)
# Task, channels, type, and options of ``new``.
CREATED = [
    *(('seg', channels, dtype, dict(method='fpn')) for channels in (1, 4, 5) for dtype in HIGHEST),
    *(('det', channels, dtype, dict(method='retinanet')) for channels in (1, 3, 4) for dtype in HIGHEST),
    *(('cls', channels, dtype, {}) for channels in (1, 4, 7) for dtype in HIGHEST),
    ('seg', 1, 'uint8', dict(method='upernet', channels=1)),
    ('seg', 1, 'uint16', dict(method='upernet', in_range=(100, 3900))),
    ('cls', 3, 'uint16', dict(in_range=(0, 4095))),
]
CLASSES_AS_TYPES = """
from mmpretrain.datasets import CustomDataset, PackInputs, ResizeEdge
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead
from torch.optim import AdamW

from mmmeta.datasets.transforms import LoadUnchangedImage
from mmmeta.models import PoolFormer

default_scope = 'mmpretrain'
model = dict(
    type=ImageClassifier,
    data_preprocessor=dict(mean={mean}, std={std}, to_rgb=False),
    backbone=dict(type=PoolFormer, arch='s12', in_channels={channels}, out_indices=[3]),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=2, in_channels=512, topk=(1,)),
)
load = dict(type=LoadUnchangedImage, channels={channels})
pipeline = [load, dict(type=ResizeEdge, scale=64), dict(type=PackInputs)]
dataset = dict(type=CustomDataset, data_prefix='{root}', pipeline=pipeline)
train_dataloader = dict(batch_size=1, num_workers=0, dataset=dataset)
val_dataloader = dict(batch_size=1, num_workers=0, dataset=dataset)
val_evaluator = [dict(type='Accuracy', topk=(1,))]
val_cfg = dict()
optim_wrapper = dict(optimizer=dict(type=AdamW, lr=1e-4))
train_cfg = dict(by_epoch=True, max_epochs=1)
"""


def draw(seed: int, channels: int, dtype: str) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """An image, and the box of its object."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(0, 0.4, (*SHAPE, channels))
    x, y = int(rng.integers(0, 56)), int(rng.integers(0, 24))
    pixels[y : y + 40, x : x + 40] += 0.6 * np.linspace(0.2, 1, channels)
    return (pixels * HIGHEST[dtype]).astype(dtype), (x, y, 40, 40)


def write(path: Path, pixels: np.ndarray) -> None:
    """A TIFF file of channels that are not colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels.squeeze(), photometric='minisblack', planarconfig='contig')


def store(root: Path, task: str, channels: int = 4, dtype: str = 'uint16', count: int = 6) -> None:
    """Write images with an object each, and their labels for a task."""
    content = dict(images=[], annotations=[], categories=[dict(id=1, name='thing')])
    for i in range(count):
        pixels, (x, y, w, h) = draw(i, channels, dtype)
        write(root / ('ab'[i % 2] if task == 'cls' else 'images') / f'{i}.tif', pixels)
        mask = np.zeros(SHAPE, np.uint8)
        mask[y : y + h, x : x + w] = 1
        if task == 'seg':
            (root / 'masks').mkdir(exist_ok=True)
            Image.fromarray(mask).save(root / f'masks/{i}.png')
        content['images'].append(dict(id=i, file_name=f'{i}.tif', width=SHAPE[1], height=SHAPE[0]))
        box = dict(bbox=[x, y, w, h], area=w * h, iscrowd=0)
        content['annotations'].append(dict(box, id=i + 1, image_id=i, category_id=1))
    if task == 'det':
        (root / 'ann.json').write_text(json.dumps(content))


def create(root: Path, task: str, **options):
    """Write a config for what :func:`store` writes."""
    labels = dict(seg=root / 'masks', det=root / 'ann.json').get(task)
    images = root if task == 'cls' else root / 'images'
    given = dict(backbone='poolformer_s12', weights='none', val_fraction=0.4, size=64)
    if task == 'det':
        given.update(method='retinanet', size=128)
    return new(task, images, labels, root / 'my.py', **{**given, **options})


def write_unusual(folder: Path) -> Iterator[tuple[str, Config]]:
    """Write right configs and their data; a name and the config of each."""
    for i, (task, channels, dtype, options) in enumerate(CREATED):
        root = folder / str(i)
        store(root, task, channels, dtype)
        create(root, task, **options)
        yield f'{task}: {channels} channels of {dtype}, {options}', load_config(str(root / 'my.py'))
    # MMCV's own ways to read grey images.
    for task in ('seg', 'det', 'cls'):
        for dtype, kind in (('uint8', 'grayscale'), ('uint16', 'unchanged')):
            root = folder / f'{task}_{kind}'
            store(root, task, 1, dtype)
            create(root, task, channels=1)
            cfg = load_config(str(root / 'my.py'))
            for name in ('train', 'val'):
                cfg[f'{name}_dataloader'].dataset.pipeline[0] = dict(
                    type='LoadImageFromFile', color_type=kind
                )
            yield f'{task}: {dtype} by LoadImageFromFile, {kind}', cfg
            # The same data twice, joined and repeated, in a list.
            train = cfg.train_dataloader
            joined = dict(type='ConcatDataset', datasets=[train.dataset, train.dataset])
            train.dataset = dict(type='RepeatDataset', times=2, dataset=joined)
            yield f'{task}: {dtype} by LoadImageFromFile, {kind}, joined', cfg
    for channels, dtype in ((1, 'uint16'), (4, 'uint8'), (3, 'float32')):
        root = folder / f'pure_{channels}'
        store(root / 'data', 'cls', channels, dtype)
        values = np.concatenate([draw(i, channels, dtype)[0].reshape(-1, channels) for i in range(6)])
        mean, std = values.mean(0).tolist(), values.std(0).tolist()
        text = CLASSES_AS_TYPES.format(mean=mean, std=std, channels=channels, root=root / 'data')
        (root / 'pure.py').write_text(text)
        yield f'classes as types: {channels} channels of {dtype}', load_config(str(root / 'pure.py'))
