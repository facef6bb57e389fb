"""The recipes without a published result, on generated data and from random weights.

Segmentors and RTMDet learn 120 images and are tested on as many others, before and after; networks with
queries, which learn little from random weights in minutes, memorise four images::

    python tests/soak/recipes.py [NAME ...]
"""

import argparse
import contextlib
import copy
import io
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, set_random_seed

ROOT = Path(__file__).resolve().parents[2]

from benchmarks.coverage.data import SIZES, generate_all, put_on_data  # noqa: E402
from mmmeta.apis import evaluate, load_config, train  # noqa: E402
from mmmeta.config.adaptation import adapt_to_device  # noqa: E402
from mmmeta.swapping.recipe import put_training_size, training_size  # noqa: E402

LEARN = dict(
    upernet_caformer_s18_cityscapes='mIoU',
    fpn_poolformer_s12_cityscapes='mIoU',
    segformer_convformer_s18_ade20k='mIoU',
    rtmdet_convformer_s18_coco='coco/bbox_mAP_50',
)
MEMORISE = ('mask2former_caformer_s18_ade20k', 'mask2former_caformer_s18_coco', 'dino_caformer_s18_coco')
ITERATIONS, EPOCHS, STEPS = 200, 12, 100


@contextlib.contextmanager
def quiet():
    """Leave out what the packages print."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        yield


def prepare(name: str, root: Path, batch_size: int) -> Config:
    """A recipe on generated data, from random weights."""
    cfg = load_config(str(ROOT / f'configs/{name}.py'))
    before = training_size(cfg)
    put_training_size(cfg, SIZES[cfg.default_scope])
    if 'num_queries' in cfg.model:  # at most as many as there are tokens in images of this size
        cfg.model.num_queries = 100
    put_on_data(cfg, root, before)
    cfg.train_dataloader.batch_size = batch_size
    cfg.model.backbone.init_cfg = None
    cfg.model.backbone.drop_path_rate = 0.0
    return cfg


def learn(name: str, root: Path, folder: Path) -> tuple[float, float]:
    """The metric of the untrained network and of the trained one, in percent."""
    cfg = prepare(name, root, 4)
    cfg.optim_wrapper.optimizer.lr = 1e-3
    cfg.custom_hooks = []  # averages and switches of pipelines are for long trainings
    last, unit = (EPOCHS, 'epochs') if cfg.default_scope == 'mmdet' else (ITERATIONS, 'iters')
    kind = dict(epochs='EpochBasedTrainLoop', iters='IterBasedTrainLoop')[unit]
    cfg.train_cfg = ConfigDict(type=kind, val_interval=last, **{f'max_{unit}': last})
    cfg.param_scheduler = [
        ConfigDict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
        ConfigDict(type='PolyLR', power=1.0, eta_min=0.0, begin=0, end=last, by_epoch=unit == 'epochs'),
    ]
    cfg.default_hooks.checkpoint = ConfigDict(type='CheckpointHook', interval=last, by_epoch=unit == 'epochs')
    if cfg.default_scope == 'mmdet':
        for part in ('val', 'test'):
            dataset = cfg[f'{part}_dataloader'].dataset
            cfg[f'{part}_evaluator'].ann_file = str(Path(dataset.data_root) / dataset.ann_file)
    metrics = []
    for checkpoint in (None, folder / f'{unit[:-1]}_{last}.pth'):
        if checkpoint is not None:
            cfg.work_dir = str(folder)
            train(copy.deepcopy(cfg))
        cfg.work_dir = f'{folder}_test_{checkpoint is None}'
        metrics.append(evaluate(copy.deepcopy(cfg), checkpoint and str(checkpoint))[LEARN[name]])
    scale = 100 if 'coco' in LEARN[name] else 1
    return scale * metrics[0], scale * metrics[1]


def memorise(name: str, root: Path) -> tuple[float, float]:
    """The first loss on four images, and the mean of the last five."""
    cfg = prepare(name, root, 4)
    adapt_to_device(cfg)
    init_default_scope(cfg.default_scope)
    cfg.optim_wrapper.optimizer.lr = 2e-4
    cfg.optim_wrapper.paramwise_cfg.custom_keys.pop('backbone', None)  # it has nothing to keep
    hub = MessageHub.get_instance('recipes')
    hub.update_info('iter', 0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    losses = [float(model.train_step(copy.deepcopy(batch), optimizer)['loss']) for _ in range(STEPS)]
    return losses[0], sum(losses[-5:]) / 5


def main() -> None:
    """Run the recipes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('names', nargs='*', metavar='NAME', help='default: all')
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    print(f'{"recipe":36}{"what":>20}{"before":>10}{"after":>10}{"seconds":>10}')
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        generate_all(root, 120)
        for name in args.names or (*LEARN, *MEMORISE):
            start = time.monotonic()
            set_random_seed(0)
            with quiet():
                if name in LEARN:
                    before, after = learn(name, root, root / name)
                else:
                    before, after = memorise(name, root)
            seconds = time.monotonic() - start
            print(
                f'{name:36}{LEARN.get(name, "loss"):>20}{before:10.2f}{after:10.2f}{seconds:10.0f}',
                flush=True,
            )


if __name__ == '__main__':
    torch.set_num_threads(1)
    sys.exit(main())
