"""Records of runs, written beside their results to document how each number was obtained."""

import copy
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmeta.config import adapt
from mmmeta.config.loading import origin_of
from mmmeta.registry import HOOKS
from mmmeta.utils.atomic import written
from mmmeta.utils.mmengine_private import checkpoint_of, is_resuming
from mmmeta.utils.resources import PACKAGE
from mmmeta.utils.stack import PROVIDERS
from mmmeta.version import __version__

from .checkpoint_hook import waiting_for_room
from .prepare import type_name

# Beside the logs of a run: record_train.json, record_test.json.
RECORDS = 'record_*.json'
# Version of the format of a record.
VERSION = 1


def flatten(value: Any, prefix: str = '') -> dict[str, Any]:
    """The leaves of nested dicts and lists, by their dotted keys as ``--cfg-options`` takes them.

    Args:
        value (Any): A config value.
        prefix (str): Key of the value itself. Defaults to ``''``.
    """
    if isinstance(value, dict):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, (list, tuple)) and any(isinstance(part, (dict, list, tuple)) for part in value):
        items = enumerate(value)
    else:
        return {prefix: list(value) if isinstance(value, tuple) else value}
    leaves = {}
    for key, part in items:
        leaves.update(flatten(part, f'{prefix}.{key}' if prefix else str(key)))
    return leaves


def diff_configs(before: dict, after: dict) -> dict[str, Any]:
    """What differs between two configs.

    Args:
        before (dict): The first.
        after (dict): The second.

    Returns:
        dict[str, Any]: Value in the second of each leaf that differs, None for one that it lacks.
    """
    old, new = flatten(before), flatten(after)
    return {key: new.get(key) for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)}


def record_hook(cfg: Config) -> dict[str, Any]:
    """Return the config of the hook that records a run.

    Args:
        cfg (Config): The config of the run, before hooks are added. What of it was changed is known if
            :func:`~mmmeta.config.read` read it.
    """
    hook, origin = dict(type='mmmeta.RunRecordHook'), origin_of(cfg)
    if origin is None:
        return hook
    original, tests = copy.deepcopy(origin.config), 'train_cfg' not in cfg
    if tests:  # layers that are replaced on a CPU compute the same in a test
        adapt(original, device=True)
    before, after = original.to_dict(), cfg.to_dict()
    tta = 'tta_model' in cfg and cfg.model.get('type') == cfg.tta_model.type
    if tta:
        after['model'] = after['model']['module']
    for config in (before, after):
        # Ours are added to every run.
        hooks = config.pop('custom_hooks', None) or []
        hooks = [one for one in hooks if not str(type_name(one)).startswith('mmmeta.')]
        if hooks:
            config['custom_hooks'] = hooks
    # Keys that a test does not use were removed.
    before = {key: value for key, value in before.items() if key in after or not tests}
    return dict(
        hook,
        config=cfg.filename,
        changes=diff_configs(before, after),
        tta=tta,
        test_data=origin.test_data,
        is_shipped=origin.is_shipped,
    )


