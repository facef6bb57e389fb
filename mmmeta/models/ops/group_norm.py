"""Group normalisation with one group.

Forms: ``reference``, PyTorch's operation on a contiguous map; ``fused``, on any map; ``joint``, which
computes all gradients if it computes any; ``kernel``, for maps with channels last.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from . import dispatch
from .recompute import recomputable
from .state import apply


def group_norm1(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise over all channels and positions of each map.

    Args:
        x (Tensor): ``(B, C, H, W)``.
        weight (Tensor): ``(C,)``.
        bias (Tensor | None): ``(C,)``.
        eps (float): Added to the variance.

    Returns:
        Tensor: ``(B, C, H, W)``.
    """
    form = dispatch.group_norm(x)
    if form == 'kernel':
        # As PyTorch's autocast does.
        dtype = torch.float32 if torch.is_autocast_enabled('cuda') else x.dtype
        y, stats = apply(_KernelNorm, x, weight, bias, eps, dtype)
        return recomputable(y, partial(_by_kernel_again, eps=eps, dtype=dtype), x, weight, bias, stats)
    normalise = partial(_normalise, eps=eps, form=form)
    return recomputable(normalise(x, weight, bias), normalise, x, weight, bias)


def _normalise(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, form: str) -> Tensor:
    # On a CPU, PyTorch (seen in 2.12) writes the gradient of a map with channels last and fewer than 2048
    # positions even where it is not needed, through a null pointer: the process ends with SIGSEGV behind
    # frozen parts, or when gradients of the weight alone are asked for.
    if form == 'reference':
        x = x.contiguous()  # what is recorded has no node of ours
    elif form == 'joint' and torch.is_grad_enabled():  # not when it is recomputed
        x, weight, bias = apply(_JointGradients, x, weight, bias)
    return F.group_norm(x, 1, weight, bias, eps)


class _JointGradients(Function):
    """Return views of tensors, so that backward computes the gradients of all of them if it needs any."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if tensor is None else tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return grads


class _KernelNorm(Function):
    """Group norm by kernels; also returns what it has to know to do so again."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        from .kernels.group_norm import normalise_maps

        return normalise_maps(x, weight, bias, eps, dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        x, weight, bias, *_ = inputs
        ctx.of_bias = None if bias is None else bias.dtype
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, weight, output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
        from .kernels.group_norm import normalise_maps_gradients

        x, weight, stats = ctx.saved_tensors
        grad_x, of_weight, of_bias = normalise_maps_gradients(grad, x, weight, stats)
        return grad_x, of_weight.to(weight.dtype), ctx.of_bias and of_bias.to(ctx.of_bias), None, None


def _by_kernel_again(
    x: Tensor, weight: Tensor, bias: Tensor | None, stats: Tensor, eps: float, dtype: torch.dtype
) -> Tensor:
    if torch.is_grad_enabled():  # a graph of the gradients goes through what they were computed from
        return apply(_KernelNorm, x, weight, bias, eps, dtype)[0]
    from .kernels.group_norm import normalise_maps_again

    return normalise_maps_again(x, weight, bias, stats, dtype)
