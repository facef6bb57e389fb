"""Follow the learning rate of a training without training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn


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
        return f'first {self.first:.3g}, highest {self.highest:.3g}, last {self.last:.3g}'


def follow_schedule(
    schedulers: dict | Sequence[dict], base: float, iterations: int, epoch_length: int
) -> LearningRates:
    """Return the learning rates of a training, by running its schedulers on an optimizer without a network.

    Args:
        schedulers (dict | Sequence[dict]): ``param_scheduler`` of a config.
        base (float): Learning rate of the optimizer; groups with a multiplier have as many times as much.
        iterations (int): Iterations of the training.
        epoch_length (int): Iterations of an epoch.
    """
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=base, momentum=0.9)
    built = []
    for config in [schedulers] if isinstance(schedulers, dict) else schedulers:
        if str(config.get('type')).startswith('ReduceOnPlateau'):
            continue  # steps by metrics
        end = -(-iterations // epoch_length) if config.get('by_epoch', True) else iterations
        default = dict(optimizer=optimizer, epoch_length=epoch_length)
        built.append(PARAM_SCHEDULERS.build({'end': end, **config}, default_args=default))
    optimizer.step()  # schedulers warn of one that has made none
    rates = []
    for i in range(iterations):
        rates.append(optimizer.param_groups[0]['lr'])
        for scheduler in built:
            if not scheduler.by_epoch or (i + 1) % epoch_length == 0:
                scheduler.step()
    return LearningRates(base, rates[0], max(rates), rates[-1], sum(rates) / iterations)
