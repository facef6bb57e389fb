#!/usr/bin/env python
"""Compare exported networks with PyTorch's own prediction for the same image files.

Five networks are trained for some minutes on generated data, exported, and compared at three aspect ratios,
small and large::

    python benchmarks/exported_fidelity.py [NETWORK ...]
"""

import argparse
import time
from pathlib import Path

import numpy as np
from mmengine.config import Config, ConfigDict

from mmmeta.apis import load_config, train
from mmmeta.apis.inference import build_model
from mmmeta.cli.arguments import command_line
from mmmeta.datasets import generate_ade20k, generate_coco
from mmmeta.datasets.coco import draw_coco_scene
from mmmeta.deploy import Network, export
from mmmeta.deploy.comparing import compare_images
from mmmeta.deploy.exporting import DYNAMIC
from mmmeta.utils.resources import resource_root

# Configs, and iterations that they are trained for.
NETWORKS = {
    'retinanet': ('retinanet_poolformer_s12_coco', 200),
    'mask_rcnn': ('mask_rcnn_caformer_s18_coco', 200),
    'cascade': ('cascade_mask_rcnn_convformer_s18_coco', 200),
    'upernet': ('upernet_caformer_s18_ade20k', 200),
    'fpn': ('fpn_poolformer_s12_ade20k', 200),
}
# Long and short side that images are resized to.
SCALES = {
    'mmdet': {'small': (213, 128), 'large': (1333, 800)},
    'mmseg': {'small': (256, 64), 'large': (2048, 512)},
}
RATIOS = ((3, 4), (9, 16), (3, 2))  # height and width
LEARNING_RATE = {'mmdet': 2e-4, 'mmseg': 5e-4}


def training_config(name: str, iterations: int, data: Path, work_dir: Path) -> Config:
    """Return the config of a short training on generated data, from random weights."""
    cfg = load_config(str(resource_root() / f'configs/{name}.py'), work_dir=str(work_dir))
    scope = cfg.default_scope
    scale = SCALES[scope]['small']
    resize = dict(type='Resize', scale=scale, keep_ratio=True)
    if scope == 'mmdet':
        masks = 'mask' in name
        steps = [dict(type='LoadAnnotations', with_bbox=True, with_mask=masks), resize]
        packing = dict(type='PackDetInputs')
    else:
        steps = [
            dict(type='LoadAnnotations', reduce_zero_label=True),
            dict(resize, type='RandomResize', ratio_range=(0.8, 1.25)),
            dict(type='RandomCrop', crop_size=(64, 64), cat_max_ratio=0.75),
        ]
        cfg.model.data_preprocessor.size = (64, 64)
        packing = dict(type='PackSegInputs')
    cfg.train_dataloader.update(batch_size=4, num_workers=1)
    cfg.train_dataloader.dataset.update(
        data_root=str(data),
        pipeline=[dict(type='LoadImageFromFile'), *steps, dict(type='RandomFlip', prob=0.5), packing],
    )
    cfg.model.backbone.update(init_cfg=None, drop_path_rate=0.0)
    if 'roi_head' in cfg.model:  # small images have few places for proposals
        cfg.model.train_cfg.rpn_proposal.max_per_img = 200
        stages = cfg.model.train_cfg.rcnn
        for stage in stages if isinstance(stages, list) else [stages]:
            stage.sampler.num = 64
    cfg.optim_wrapper.optimizer.lr = LEARNING_RATE[scope]
    cfg.param_scheduler = [
        ConfigDict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=20),
        ConfigDict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=20, end=iterations),
    ]
    cfg.train_cfg = ConfigDict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations + 1)
    cfg.log_processor = dict(by_epoch=False)
    cfg.default_hooks.checkpoint = ConfigDict(type='CheckpointHook', by_epoch=False, interval=iterations)
    cfg.default_hooks.logger.interval = 10
    cfg.randomness = dict(seed=0)
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg.pop(key)
    return cfg


def draw_images(folder: Path, side: int) -> list[Path]:
    """Draw an image of each aspect ratio."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths = np.random.default_rng(7), []
    for height, width in RATIOS:
        scale, objects = side / min(height, width), []
        while len(objects) < 3:  # some scenes are empty
            image, objects = draw_coco_scene(rng, round(height * scale), round(width * scale))
        paths.append(folder / f'{width}x{height}.png')
        image.save(paths[-1])
    return paths


def compare_exported(name: str, checkpoint: Path, folder: Path, size: str, dynamic: str | None) -> None:
    """Export a network and print how its predictions differ from PyTorch's, image by image."""
    config = str(resource_root() / f'configs/{name}.py')
    scope = load_config(config).default_scope
    scale = SCALES[scope][size]
    model = build_model(config, str(checkpoint), options={'test_dataloader.dataset.pipeline.1.scale': scale})
    images = draw_images(folder / size, max(min(scale) * 3 // 4, 64))
    path = folder / f'{size}_{dynamic or "default"}.onnx'
    start = time.monotonic()
    exported = export(model, path, images=images, dynamic=dynamic, checkpoint=str(checkpoint))
    print(f'{name}, {size}, dynamic={dynamic or "default"}: exported in {time.monotonic() - start:.0f} s')
    rows = {'same input': exported.differences, 'onnxruntime': exported.same_images}
    rows['openvino'] = compare_images(model, Network(path, 'openvino'), images)
    for title, differences in rows.items():
        for difference in differences:
            print(f'  {title}, {difference}{"" if difference.passed else " (differs)"}', flush=True)


def main() -> None:
    """Train, export and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--sizes', nargs='+', choices=('small', 'large'), default=('small', 'large'))
    parser.add_argument('--dynamic', choices=DYNAMIC, help='default: that of export')
    parser.add_argument('networks', nargs='*', metavar='NETWORK', help=f'default: {", ".join(NETWORKS)}')
    parser.add_argument(
        '--work-dir', default='work_dirs/exported_fidelity', type=Path, help='default: %(default)s'
    )
    args = parser.parse_args()
    for short in args.networks or NETWORKS:
        name, iterations = NETWORKS[short]
        work_dir = args.work_dir.absolute() / short
        checkpoint = work_dir / f'iter_{iterations}.pth'
        if not checkpoint.is_file():
            generate = generate_coco if name.endswith('coco') else generate_ade20k
            data = generate(args.work_dir.absolute() / 'data', 120, 20, 160)
            train(training_config(name, iterations, data, work_dir))
        for size in args.sizes:
            compare_exported(name, checkpoint, work_dir, size, args.dynamic)


if __name__ == '__main__':
    command_line(main)
