"""Activations of the MetaFormer papers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmeta.errors import UsageError


class SquaredReLU(nn.Module):
    """``relu(x) ** 2`` (Primer, arXiv:2109.08668), the activation of the papers' MLP classifier head.

    Args:
        inplace (bool): Write the result over the input where no gradient is asked for. Defaults to False.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Apply it elementwise to a tensor of any shape."""
        if self.inplace and not torch.is_grad_enabled():
            return x.relu_().square_()
        return F.relu(x).square()


class _StarReLU(torch.autograd.Function):
    """``scale * relu(x) ** 2 + bias``, of which backward needs ``x`` alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
        ctx.save_for_backward(x, scale if isinstance(scale, Tensor) else None)
        ctx.scale = None if isinstance(scale, Tensor) else scale
        out = F.relu(x).square_()
        if torch.result_type(out, scale) != out.dtype:  # autocast: parameters are wider than features
            return scale * out + bias
        return out.mul_(scale).add_(bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        scale = ctx.scale if scale is None else scale
        of_x, of_scale, of_bias = ctx.needs_input_grad
        positive = F.relu(x)
        return (
            (grad * positive * (2 * scale)).to(x.dtype) if of_x else None,
            (grad * positive.square()).sum().reshape(1) if of_scale else None,
            grad.sum().reshape(1) if of_bias else None,
        )


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
        inplace (bool): Write the result over the input where no gradient is asked for. Defaults to False.
    """

    def __init__(
        self,
        scale: float = 1.0,
        bias: float = 0.0,
        scale_learnable: bool = True,
        bias_learnable: bool = True,
        inplace: bool = False,
    ) -> None:
        super().__init__()
        self.inplace = inplace
        self.scale = nn.Parameter(torch.full((1,), float(scale))) if scale_learnable else float(scale)
        self.bias = nn.Parameter(torch.full((1,), float(bias))) if bias_learnable else float(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it elementwise to a tensor of any shape."""
        if self.inplace and not torch.is_grad_enabled():
            return x.relu_().square_().mul_(self.scale).add_(self.bias)
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return self.scale * F.relu(x).square() + self.bias
        return _StarReLU.apply(x, self.scale, self.bias)


ACTIVATIONS = {
    'StarReLU': StarReLU,
    'SquaredReLU': SquaredReLU,
    'ReLU': nn.ReLU,
    'GELU': nn.GELU,
    'SiLU': nn.SiLU,
}


def build_activation(cfg: str | dict) -> nn.Module:
    """Build an activation for an input that nobody else holds: at inference, ours write over it.

    Args:
        cfg (str | dict): A name of :data:`ACTIVATIONS`, or a dict with that name under ``type`` and the
            arguments of the class beside it, e.g. ``dict(type='StarReLU', bias=0.0, bias_learnable=False)``.

    Raises:
        UsageError: The name is unknown.
    """
    args = {'type': cfg} if isinstance(cfg, str) else dict(cfg)
    name = args.pop('type', None)
    if name not in ACTIVATIONS:
        raise UsageError(f"unknown act '{name}': choose one of {', '.join(ACTIVATIONS)}")
    if name in ('StarReLU', 'SquaredReLU'):
        args.setdefault('inplace', True)
    return ACTIVATIONS[name](**args)
