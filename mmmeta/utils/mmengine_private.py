"""What is used of MMEngine that is not public, each in one place.

``tests/utils/test_mmengine_private.py`` fails where a release of MMEngine changes it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.registry import build_from_cfg
from mmengine.runner import BaseLoop, Runner
from mmengine.runner import checkpoint as checkpoint_module
from mmengine.runner.checkpoint import CheckpointLoader

# Code in whose frames data sets and loaders are built, and all that a config describes, in any runner.
BUILDING_DATA = Runner.build_dataloader.__code__
BUILDING = (build_from_cfg.__code__, BUILDING_DATA)


def is_resuming(runner: Runner) -> bool:
    """Return whether a run continues an earlier one."""
    return bool(runner._resume)


def checkpoint_of(runner: Runner) -> str | None:
    """Return the location of the checkpoint that a run starts from; None without one."""
    return runner._load_from


def lacks_checkpoint(runner: Runner) -> bool:
    """Return whether a run resumes, and neither is told from what nor has loaded anything."""
    return bool(runner._resume) and runner._load_from is None and not runner._has_loaded


def set_checkpoint(runner: Runner, location: str | None) -> None:
    """Let a run resume from a checkpoint; None lets it start anew."""
    runner._load_from, runner._resume = location, location is not None


def active_loops(runner: Runner) -> tuple[bool, bool, bool]:
    """Return whether a run trains, validates and tests: loops are built when they start."""
    trains, validates, tests = (
        isinstance(loop, BaseLoop) for loop in (runner._train_loop, runner._val_loop, runner._test_loop)
    )
    return trains, validates, tests


def init_weights(runner: Runner) -> None:
    """Initialise the model, as a training does before it loads a checkpoint."""
    runner._init_model_weights()


def accumulative_counts(wrapper: OptimWrapper) -> int:
    """Return the number of iterations whose gradients make a step; 1 for wrappers that do not accumulate."""
    return getattr(wrapper, '_accumulative_counts', 1)


def adapts_loss_scale(wrapper: OptimWrapper) -> bool:
    """Return whether an optimiser wrapper scales losses by a factor that follows the gradients."""
    has_scaler = getattr(wrapper, 'loss_scaler', None) is not None
    return has_scaler and getattr(wrapper, '_scale_update_param', None) is None


@contextmanager
def replaced_loader(load: Callable[..., Any], schemes: Sequence[str]) -> Iterator[None]:
    """Let MMEngine read checkpoints by another function, inside a ``with`` block.

    Args:
        load (callable): Called with the location, and ``map_location``. Its name begins with ``load_from_``.
        schemes (Sequence[str]): Beginnings of locations; ``''`` for paths. Schemes of MMEngine's that stand
            for URLs, such as ``torchvision://``, are read by it as well.
    """
    loaders, by_http = dict(CheckpointLoader._schemes), checkpoint_module.load_from_http
    CheckpointLoader.register_scheme(list(schemes), loader=load, force=True)
    checkpoint_module.load_from_http = load
    try:
        yield
    finally:
        CheckpointLoader._schemes = loaders
        checkpoint_module.load_from_http = by_http
