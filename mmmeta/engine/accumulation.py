"""Gradients of an accumulation that a checkpoint interrupts, for a run to resume in its middle."""

import torch
from mmengine.dist import gather_object, get_rank, get_world_size
from mmengine.model import is_model_wrapper
from torch import nn


def _parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict((model.module if is_model_wrapper(model) else model).named_parameters())


def gather_gradients(model: nn.Module) -> list[dict[str, torch.Tensor]] | None:
    """The gradients that were accumulated and not yet applied, for which all processes have to call this.

    Args:
        model (nn.Module): The model, wrapped for several processes or not.

    Returns:
        list[dict[str, Tensor]] | None: Those of each process, by the name of the parameter; on the first
        process. None where there are none, as after each step of the optimiser, and on other processes.
    """
    own = {name: p.grad.cpu() for name, p in _parameters(model).items() if p.grad is not None}
    found = gather_object(own)
    return found if found and any(found) else None


def restore_gradients(model: nn.Module, gradients: list[dict[str, torch.Tensor]]) -> bool:
    """Continue an accumulation.

    Args:
        model (nn.Module): The model.
        gradients (list[dict[str, Tensor]]): Result of :func:`gather_gradients`.

    Returns:
        bool: False, and nothing was changed, if they are of another number of processes.
    """
    if len(gradients) != get_world_size():
        return False
    parameters = _parameters(model)
    for name, gradient in gradients[get_rank()].items():
        parameters[name].grad = gradient.to(parameters[name].device)
    return True
