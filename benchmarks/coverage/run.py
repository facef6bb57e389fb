"""Swap, build, train and test one config."""

import contextlib
import copy
import gc
import io
import json
import math
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, set_random_seed
from torch import nn

from benchmarks.coverage.data import needs_video, put_on_data, training_size_of
from mmmeta.config.adaptation import adapt_to_device
from mmmeta.config.inspection import bare_model, bare_type, iter_dicts, scope_of
from mmmeta.config.loading import load_config
from mmmeta.config.wiring import parameter_names
from mmmeta.models import MetaFormer
from mmmeta.swapping.recipe import training_size
from mmmeta.swapping.swap import SCOPES, check_swappable, swap_with_reasons
from mmmeta.swapping.tied import check_tied, missing_package
from mmmeta.swapping.writing import format_swap, plain
from mmmeta.utils.errors import UsageError

# Steps on one batch in which the loss has to fall.
STEPS = 20
# Parts whose operators MMCV has for GPUs alone.
GPU_OPERATORS = ('FPN_CARAFE', 'GARPNHead', 'GARetinaHead', 'DeformRoIPoolPack', 'ModulatedDeformRoIPoolPack')
# Kinds of outcomes without a training.
NO_MODEL, BROKEN, TIED, PACKAGE, OPERATOR, VIDEO = (
    'no model',
    'cannot be read',
    'tied',
    'package',
    'operator',
    'video',
)


@dataclass
class Outcome:
    """What became of a config.

    Attributes:
        config (str): Such as ``'mmdet::atss/atss_r50_fpn_1x_coco.py'``.
        method (str): Its package and folder.
        group (str): Name of the config that stands for it.
        left_out (str): Why nothing was tried: one of the kinds above; empty if it was.
        swapped (bool): Whether the file was written and gives the same config.
        built (bool): Whether the network was built and the weights loaded.
        trained (bool): Whether losses and gradients of the backbone are finite and none is missing.
        predicted (bool): Whether it predicts.
        fell (str): First and last loss on one batch, where that was asked for.
        reason (str): A sentence, or the traceback.
    """

    config: str
    method: str
    group: str = ''
    left_out: str = ''
    swapped: bool = False
    built: bool = False
    trained: bool = False
    predicted: bool = False
    fell: str = ''
    reason: str = ''


def list_configs() -> list[str]:
    """All configs of the installed packages."""
    found = []
    for package in SCOPES:
        root = Path(find_spec(package).origin).parent / '.mim/configs'
        paths = sorted(root.glob('[!_]*/**/*.py'))
        found += [f'{package}::{path.relative_to(root).as_posix()}' for path in paths]
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what the packages print."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        with contextlib.redirect_stderr(io.StringIO()):
            yield


def examine(config: str, backbone: str) -> tuple[Outcome, str]:
    """Swap a config, unless it is left out; its outcome so far, and what its group has in common."""
    outcome = _outcome(config)
    _go_to_root(config)
    try:
        with quiet():
            cfg = load_config(config)
    except Exception as error:
        outcome.left_out, outcome.reason = BROKEN, f'{type(error).__name__}: {error}'
        return outcome, ''
    outcome.left_out, outcome.reason = _left_out(cfg, config.partition('::')[0])
    if outcome.left_out:
        return outcome, ''
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            swapped = write_swapped(cfg, config, backbone, Path(folder))
    except UsageError as error:
        outcome.left_out, outcome.reason = TIED, str(error)
        return outcome, ''
    except Exception:
        outcome.reason = traceback.format_exc(limit=-12)
        try:
            parameter_names(cfg.model, scope_of(cfg))
        except Exception as error:  # as it is, too
            outcome.left_out, outcome.reason = BROKEN, f'as it is: {type(error).__name__}: {error}'
            return outcome, ''
        return outcome, config
    outcome.swapped = True
    return outcome, _signature(swapped)


def _go_to_root(config: str) -> None:
    """Some configs name others relative to where the package has its configs."""
    os.chdir(Path(find_spec(config.partition('::')[0]).origin).parent / '.mim')


def _outcome(config: str) -> Outcome:
    package, _, name = config.partition('::')
    return Outcome(config, f'{package}/{name.partition("/")[0]}')


def _left_out(cfg: Config, package: str) -> tuple[str, str]:
    """Why a config is not tried; two empty strings if it is."""
    if not isinstance(cfg.get('model'), dict) or 'type' not in cfg.model:
        return NO_MODEL, 'a part of a config'
    if package == 'mmpretrain' and cfg.model.type != 'ImageClassifier':
        return NO_MODEL, f'{cfg.model.type} is no supervised classifier'
    if not cfg.get('train_dataloader'):
        return NO_MODEL, 'it has no training'
    missing = missing_package(cfg)
    if missing:
        return PACKAGE, f'{missing[1]} needs {missing[0]}'
    try:
        check_tied(cfg)
    except UsageError as error:
        return TIED, str(error)
    if needs_video(cfg):
        return VIDEO, 'data of videos'
    operators = {bare_type(part) for part in iter_dicts(cfg.model)} & set(GPU_OPERATORS)
    if operators:
        return OPERATOR, f'{operators.pop()} has an operator that MMCV lacks on a CPU'
    try:
        check_swappable(cfg)
    except UsageError as error:
        return TIED, str(error)
    return '', ''


