"""Train and test with the config of any OpenMMLab package, on GPUs or on CPU."""

import copy
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmmeta.config import adapt
from mmmeta.config.building import build, check_backbone, explain_building
from mmmeta.config.data import check_data, explain_data_errors
from mmmeta.config.inspection import TEST_LOADERS, TRAIN_LOADERS, pretrained_checkpoints, scope_of
from mmmeta.config.loading import load_config
from mmmeta.engine import prepare
from mmmeta.engine.checkpoint import safe_loading
from mmmeta.engine.checkpoint_hook import CheckpointHook, waiting_for_room
from mmmeta.engine.console import log_files, quiet_packages
from mmmeta.engine.joining import joined
from mmmeta.engine.lock import locked
from mmmeta.engine.records import record_hook
from mmmeta.engine.resuming import find_last_checkpoint
from mmmeta.models import MetaFormer
from mmmeta.registry import RUNNERS
from mmmeta.utils.atomic import NO_ROOM
from mmmeta.utils.errors import UsageError, counted
from mmmeta.utils.mmengine_private import init_weights
from mmmeta.utils.processes import is_first_process
from mmmeta.utils.targets import check_writable
from mmmeta.validation import check_config, refuse
from mmmeta.weights import as_location, is_remote


@contextmanager
def _running(cfg: Config, loaders: tuple[str, ...], trust_checkpoint: bool, checks: bool) -> Iterator[Runner]:
    """Check and adapt a config, build its runner, and load safely while it runs; see :func:`train`."""
    if 'model' not in cfg:
        raise UsageError(f"'{cfg.filename}' has no model: it is no config to train or test with")
    with joined(cfg), _started(cfg, loaders, trust_checkpoint, checks) as runner:
        yield runner


@contextmanager
def _started(cfg: Config, loaders: tuple[str, ...], trust_checkpoint: bool, checks: bool) -> Iterator[Runner]:
    """See :func:`_running`; the processes have joined."""
    check_data(cfg, loaders)
    check_writable(cfg.work_dir)
    init_default_scope(scope_of(cfg))
    if checks:  # on all processes, which end together
        refuse(cfg, check_config(cfg))
    else:
        check_backbone(cfg)
    adapt(cfg, device=True)
    record = record_hook(cfg)
    named = cfg.get('load_from')
    # A test with a checkpoint needs no other weights.
    pretrained = [] if named and 'train_cfg' not in cfg else list(pretrained_checkpoints(cfg))
    for location in (named, *pretrained):
        # Sharded checkpoints, from which runs resume, are folders.
        is_there = os.path.exists if cfg.get('resume') else os.path.isfile
        if location and not is_remote(location) and not is_there(os.path.expanduser(location)):
            raise UsageError(f"there is no checkpoint '{location}': give the path of a file")
    if cfg.get('runner_type', 'Runner') == 'Runner':
        cfg.runner_type = 'mmmeta.Runner'
    trusted = _trusted(cfg, pretrained) if trust_checkpoint else []
    with _alone(cfg) as signs, safe_loading(trusted), _printing(cfg) as loggers:
        labels = [dict(type='mmmeta.CheckLabelsHook')] if checks else []
        prepared = copy.deepcopy(cfg)
        added = prepare(prepared, [record, *signs, *labels])
        runner = build(RUNNERS.build, prepared)
        for module in runner.model.modules() if isinstance(runner.model, nn.Module) else ():
            if isinstance(module, MetaFormer):
                module.trusted_checkpoints = trusted
        _end_without_a_log(runner)
        loggers.append(runner.logger)
        runner.logger.info(f'added to this config: {", ".join(added)}')
        runner.logger.info(_summary(cfg, runner))
        try:
            with explain_data_errors(cfg, loaders), explain_building():
                yield runner
        except (UsageError, OSError):
            with suppress(OSError):  # of a disk that is full
                _log_traceback(runner)
            raise


