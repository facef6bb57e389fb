"""Adapt configs to the device, to mixed precision and to other ways to test."""

import os

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from mmmeta.utils.errors import UsageError

from .inspection import datasets, our_backbone, preprocessor_of
from .pipelines import reads_unchanged
from .wiring import without_groups


def adapt(
    cfg: Config,
    *,
    device: bool = False,
    amp: bool = False,
    weights: str | None = None,
    auto_scale_lr: bool = False,
    tta: bool = False,
    show_dir: str | None = None,
) -> Config:
    """Adapt a config to the way in which it is run.

    Args:
        cfg (Config): The config. It is changed.
        device (bool): Whether to let it run on a machine without a GPU, see :func:`adapt_to_device`. Every
            run does so itself. Defaults to False.
        amp (bool): Whether to train in mixed precision, see :func:`enable_amp`. Defaults to False.
        weights (str | None): Location of weights that the backbone begins with, see :func:`put_weights`.
            Defaults to None: as the config says.
        auto_scale_lr (bool): Whether to scale the learning rate linearly with the batch size. Defaults to
            False.
        tta (bool): Whether to test with the config's test-time augmentation. Defaults to False.
        show_dir (str | None): Folder for pictures of every image that is tested. Defaults to None: none.

    Returns:
        Config: The same config.

    Raises:
        UsageError: The config does not have what one of them needs.
    """
    if device:
        adapt_to_device(cfg)
    if amp:
        enable_amp(cfg)
    if weights:
        put_weights(cfg, weights)
    if auto_scale_lr:
        enable_auto_scale_lr(cfg)
    if show_dir:
        enable_drawing(cfg, show_dir)
    if tta:
        enable_tta(cfg)
    return cfg


def adapt_to_device(cfg: Config) -> None:
    """Let a config written for GPUs run on a machine that has none; nothing changes where there is one.

    SyncBN, which has no CPU form, becomes BN; mixed precision becomes bfloat16, or float32 for detectors,
    since MMCV's operators have no bfloat16 there; processes communicate through gloo; the optimiser uses
    PyTorch's fused kernel, which takes a twentieth of the time there.
    """
    if get_device() != 'cpu':
        return
    without_groups(cfg.model)
    cfg.pop('sync_bn', None)
    if cfg.get('optim_wrapper', {}).get('type') == 'AmpOptimWrapper':
        _replace_cuda_amp(cfg)
    optimizer = cfg.get('optim_wrapper', {}).get('optimizer', {})
    if optimizer.get('type') in ('Adam', 'AdamW', 'SGD') and torch.__version__ >= '2.4':
        optimizer.setdefault('fused', True)
    if cfg.get('launcher', 'none') != 'none':
        wrapper = cfg.get('model_wrapper_cfg') or dict(
            broadcast_buffers=False, find_unused_parameters=cfg.get('find_unused_parameters', False)
        )
        cfg.model_wrapper_cfg = dict(wrapper, type='MMDistributedDataParallel', device_ids=None)


def put_weights(cfg: Config, location: str) -> None:
    """Let a backbone of ours begin with other weights than the config says.

    Args:
        cfg (Config): The config. It is changed.
        location (str): Such as ``'mmmeta://caformer_s18'``, a path or a URL; ``'none'`` for random weights.

    Raises:
        UsageError: The backbone is not one of ours.
    """
    backbone = our_backbone(cfg)
    if backbone is None:
        raise UsageError(f'--weights {location}: the backbone of this config is none of ours; leave it out')
    pretrained = dict(type='Pretrained', checkpoint=location)
    backbone['init_cfg'] = None if location == 'none' else pretrained


def enable_amp(cfg: Config) -> None:
    """Train in mixed precision: float16 with loss scaling on GPUs, bfloat16 on CPU.

    Raises:
        UsageError: The config has an optimiser wrapper that mixed precision cannot replace, or operators
            that have no bfloat16 on a CPU.
    """
    wrapper = cfg.optim_wrapper
    name = wrapper.get('type', 'OptimWrapper')
    if name not in ('OptimWrapper', 'AmpOptimWrapper', 'mmmeta.Bf16OptimWrapper'):
        raise UsageError(
            f"--amp replaces an optim_wrapper of type 'OptimWrapper', and this config has '{name}': "
            'leave --amp out'
        )
    if get_device() == 'cpu' and cfg.get('default_scope') == 'mmdet':
        raise UsageError(
            "--amp on a CPU means bfloat16, which MMCV's operators of detectors lack: leave it out"
        )
    if get_device() == 'cpu':
        _replace_cuda_amp(cfg)
    elif name == 'OptimWrapper':
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')


