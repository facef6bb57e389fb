"""Print which forms the operations of a model take."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .dispatch import logging_to


class Decision(NamedTuple):
    """Which form an operation takes in a module.

    Attributes:
        module (str): Name of the module in the model.
        operation (str): As :mod:`mmmeta.models.ops.dispatch` names it; ``'-'`` in modules without a choice.
        form (str): The form.
        reason (str): Why it was chosen.
    """

    module: str
    operation: str
    form: str
    reason: str


def describe(model: nn.Module, input: Tensor) -> list[Decision]:
    """Print which form each module of a model takes for an input, and why.

    The model runs once, as it is: in its mode, on its device, under the caller's autocast, with gradients if
    they are enabled. Its buffers, such as running statistics, are left as they were.

    Args:
        model (nn.Module): The model.
        input (Tensor): What it is called with, such as images ``(B, 3, H, W)``.

    Returns:
        list[Decision]: What was printed, in the order of the calls: all decisions, and each other module
        without children.
    """
    decisions, running, decided = [], [''], set()

    def log(operation: str, form: str, reason: str) -> None:
        decided.add(running[-1])
        decisions.append(Decision(running[-1], operation, form, reason))

    def enter(name: str) -> Any:
        return lambda module, args: running.append(name)

    def leave(module: nn.Module, args: tuple, output: Any) -> None:
        name = running.pop()
        if name not in decided and not any(True for _ in module.children()):
            decisions.append(Decision(name, '-', type(module).__name__, 'there is one form of it'))

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(name), prepend=True))
        handles.append(module.register_forward_hook(leave, always_call=True))
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with logging_to(log):
            model(input)
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    decisions = list(dict.fromkeys(decisions))
    widths = [max(map(len, column)) for column in list(zip(*decisions, strict=True))[:3]] or [0, 0, 0]
    for *names, reason in decisions:
        print(*(name.ljust(width) for name, width in zip(names, widths, strict=True)), reason, sep='  ')
    return decisions