@contextmanager
def _printing(cfg: Config) -> Iterator[list[logging.Logger]]:
    """Print what the config's ``console`` says.

    Yields:
        list[logging.Logger]: Where the logger is to be put whose files have what is not printed.
    """
    loggers: list[logging.Logger] = []

    def report(line: str) -> None:
        for handler in (handler for logger in loggers for handler in log_files(logger)):
            handler.handle(logging.LogRecord('stdout', logging.INFO, __file__, 0, line, (), None))

    with quiet_packages(report) if cfg.get('console') == 'short' else nullcontext():
        yield loggers


def _trusted(cfg: Config, pretrained: list[str]) -> list[str]:
    """The locations for which ``--trust-checkpoint`` is meant."""
    named = [cfg.load_from] if cfg.get('load_from') else []
    # A run that is resumed builds its network as when it began, with the weights that were trusted then.
    return [*named, *pretrained] if not named or cfg.get('resume') else named


@contextmanager
def _alone(cfg: Config) -> Iterator[list[dict]]:
    """Hold the lock of the work directory while training; tests of its checkpoints may run meanwhile.

    Yields:
        list[dict]: The config of the hook that shows others that the run is alive, where it is needed.
    """
    if 'train_cfg' not in cfg or not is_first_process():
        yield []
        return
    with locked(cfg.work_dir) as path:
        yield [dict(type='mmmeta.SignOfLifeHook', path=str(path))]


def _summary(cfg: Config, runner: Runner) -> str:
    """Config, model and schedule of a run, in a line."""
    backbone = cfg.model.get('backbone') or {}
    name = f'{os.path.basename(cfg.filename)}: ' if cfg.filename else ''
    parts = [f'{name}{cfg.model.get("type")}' + (f' with {backbone["type"]}' if 'type' in backbone else '')]
    if isinstance(runner.model, nn.Module):
        parts.append(f'{sum(p.numel() for p in runner.model.parameters()) / 1e6:.1f} M parameters')
    train, loader = cfg.get('train_cfg') or {}, cfg.get('train_dataloader') or {}
    words = dict(max_iters='iteration', max_epochs='epoch')
    length = next((counted(train[key], word) for key, word in words.items() if key in train), None)
    if length:
        processes = get_world_size()
        each = f' on each of {processes} processes' if processes > 1 else ''
        parts.append(f'{length} in batches of {counted(loader.get("batch_size", 1), "image")}{each}')
        rate = (cfg.get('optim_wrapper') or {}).get('optimizer', {}).get('lr')
        parts.append(f'learning rate {rate}')
        if not cfg.get('load_from') and not any(pretrained_checkpoints(cfg)):
            parts.append('from random weights')
    return f'{", ".join(parts)}; config, environment and the whole log are in {runner.log_dir}'


def _result(runner: Runner) -> str:
    """Where the checkpoints of a finished run are, in a line."""
    last, best = saved_checkpoints(runner)
    files = [f'the last checkpoint is {last}'] if last else ['no checkpoint was written']
    files += [f'the best one is {path}' for path in best]
    return f'finished: {", ".join(files)}'


