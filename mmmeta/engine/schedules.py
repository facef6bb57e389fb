"""Follow learning rates without training, and let those of a config hold when a run is resumed."""

import copy
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.optim.scheduler import ReduceOnPlateauParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

# Of the state of a schedule, what changes while it is followed; `verbose` only prints.
PROGRESS = ('last_step', '_global_step', '_last_value', 'base_values', 'verbose')
# Settings of an optimizer that change how it computes, not what.
IMPLEMENTATION = ('params', 'fused', 'foreach', 'capturable', 'differentiable')


@dataclass(frozen=True)
class LearningRates:
    """Learning rates of a training.

    Attributes:
        base (float): That of the optimizer, which schedules multiply.
        first (float): That of the first iteration.
        highest (float): The highest one that an iteration has.
        last (float): That of the last iteration.
        mean (float): The mean over all iterations.
    """

    base: float
    first: float
    highest: float
    last: float
    mean: float

    def __str__(self) -> str:
        return f'{self.first:.3g} at first, {self.highest:.3g} at most, {self.last:.3g} at the end'


def follow_schedule(
    schedulers: dict | Sequence[dict], base: float, iterations: int, epoch_length: int, by_epoch: bool = True
) -> LearningRates:
    """Return the learning rates of a training, by running its schedulers on an optimizer without a network.

    Args:
        schedulers (dict | Sequence[dict]): ``param_scheduler`` of a config.
        base (float): Learning rate of the optimizer; groups with a multiplier have as many times as much.
        iterations (int): Iterations of the training.
        epoch_length (int): Iterations of an epoch.
        by_epoch (bool): Whether the loop counts epochs; else schedules that count them never act. Defaults to
            True.
    """
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=base, momentum=0.9)
    built = []
    for config in [schedulers] if isinstance(schedulers, dict) else schedulers:
        end = -(-iterations // epoch_length) if config.get('by_epoch', True) else iterations
        default = dict(optimizer=optimizer, epoch_length=epoch_length)
        built.append(PARAM_SCHEDULERS.build({'end': end, **config}, default_args=default))
    optimizer.step()  # schedules warn of one that has made none
    rates = []
    for _ in _steps(built, iterations, epoch_length if by_epoch else None):
        rates.append(optimizer.param_groups[0]['lr'])
    return LearningRates(base, rates[0], max(rates), rates[-1], sum(rates) / iterations)


def _steps(schedules: Sequence, iterations: int, epoch_length: int | None) -> Iterator[None]:
    """Yield in each iteration, and let schedules make its step afterwards; without epochs some make none."""
    # Others step by metrics.
    followed = [one for one in schedules if not isinstance(one, ReduceOnPlateauParamScheduler)]
    for i in range(iterations):
        yield
        ends_epoch = epoch_length is not None and (i + 1) % epoch_length == 0
        for schedule in followed:
            if not schedule.by_epoch or ends_epoch:
                schedule.step()


def adopt_schedules(runner: Runner, checkpoint: dict[str, Any]) -> list[str]:
    """Let the schedules and the settings of the optimizer in a config hold for a run that is resumed.

    Where they differ from those of the checkpoint, the schedules of the config are followed from the
    beginning to its iteration, and take the place of what it holds; else nothing is changed.

    Args:
        runner (Runner): The runner, whose optimizer and schedules are built.
        checkpoint (dict): What is resumed from, checked by :func:`~mmmeta.engine.resuming.check_resumable`.

    Returns:
        list[str]: What differs.
    """
    wrapper, schedules, given = runner.optim_wrapper, runner.param_schedulers, checkpoint['optimizer']
    states, iteration = checkpoint.get('param_schedulers'), checkpoint['meta']['iter']
    if not isinstance(wrapper, OptimWrapperDict):
        found = _adopt(runner, iteration, wrapper, schedules or [], given, states)
        if found:
            checkpoint['param_schedulers'] = _states(schedules or [])
        return found
    found = []
    for name, inner in wrapper.items():
        own = (schedules or {}).get(name, [])
        differences = _adopt(runner, iteration, inner, own, given[name], (states or {}).get(name))
        if differences:
            checkpoint['param_schedulers'][name] = _states(own)
        found += [f'{name}: {difference}' for difference in differences]
    return found


def _differences(wrapper: OptimWrapper, schedules: Sequence, given: Mapping, states: Any) -> Iterator[str]:
    """Yield how schedules and settings of an optimizer differ from those of a checkpoint."""
    states = states if isinstance(states, list) else []
    if len(states) != len(schedules):
        yield f'{len(schedules)} schedules instead of {len(states)}'
    for schedule, state in zip(schedules, states, strict=False):
        own, name = schedule.state_dict(), type(schedule).__name__
        if {*state} - {*own}:
            yield f'{name} instead of another schedule'
            continue
        for key in own:
            if key in state and key not in PROGRESS and _plain(own[key]) != _plain(state[key]):
                yield f'{key} of {name} {_plain(own[key])} instead of {_plain(state[key])}'
    scheduled = {schedule.param_name for schedule in schedules}
    for own, old in zip(wrapper.optimizer.param_groups, given['param_groups'], strict=True):
        keys = [key for key in own if key in old and key not in IMPLEMENTATION and key not in scheduled]
        found = [key for key in keys if _plain(own[key]) != _plain(old[key])]
        if found:
            yield from (f'{key} {_plain(own[key])} instead of {_plain(old[key])}' for key in found)
            return  # groups with multipliers differ alike


def _plain(value: Any) -> Any:
    """Return a value as it can be compared and printed."""
    if isinstance(value, Counter):
        return sorted(value.elements())
    return list(value) if isinstance(value, tuple) else value


def _adopt(
    runner: Runner, iterations: int, wrapper: OptimWrapper, schedules: Sequence, given: dict, states: Any
) -> list[str]:
    """Bring schedules and settings that differ from a checkpoint to its iteration; return how they differ."""
    found = list(_differences(wrapper, schedules, given, states))
    if not found:
        return found
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # that the optimizer has made no step
        for _ in _steps(schedules, iterations, len(runner.train_dataloader) if by_epoch else None):
            pass
    own = wrapper.state_dict()
    for group, old in zip(own['param_groups'], given['param_groups'], strict=True):
        old.update({key: value for key, value in group.items() if key not in IMPLEMENTATION})
    if 'base_param_settings' in own:
        given['base_param_settings'] = own['base_param_settings']
    return found


def _states(schedules: Sequence) -> list[dict[str, Any]]:
    return [copy.deepcopy(schedule.state_dict()) for schedule in schedules]
