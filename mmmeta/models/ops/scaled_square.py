"""``scale * relu(x) ** 2 + bias``: StarReLU and the squared ReLU.

Forms: ``reference``, by autograd; ``function``, which keeps its input alone for backward; ``kernel``, the
same in one pass over the map.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from . import dispatch
from .recompute import recomputable
from .state import apply


def scaled_square_relu(x: Tensor, scale: Tensor | float = 1.0, bias: Tensor | float = 0.0) -> Tensor:
    """Compute ``scale * relu(x) ** 2 + bias`` elementwise.

    Args:
        x (Tensor): Of any shape and floating-point dtype.
        scale (Tensor | float): Of shape ``(1,)``, or a constant. Defaults to 1.0.
        bias (Tensor | float): As ``scale``. Defaults to 0.0.

    Returns:
        Tensor: Of shape and dtype of ``x``; inside it is computed in at least float32.
    """
    return recomputable(_scaled_square(x, scale, bias), _scaled_square, x, scale, bias)


def _scaled_square(x: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
    form = dispatch.scaled_square(x)
    if form == 'reference' or not torch.is_grad_enabled():
        return _compute(x, scale, bias, form)
    return apply(_ScaledSquareReLU, x, scale, bias, form)


def _compute(x: Tensor, scale: Tensor | float, bias: Tensor | float, form: str) -> Tensor:
    if form == 'kernel':
        from .kernels.scaled_square import scaled_square

        return scaled_square(x, scale, bias)
    (positive,) = _to_compute_dtype(F.relu(x))
    # In this order no intermediate value overflows unless the result does.
    if torch.is_grad_enabled():
        return (positive * scale * positive + bias).to(x.dtype)
    return (positive * scale).mul_(positive).add_(bias).to(x.dtype)


def _to_compute_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors in the dtype of the computation, at least float32."""
    return tuple(tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors)


class _ScaledSquareReLU(Function):
    """:func:`_compute`, which saves only its inputs for backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor | float, bias: Tensor | float, form: str) -> Tensor:
        return _compute(x, scale, bias, form)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, scale, *_ = inputs
        ctx.constant = None if isinstance(scale, Tensor) else scale
        ctx.save_for_backward(x, scale if ctx.constant is None else None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        scale = ctx.constant if scale is None else scale
        of_x, of_scale, of_bias, _ = ctx.needs_input_grad
        # With a graph of the gradients themselves, these have to be operations.
        if not torch.is_grad_enabled() and dispatch.scaled_square(x) == 'kernel':
            from .kernels.scaled_square import scaled_square_gradients

            grad_x, sums = scaled_square_gradients(grad, x, scale)
            return grad_x, sums[:1] if of_scale else None, sums[1:] if of_bias else None, None
        grad, positive = _to_compute_dtype(grad, F.relu(x))
        product = grad * positive
        return (
            (product * (2 * scale)).to(x.dtype) if of_x else None,
            # Not as a dot product, whose sum over entries that nearly cancel is less exact.
            (product * positive).sum().reshape(1) if of_scale else None,
            grad.sum().reshape(1) if of_bias else None,
            None,
        )