def _signature(cfg: Config) -> str:
    """The model without numbers of classes; transforms; kinds of the data and of the optimiser."""
    left_out = ('num_classes', 'init_cfg', 'norm_cfg', 'data_preprocessor', 'test_cfg', 'class_weight')
    left_out += ('dropout_ratio',)

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(part) for key, part in value.items() if key not in left_out}
        return [strip(part) for part in value] if isinstance(value, (list, tuple)) else value

    types = sorted({bare_type(part) for part in iter_dicts(cfg.train_dataloader.get('dataset') or {})})
    data = [name for name in types if not name.endswith('Dataset') or 'Panoptic' in name]
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    return json.dumps([scope_of(cfg), strip(cfg.model.to_dict()), data, optimizer.get('type')], default=str)


def write_swapped(cfg: Config, config: str, backbone: str, folder: Path) -> Config:
    """Write the file of a swapped config, and read it again.

    Raises:
        AssertionError: It is another config.
    """
    swapped = swap_with_reasons(cfg, backbone, training_size_of(cfg))
    path = folder / 'swapped.py'
    path.write_text(format_swap(config, cfg, swapped, path))
    read = load_config(str(path))
    after, before = plain(read), plain(swapped.cfg)
    differing = [key for key in {*after, *before} if after.get(key) != before.get(key)]
    if differing:
        raise AssertionError(f'the file gives another {differing}')
    return read


def run(config: str, group: str, root: Path, weights: str, backbone: str, steps: int = 1) -> Outcome:
    """Try a config.

    Args:
        config (str): Its name.
        group (str): Name of the config that stands for its group.
        root (Path): Generated data.
        weights (str): File of the weights.
        backbone (str): Backbone to put into it.
        steps (int): Steps on one batch. Defaults to 1.

    Returns:
        Outcome: What became of it.
    """
    outcome = _outcome(config)
    outcome.group = group
    if 'panopticapi' not in sys.modules:
        _read_panoptic_without_its_package()
    _go_to_root(config)
    set_random_seed(0)
    hub = MessageHub.get_instance('coverage')
    for key, value in dict(iter=0, epoch=0, max_iters=STEPS, max_epochs=1).items():
        hub.update_info(key, value)
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            original = load_config(config)
            cfg = write_swapped(original, config, backbone, Path(folder))
            outcome.swapped = True
            put_on_data(cfg, root, training_size(original))
            _train_and_predict(cfg, weights, steps, outcome)
    except Exception:
        outcome.reason = traceback.format_exc(limit=-12)
    gc.collect()  # parameters and what watches them hold each other
    return outcome


def _read_panoptic_without_its_package() -> None:
    """Give MMDetection what it takes of a package for panoptic maps that is in no registry: a formula."""
    if find_spec('panopticapi') is None:
        utils = ModuleType('panopticapi.utils')
        utils.rgb2id = lambda colour: colour.astype(np.int64) @ [1, 256, 256**2]
        sys.modules.update({'panopticapi': ModuleType('panopticapi'), 'panopticapi.utils': utils})


def _train_and_predict(cfg: Config, weights: str, steps: int, outcome: Outcome) -> None:
    adapt_to_device(cfg)
    if 'teacher_ckpt' in cfg.model:
        cfg.model.teacher_ckpt = None
    bare_model(cfg).backbone.init_cfg.checkpoint = weights
    init_default_scope(scope_of(cfg))
    if cfg.get('data_preprocessor') and 'data_preprocessor' not in cfg.model:
        cfg.model.data_preprocessor = cfg.data_preprocessor
    model = MODELS.build(cfg.model)
    model.init_weights()
    outcome.built = True
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    batch = next(iter(loader))
    model.train()
    gradients = _watch_gradients(model)
    losses = []
    for _ in range(steps):
        gradients.clear()
        losses.append(float(model.train_step(copy.deepcopy(batch), optimizer)['loss']))
    problem = _wrong(model, losses, gradients)
    if problem:
        outcome.reason = problem
        return
    outcome.trained = True
    if steps > 1:
        outcome.fell = f'{losses[0]:.4g} {sum(losses[-3:]) / 3:.4g}'
    test = next(key for key in ('val_dataloader', 'test_dataloader', 'train_dataloader') if cfg.get(key))
    loader = Runner.build_dataloader(cfg[test], seed=0)
    model.eval()
    with torch.no_grad():
        outcome.predicted = len(model.val_step(next(iter(loader)))) > 0


def _watch_gradients(model: nn.Module) -> dict[nn.Parameter, bool]:
    """Note which parameters get a gradient, and whether it is finite."""
    gradients = {}

    def note(parameter: nn.Parameter) -> None:
        gradients[parameter] = bool(parameter.grad.isfinite().all())

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(note)
    return gradients


def _wrong(model: nn.Module, losses: list[float], gradients: dict[nn.Parameter, bool]) -> str:
    """What is wrong with losses and gradients."""
    if not all(map(math.isfinite, losses)):
        return f'losses {losses[:3]} are not finite'
    ours = [module for module in model.modules() if isinstance(module, MetaFormer)]
    missing = [
        name
        for module in ours
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and not gradients.get(parameter)
    ]
    if missing or not ours:
        return f'no gradient, or none that is finite, of {missing[:3]} and {max(len(missing) - 3, 0)} more'
    return ''


def portable(text: str) -> str:
    """A text whose files are named from their packages on."""
    return re.sub(r'(["\'])[^"\'\n]*/(?:site-packages/|(?=mmmeta/))', r'\1', text)


def as_row(outcome: Outcome) -> dict[str, str]:
    """An outcome as a row of a CSV file."""
    values = dict(asdict(outcome), reason=portable(outcome.reason)).items()
    return {key: str(int(value)) if isinstance(value, bool) else value for key, value in values}
