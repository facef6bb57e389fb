"""Load configs of any OpenMMLab package and adapt them to the command line."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import DATASETS

from mmmeta.analysis.wiring import without_groups
from mmmeta.utils.errors import UsageError
from mmmeta.utils.stack import INSTALL, require

from .reading import read_config, resolve_config_path
from .values import check_values, merge_options

TRAIN_LOADERS = ('train_dataloader', 'val_dataloader')
TEST_LOADERS = ('test_dataloader',)
ALL_LOADERS = (*TRAIN_LOADERS, *TEST_LOADERS)


def load_config(
    path: str,
    options: dict[str, Any] | None = None,
    work_dir: str | None = None,
    test_data: str | None = None,
    backbone: str | None = None,
) -> Config:
    """Read a config, merge command-line options, and check that the packages it needs can run.

    Args:
        path (str): The config file, or one that a package ships, such as
            ``mmmeta::fpn_poolformer_s12_ade20k.py`` or ``mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py``.
        options (dict | None): Dotted keys and the values that replace the file's. Defaults to None.
        work_dir (str | None): Folder for logs and checkpoints. Defaults to None: that of the config, else
            ``work_dirs/<name of the config>``.
        test_data (str | None): Another config, whose test data and metrics replace those of the file; the
            pipeline stays the file's. Defaults to None.
        backbone (str | None): A MetaFormer to put into the config, see :func:`~mmmeta.apis.swap`. Defaults to
            None: that of the file.

    Returns:
        Config: The config, with ``work_dir`` set.

    Raises:
        UsageError: There is no such file, it is not Python, or an option or the backbone does not fit it.
        StackError: A package that it needs is missing or cannot run.
    """
    path = resolve_config_path(path)
    cfg = read_config(path)
    if test_data:
        _replace_test_data(cfg, test_data)
    if backbone is not None:
        from .backbones import name_of_spec
        from .swapping import swap  # builds models, which takes seconds to import

        name = name_of_spec(backbone)
        cfg = swap(cfg, backbone)
        if cfg.get('work_dir'):
            cfg.work_dir = f'{cfg.work_dir}_{name}'
        path = f'{Path(path).stem}_{name}.py'
    if options:
        merge_options(cfg, options)
    check_values(cfg)
    if cfg.get('default_scope') in INSTALL:
        require(cfg.default_scope)
    cfg.work_dir = work_dir or cfg.get('work_dir') or os.path.join('work_dirs', Path(path).stem)
    for name in ALL_LOADERS:
        loaders = cfg.get(name) or []
        for loader in [loaders] if isinstance(loaders, dict) else loaders:
            if isinstance(loader, dict) and loader.get('num_workers') == 0:
                loader['persistent_workers'] = False  # PyTorch refuses it without workers
    return cfg


def _replace_test_data(cfg: Config, path: str) -> None:
    """Test on the data of another config, with its metrics."""
    other = read_config(path)
    check_values(other)
    missing = [key for key in ('test_dataloader', 'test_evaluator') if key not in other]
    if missing:
        raise UsageError(f"'{path}' has no {' and no '.join(missing)}: give a config with test data")
    pipeline = (cfg.get('test_dataloader') or {}).get('dataset', {}).get('pipeline')
    if pipeline is None:
        raise UsageError('this config has no test_dataloader with a pipeline: test data cannot be replaced')
    cfg.test_dataloader.dataset = ConfigDict({**other.test_dataloader.dataset, 'pipeline': pipeline})
    cfg.test_evaluator = other.test_evaluator
    cfg.test_data = path


def iter_dicts(value: Any) -> Iterator[dict]:
    """Every dict inside a config value, the value itself included."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from iter_dicts(part)


def datasets(loader: ConfigDict | list[ConfigDict]) -> Iterator[ConfigDict]:
    """The configs of the data sets of data loaders, without wrappers such as ``RepeatDataset``."""
    for value in iter_dicts(loader.get('dataset', {}) if isinstance(loader, dict) else loader):
        if 'pipeline' in value and not isinstance(value.get('dataset'), dict):
            yield value


def dataset_class(dataset: dict, scope: str) -> type | None:
    """The class of a data set's config, or None if it is not registered.

    Args:
        dataset (dict): The config.
        scope (str): The scope that its type is looked up in.
    """
    name = dataset.get('type')
    if not isinstance(name, str):
        return name
    with DATASETS.switch_scope_and_registry(scope) as registry:
        return registry.get(name)


def pretrained_checkpoints(cfg: Config) -> Iterator[str]:
    """The locations of the pretrained weights of the model's parts."""
    for value in iter_dicts(cfg.model):
        if value.get('type') == 'Pretrained' and isinstance(value.get('checkpoint'), str):
            yield value['checkpoint']


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
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def enable_drawing(cfg: Config, folder: str) -> None:
    """Draw every test image with its prediction, and its annotation where there is one.

    Args:
        cfg (Config): The config.
        folder (str): Where the pictures go.

    Raises:
        UsageError: The config has no visualisation hook.
    """
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
        hook.test_out_dir = folder
    elif scope == 'mmseg':
        cfg.visualizer.save_dir = folder
