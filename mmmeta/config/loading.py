"""Load configs of any OpenMMLab package, with the options of a command line."""

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from mmmeta.utils.errors import UsageError
from mmmeta.utils.stack import INSTALL, require

from .inspection import ALL_LOADERS
from .reading import is_shipped, read_config, resolve_config_path
from .values import check_values, merge_options


@dataclass(frozen=True)
class Origin:
    """What a config was when it was read, before anything of it was edited.

    Attributes:
        config (Config): The config of the file, with the test data that replaced its own, and with what
            :func:`edit` sets without options.
        test_data (str | None): The config that the test data are from, if it is another one.
        is_shipped (bool): Whether the file is one of ours, see :func:`~mmmeta.config.reading.is_shipped`.
    """

    config: Config
    test_data: str | None
    is_shipped: bool

    def __deepcopy__(self, memo: dict[int, object]) -> 'Origin':
        return self  # nothing changes it


def origin_of(cfg: Config) -> Origin | None:
    """Return what a config was when :func:`read` read it, or a copy of it; None for any other config."""
    return vars(cfg).get('_origin')


def load_config(
    path: str,
    options: dict[str, Any] | None = None,
    work_dir: str | None = None,
    test_data: str | None = None,
) -> Config:
    """Read a config, merge command-line options, and check that the packages it needs can run.

    Args:
        path (str): As :func:`read` takes it.
        options (dict | None): Dotted keys and the values that replace the file's. Defaults to None.
        work_dir (str | None): Folder for logs and checkpoints. Defaults to None: that of the config, else
            ``work_dirs/<name of the config>``.
        test_data (str | None): As of :func:`read`. Defaults to None.

    Returns:
        Config: The config, with ``work_dir`` set.

    Raises:
        UsageError: As :func:`read` and :func:`edit`.
        StackError: A package that it needs is missing or cannot run.
    """
    return edit(read(path, test_data), name_of(path), options, work_dir)


def name_of(path: str) -> str:
    """Return the name of a config, without folder and suffix."""
    return Path(path.rpartition('::')[2]).stem


def read(path: str, test_data: str | None = None) -> Config:
    """Read a config file, once; :func:`origin_of` returns what was read.

    Args:
        path (str): The config file, or one that a package ships, such as
            ``mmmeta::fpn_poolformer_s12_ade20k.py`` or ``mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py``.
        test_data (str | None): Another config, whose test data and metrics replace those of the file; the
            pipeline stays the file's. Defaults to None.

    Raises:
        UsageError: There is no such file, it is not Python, or the other one has no test data.
        StackError: A package that it inherits from is not installed.
    """
    file = resolve_config_path(path)
    cfg = read_config(file)
    if test_data:
        _replace_test_data(cfg, test_data)
    original = copy.deepcopy(cfg)
    _complete(original, name_of(path))
    # Of the object, not of its content, which is dumped and copied into others.
    vars(cfg)['_origin'] = Origin(original, test_data, is_shipped(file))
    return cfg


def edit(
    cfg: Config, name: str, options: dict[str, Any] | None = None, work_dir: str | None = None
) -> Config:
    """Merge command-line options into a config, and check its values and the packages that it needs.

    Args:
        cfg (Config): The config. It is changed.
        name (str): Name of the folder below ``work_dirs/``, where neither the config nor ``work_dir`` says.
        options (dict | None): As of :func:`load_config`. Defaults to None.
        work_dir (str | None): As there. Defaults to None.

    Returns:
        Config: The same config.

    Raises:
        UsageError: An option does not fit the config, or a value cannot be right.
        StackError: A package that it needs is missing or cannot run.
    """
    if options:
        merge_options(cfg, options)
    check_values(cfg)
    if cfg.get('default_scope') in INSTALL:
        require(cfg.default_scope)
    _complete(cfg, name, work_dir)
    return cfg


def _complete(cfg: Config, name: str, work_dir: str | None = None) -> None:
    """Set the work directory, and what follows from the number of data workers."""
    cfg.work_dir = work_dir or cfg.get('work_dir') or os.path.join('work_dirs', name)
    for key in ALL_LOADERS:
        loaders = cfg.get(key)
        for loader in loaders if isinstance(loaders, (list, tuple)) else [loaders]:
            if isinstance(loader, dict) and loader.get('num_workers') == 0:
                loader['persistent_workers'] = False  # PyTorch refuses it without workers


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