def collect_versions() -> dict[str, str]:
    """Versions of Python, torch, mmmeta and the packages of the stack."""
    found = dict(python=platform.python_version(), torch=torch.__version__, mmmeta=__version__)
    for name in ('timm', *(name for names in PROVIDERS.values() for name in names)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def get_commit() -> str | None:
    """The commit of this checkout, marked ``-dirty`` if files were changed; None for an installed package."""
    command = [
        'git',
        '-C',
        str(PACKAGE),
        'describe',
        '--always',
        '--dirty',
        '--abbrev=12',
        '--exclude=*',
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:  # no git
        return None
    tracked = subprocess.run([*command[:3], 'ls-files', '--error-unmatch', __file__], capture_output=True)
    return result.stdout.strip() if result.returncode == tracked.returncode == 0 else None


def _device() -> str:
    """Name of the device."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'CPU, {torch.get_num_threads()} threads'


def _learning_rate_scale(cfg: Config) -> float:
    """Factor by which MMEngine's Runner scales the learning rate for the batch size."""
    auto = cfg.get('auto_scale_lr') or {}
    if not auto.get('enable') or 'train_dataloader' not in cfg:
        return 1.0
    return cfg.train_dataloader.batch_size * get_world_size() / auto['base_batch_size']


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Record config, environment, data and metrics of a run in a file beside the logs.

    ``record_train.json`` or ``record_test.json`` is written when a run starts, and again whenever it has
    measured something; until the last iteration ``finished`` is false. Its keys are ``version``, ``kind``
    (``'train'`` or ``'test'``), the arguments below, ``checkpoint``, ``resumed``, ``seed``, ``processes``,
    ``batch_size`` (of all processes), ``lr_scale``, ``images`` (of each data set), ``device``, ``commit``,
    ``versions``, ``started`` (seconds since 1970), ``iterations`` (done, planned; of a test those that its
    checkpoint had seen), ``step_time`` (median of an iteration in seconds), ``finished`` and ``metrics`` (the
    newest). ``tools/analysis_tools/reproduce.py`` reads it.

    Args:
        config (str | None): The config file. Defaults to None: the one that the runner's config is from.
        changes (dict | None): Leaves of the config that differ from its file, as :func:`diff_configs` returns
            them. Defaults to None: not known.
        tta (bool): Whether a test averages scales and flips. Defaults to False.
        test_data (str | None): The config that the data of the test are from, if it is another one. Defaults
            to None.
        is_shipped (bool | None): Whether the file is one of mmmeta's, see
            :func:`~mmmeta.config.reading.is_shipped`. Defaults to None: not known.
    """

    # After hooks that measure and log.
    priority = 'LOWEST'

    def __init__(
        self,
        config: str | None = None,
        changes: dict | None = None,
        tta: bool = False,
        test_data: str | None = None,
        is_shipped: bool | None = None,
    ) -> None:
        self.given: dict[str, Any] = dict(
            config=config, changes=changes, tta=tta, test_data=test_data, is_shipped=is_shipped
        )
        self.record: dict[str, Any] = {}
        self.seen: int | None = None
        self.first = 0

    def before_train(self, runner: Runner) -> None:
        """Begin the record of a training run."""
        self._begin(runner, 'train')
        self.record['images']['train'] = len(runner.train_dataloader.dataset)
        if runner.val_loop is not None:
            self.record['images']['val'] = len(runner.val_dataloader.dataset)
        self._note(runner, None)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Record progress and speed every 50 iterations."""
        if self.every_n_train_iters(runner, 50):
            self._note(runner, None, ahead=1)  # the runner counts afterwards

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Record the metrics."""
        if self.record:
            self._note(runner, metrics)

    def after_train(self, runner: Runner) -> None:
        """Mark the run as finished."""
        self.record['finished'] = True
        self._note(runner, None)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the iteration of the checkpoint."""
        self.seen = checkpoint.get('meta', {}).get('iter')

    def before_test(self, runner: Runner) -> None:
        """Begin the record of a test."""
        self._begin(runner, 'test')
        self.record['iterations'] = [self.seen, None]
        self.record['images']['test'] = len(runner.test_dataloader.dataset)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Record the metrics."""
        self.record['finished'] = True
        self._note(runner, metrics)

    def _begin(self, runner: Runner, kind: str) -> None:
        config = self.given['config'] or runner.cfg.filename
        self.first = runner.iter if kind == 'train' else 0
        loader = runner.cfg.get(f'{kind}_dataloader') or {}
        loader = loader if isinstance(loader, dict) else {}  # several are for a loop of the user's
        self.record = dict(
            self.given,
            version=VERSION,
            kind=kind,
            config=config and os.path.abspath(config),
            checkpoint=_absolute(checkpoint_of(runner)),
            resumed=is_resuming(runner),
            seed=runner.seed,
            processes=get_world_size(),
            batch_size=loader.get('batch_size', 1) * get_world_size(),
            lr_scale=_learning_rate_scale(runner.cfg),
            images={},
            device=_device(),
            commit=get_commit() if is_main_process() else None,
            versions=collect_versions(),
            started=time.time(),
            iterations=None,
            step_time=None,
            finished=False,
            metrics=None,
        )

    def _note(self, runner: Runner, metrics: dict[str, float] | None, ahead: int = 0) -> None:
        trains = self.record['kind'] == 'train'
        if trains:
            done = runner.iter + ahead
            self.record['iterations'] = [done, runner.max_iters]
            # The history of a resumed run includes times of its earlier parts, maybe from another machine.
            times = runner.message_hub.log_scalars.get('train/time')
            own = times.data[0][-(done - self.first) :] if times and done > self.first else []
            self.record['step_time'] = float(np.median(own)) if len(own) else None
        if metrics:
            numbers = (int, float, np.number)
            values = {key: float(value) for key, value in metrics.items() if isinstance(value, numbers)}
            # In a test the runner has no iteration: accessing it would load the training set.
            self.record['metrics'] = dict(values, step=runner.iter) if trains else values
        self._write(runner)

    def _write(self, runner: Runner) -> None:
        """Write the file."""
        if not is_main_process():
            return
        path = Path(runner.log_dir) / RECORDS.replace('*', self.record['kind'])
        path.parent.mkdir(parents=True, exist_ok=True)
        with waiting_for_room(runner), written(path) as draft:
            draft.write_text(json.dumps(self.record, indent=1, default=str))


def _absolute(location: str | None) -> str | None:
    """A local path as an absolute one; other locations unchanged."""
    path = location and os.path.expanduser(location)
    return os.path.abspath(path) if path and os.path.exists(path) else location