def saved_checkpoints(runner: Runner) -> tuple[str | None, list[str]]:
    """Return the last checkpoint that a run wrote, and the best one of each metric of ``save_best``."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    return (hook.last_complete, hook.best_checkpoints) if hook else (None, [])


def _end_without_a_log(runner: Runner) -> None:
    """Let a run end whose log has no room; Python would go on, and print a traceback for each line."""

    def fail(handler: logging.FileHandler, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError) or error.errno not in NO_ROOM:
            logging.FileHandler.handleError(handler, record)
            return
        with waiting_for_room(runner):
            raise OSError(error.errno, error.strerror, handler.baseFilename) from error

    for handler in log_files(runner.logger):
        # Of this handler alone.
        handler.handleError = partial(fail, handler)  # type: ignore[method-assign]


def _log_traceback(runner: Runner) -> None:
    """Write the traceback behind a sentence into the log of the run, not onto the screen."""
    for handler in log_files(runner.logger):
        if handler.stream is not None:
            handler.stream.write(traceback.format_exc())
            handler.flush()


def resume_from(cfg: Config, checkpoint: str | os.PathLike | None) -> None:
    """Resume an earlier run.

    Args:
        cfg (Config): The config.
        checkpoint (str | os.PathLike | None): File of the earlier run. None takes the last one in the work
            directory; if there is none, the run starts as the config says.

    Raises:
        UsageError: ``last_checkpoint`` in the work directory does not name a checkpoint that is there.
    """
    if checkpoint is None:
        hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
        checkpoint = find_last_checkpoint(cfg.work_dir, hook.get('out_dir'))
    cfg.resume = checkpoint is not None
    if checkpoint is not None:
        cfg.load_from = as_location(checkpoint)


def train(
    cfg: Config | str | os.PathLike[str], trust_checkpoint: bool = False, checks: bool = True
) -> Runner:
    """Train.

    Args:
        cfg (Config | str | PathLike): As :func:`~mmmeta.apis.load_config` returns it, or takes it; ``resume``
            and ``load_from`` as MMEngine's Runner takes them.
        trust_checkpoint (bool): Whether the checkpoint that is loaded may run code; without one, or when it
            is resumed from, the pretrained weights in the config as well. Defaults to False.
        checks (bool): Whether to end with what :func:`~mmmeta.validation.check` finds. Defaults to True.

    Returns:
        Runner: The runner, after training.

    Raises:
        UsageError: The data, a checkpoint, an argument or a type in the config does not exist.
    """
    with _running(_as_config(cfg), TRAIN_LOADERS, trust_checkpoint, checks) as runner:
        runner.train()
        runner.logger.info(_result(runner))
    return runner


@contextmanager
def testing(
    cfg: Config, checkpoint: str | os.PathLike | None, trust_checkpoint: bool, checks: bool
) -> Iterator[Runner]:
    """A runner that tests, see :func:`evaluate`."""
    missing = [key for key in ('test_dataloader', 'test_evaluator') if not cfg.get(key)]
    if missing:
        raise UsageError(f"'{cfg.filename}' has no {' and no '.join(missing)}: give a config with test data")
    cfg.load_from, cfg.resume = None if checkpoint is None else as_location(checkpoint), False
    # With them, a hook that reads the iteration makes MMEngine load the training set.
    training = ('train_cfg', 'train_dataloader', 'optim_wrapper', 'param_scheduler')
    for key in (*training, 'val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg.pop(key, None)
    with _running(cfg, TEST_LOADERS, trust_checkpoint, checks) as runner:
        yield runner


def _as_config(cfg: Config | str | os.PathLike[str]) -> Config:
    return cfg if isinstance(cfg, Config) else load_config(os.fspath(cfg))


def evaluate(
    cfg: Config | str | os.PathLike[str],
    checkpoint: str | os.PathLike | None,
    trust_checkpoint: bool = False,
    checks: bool = True,
) -> dict[str, float]:
    """Evaluate a checkpoint on the test set of a config.

    Args:
        cfg (Config | str | PathLike): As :func:`~mmmeta.apis.load_config` returns it, or takes it.
        checkpoint (str | os.PathLike | None): File or URL; None evaluates the network as it is before
            training.
        trust_checkpoint (bool): Whether the checkpoint may run code. Defaults to False.
        checks (bool): As in :func:`train`. Defaults to True.

    Returns:
        dict[str, float]: The metrics.

    Raises:
        UsageError: As :func:`train`, or the checkpoint is not exactly that of the config's model.
    """
    with testing(_as_config(cfg), checkpoint, trust_checkpoint, checks) as runner:
        if checkpoint is None:
            init_weights(runner)
        return runner.test()