def _replace_cuda_amp(cfg: Config) -> None:
    """Use the optimiser wrapper of the lowest precision that a CPU supports for this kind of model."""
    wrapper = cfg.optim_wrapper
    for key in ('loss_scale', 'dtype', 'use_fsdp'):
        wrapper.pop(key, None)
    detects = cfg.get('default_scope') == 'mmdet'
    wrapper.type = 'OptimWrapper' if detects else 'mmmeta.Bf16OptimWrapper'


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate linearly with the batch size.

    Raises:
        UsageError: The config has no ``auto_scale_lr.base_batch_size``.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UsageError(
            '--auto-scale-lr needs the batch size that the learning rate is for: set '
            'auto_scale_lr.base_batch_size in the config'
        )
    cfg.auto_scale_lr.enable = True


def enable_tta(cfg: Config) -> None:
    """Test with the config's test-time augmentation.

    Raises:
        UsageError: The config has none.
    """
    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        raise UsageError(f'--tta needs {" and ".join(missing)} in the config, as MMSegmentation has them')
    for dataset in datasets(cfg.test_dataloader):
        dataset.pipeline = cfg.tta_pipeline
    wrapper = ConfigDict(cfg.tta_model)
    # MMEngine gives the wrapper, and that the model inside, the preprocessor at the top of the config.
    _, preprocessor = preprocessor_of(cfg)
    if preprocessor:
        wrapper.data_preprocessor = preprocessor
    cfg.model = ConfigDict(wrapper, module=cfg.model)


def enable_drawing(cfg: Config, folder: str) -> None:
    """Draw every test image with its prediction, and its annotation where there is one.

    Args:
        cfg (Config): The config.
        folder (str): Where the pictures go.

    Raises:
        UsageError: The config has no visualisation hook, or images that the packages do not draw.
    """
    if any(reads_unchanged(dataset.pipeline) for dataset in datasets(cfg.get('test_dataloader') or {})):
        raise UsageError(
            '--show-dir draws images of 8 bits of red, green and blue, and this config reads others: draw '
            'predictions for these with tools/image_demo.py'
        )
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UsageError('--show-dir needs a visualization hook in default_hooks of the config')
    scope = cfg.get('default_scope')
    hook.interval = 1
    if scope == 'mmpretrain':
        hook.update(enable=True, out_dir=folder)
    else:
        hook.draw = True
    if scope == 'mmdet':
        # It joins another one to the work directory, and that to the work directory at the next image.
        hook.test_out_dir = os.path.abspath(folder)
    elif scope == 'mmseg':
        cfg.visualizer.save_dir = folder


def enable_confusion(cfg: Config, largest: int = 30, score_thr: float = 0.3) -> None:
    """Measure which classes are taken for which in the test as well.

    Args:
        cfg (Config): The config.
        largest (int): How many classes are drawn. Defaults to 30.
        score_thr (float): Objects of a detector with a lower score do not count. Defaults to 0.3.

    Raises:
        UsageError: It is of another package, or has several labels for an image.
    """
    scope = cfg.get('default_scope')
    if scope not in ('mmseg', 'mmdet', 'mmpretrain'):
        raise UsageError(
            f"'{cfg.filename}' has default_scope={scope!r}: confusion is that of classes of mmseg, mmdet and "
            'mmpretrain, so give a config of one of them'
        )
    if scope == 'mmdet':
        for dataset in datasets(cfg.test_dataloader):
            _annotate_original(dataset)
    metric = dict(type='mmmeta.ConfusionMatrix', out_dir=cfg.work_dir, largest=largest, score_thr=score_thr)
    given = cfg.get('test_evaluator') or []
    cfg.test_evaluator = [*(given if isinstance(given, list) else [given]), metric]


def _annotate_original(dataset: ConfigDict) -> None:
    """Load annotations last in a pipeline for a test, so that they are of the image as it is stored."""
    steps = list(dataset.pipeline)
    load = next((step for step in steps if step.type == 'LoadAnnotations'), None)
    steps = [step for step in steps if step is not load]
    dataset.pipeline = [*steps[:-1], load or dict(type='LoadAnnotations', with_bbox=True), *steps[-1:]]
