"""Activations of the MetaFormer papers."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmeta.utils.errors import UsageError

from .checks import check, is_number, parse_cfg
from .kernels import has_kernels
from .recompute import apply, is_captured, is_recompute_disabled, recomputable


def _to_compute_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors in the dtype of the computation, at least float32."""
    return tuple(tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors)


def _scaled_square(x: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
    """``scale * relu(x) ** 2 + bias``, computed in at least float32."""
    if not is_captured() and has_kernels(x):
        from mmmeta.models.layers.kernels.activations import scaled_square

        return scaled_square(x, scale, bias)
    (positive,) = _to_compute_dtype(F.relu(x))
    # In this order no intermediate value overflows unless the result does.
    if torch.is_grad_enabled():
        return (positive * scale * positive + bias).to(x.dtype)
    return (positive * scale).mul_(positive).add_(bias).to(x.dtype)


class _ScaledSquareReLU(torch.autograd.Function):
    """:func:`_scaled_square`, which saves only its inputs for backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
        return _scaled_square(x, scale, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, scale, _ = inputs
        ctx.constant = None if isinstance(scale, Tensor) else scale
        ctx.save_for_backward(x, scale if ctx.constant is None else None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        scale = ctx.constant if scale is None else scale
        of_x, of_scale, of_bias = ctx.needs_input_grad
        # With a graph of the gradients themselves, these have to be operations.
        if not torch.is_grad_enabled() and has_kernels(x):
            from mmmeta.models.layers.kernels.activations import scaled_square_gradients

            grad_x, sums = scaled_square_gradients(grad, x, scale)
            return grad_x, sums[:1] if of_scale else None, sums[1:] if of_bias else None
        grad, positive = _to_compute_dtype(grad, F.relu(x))
        product = grad * positive
        return (
            (product * (2 * scale)).to(x.dtype) if of_x else None,
            # Not as a dot product, whose sum over entries that nearly cancel is less exact.
            (product * positive).sum().reshape(1) if of_scale else None,
            grad.sum().reshape(1) if of_bias else None,
        )


def scaled_square_relu(x: Tensor, scale: Tensor | float = 1.0, bias: Tensor | float = 0.0) -> Tensor:
    """Compute ``scale * relu(x) ** 2 + bias`` elementwise.

    Args:
        x (Tensor): Of any shape and floating-point dtype.
        scale (Tensor | float): Of shape ``(1,)``, or a constant. Defaults to 1.0.
        bias (Tensor | float): As ``scale``. Defaults to 0.0.

    Returns:
        Tensor: Of shape and dtype of ``x``; inside it is computed in at least float32.
    """
    if is_recompute_disabled():
        return _scaled_square(x, scale, bias)
    return recomputable(apply(_ScaledSquareReLU, x, scale, bias), _scaled_square, x, scale, bias)


class SquaredReLU(nn.Module):
    """``relu(x) ** 2`` (Primer, arXiv:2109.08668), the activation of the papers' MLP classifier head."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it elementwise to a tensor of any shape."""
        return scaled_square_relu(x)


class StarReLU(nn.Module):
    """``s * relu(x) ** 2 + b`` with scalars ``s`` and ``b`` (arXiv:2210.13452, eq. 15).

    The released models start from ``s = 1, b = 0`` and learn both; the constants that keep the distribution
    of a standard normal input are ``s = 0.8944, b = -0.4472`` (eq. 14). A scalar that is not learnable is a
    constant: it is neither a parameter nor part of the state dict.

    Args:
        scale (float): Initial ``s``. Defaults to 1.0.
        bias (float): Initial ``b``. Defaults to 0.0.
        scale_learnable (bool): Whether ``s`` is a parameter. Defaults to True.
        bias_learnable (bool): Whether ``b`` is a parameter. Defaults to True.

    Raises:
        UsageError: A value is not a finite number.
    """

    def __init__(
        self,
        scale: float = 1.0,
        bias: float = 0.0,
        scale_learnable: bool = True,
        bias_learnable: bool = True,
    ) -> None:
        super().__init__()
        for name, value in (('scale', scale), ('bias', bias)):
            check(f'{name} of StarReLU', value, is_number(value), 'a finite number')
        for name, value in (('scale_learnable', scale_learnable), ('bias_learnable', bias_learnable)):
            check(f'{name} of StarReLU', value, isinstance(value, bool), 'True or False')
        self.scale = nn.Parameter(torch.full((1,), float(scale))) if scale_learnable else float(scale)
        self.bias = nn.Parameter(torch.full((1,), float(bias))) if bias_learnable else float(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it elementwise to a tensor of any shape; the result has its dtype."""
        return scaled_square_relu(x, self.scale, self.bias)


class ReLU(nn.ReLU):
    """PyTorch's ``ReLU``, whose result can be recomputed in backward."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it elementwise to a tensor of any shape."""
        return recomputable(super().forward(x), F.relu, x)


class GELU(nn.GELU):
    """PyTorch's ``GELU``, whose result can be recomputed in backward."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it elementwise to a tensor of any shape."""
        return recomputable(super().forward(x), partial(F.gelu, approximate=self.approximate), x)


class SiLU(nn.SiLU):
    """PyTorch's ``SiLU``, whose result can be recomputed in backward."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it elementwise to a tensor of any shape."""
        return recomputable(super().forward(x), F.silu, x)


ACTIVATIONS = {
    'StarReLU': StarReLU,
    'SquaredReLU': SquaredReLU,
    'ReLU': ReLU,
    'GELU': GELU,
    'SiLU': SiLU,
}


def build_activation(cfg: str | dict) -> nn.Module:
    """Build an activation.

    Args:
        cfg (str | dict): A name of :data:`ACTIVATIONS`, or a dict with that name under ``type`` and the
            arguments of the class beside it, e.g. ``dict(type='StarReLU', bias=0.0, bias_learnable=False)``.

    Raises:
        UsageError: The name is unknown, or a value does not fit.
    """
    name, args = parse_cfg('act', cfg)
    if name not in ACTIVATIONS:
        raise UsageError(f"unknown act '{name}': choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name](**args)
