"""Activations of the MetaFormer papers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmeta.errors import UsageError

from .chunks import on_eager_cpu


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


# Entries at a time in training on a CPU, where memory takes longer than arithmetic. On the machine that this
# was measured on 2**17 to 2**22 were alike.
PIECE = 1 << 19


def _square_positive(x: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
    """``scale * x ** 2 + bias`` written over ``x``, on a CPU in one operation."""
    if not on_eager_cpu(x):
        return x.square_().mul_(scale).add_(bias)
    return torch.addcmul(x.new_full((), float(bias)), x, x, value=float(scale), out=x)


def _lines(*inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Tensors of one shape laid out flat, in the order of the first one's memory.

    Returns:
        tuple[Tensor, list[Tensor]]: A new tensor like the first one, and the lines: of each input, and of the
        new tensor, to be written.
    """
    first = inputs[0]
    channels_last = first.ndim == 4 and first.is_contiguous(memory_format=torch.channels_last)
    if channels_last:
        inputs = tuple(tensor.permute(0, 2, 3, 1) for tensor in inputs)
    result = torch.empty_like(inputs[0], memory_format=torch.contiguous_format)
    lines = [tensor.reshape(-1) for tensor in (*inputs, result)]
    return result.permute(0, 3, 1, 2) if channels_last else result, lines


class _StarReLU(torch.autograd.Function):
    """``scale * relu(x) ** 2 + bias``, of which backward needs ``x`` alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
        ctx.save_for_backward(x, scale if isinstance(scale, Tensor) else None)
        ctx.scale = None if isinstance(scale, Tensor) else scale
        if torch.result_type(x, scale) != x.dtype:  # autocast: parameters are wider than features
            return scale * F.relu(x).square_() + bias
        if not on_eager_cpu(x):
            return F.relu(x).square_().mul_(scale).add_(bias)
        scale, bias = float(scale), float(bias)  # once, not for each piece
        out, lines = _lines(x)
        for given, piece in zip(*(line.split(PIECE) for line in lines), strict=True):
            _square_positive(torch.clamp_min(given, 0, out=piece), scale, bias)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        scale = ctx.scale if scale is None else scale
        of_x, of_scale, of_bias = ctx.needs_input_grad
        if on_eager_cpu(x) and not torch.is_grad_enabled():
            grads = _StarReLU.backward_in_pieces(x, scale, grad)
            return tuple(g if needed else None for g, needed in zip(grads, ctx.needs_input_grad, strict=True))
        positive = F.relu(x)
        return (
            (grad * positive * (2 * scale)).to(x.dtype) if of_x else None,
            (grad * positive.square()).sum().reshape(1) if of_scale else None,
            grad.sum().reshape(1) if of_bias else None,
        )

    @staticmethod
    def backward_in_pieces(x: Tensor, scale: Tensor | float, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients on a CPU."""
        result, lines = _lines(x, grad.to(x.dtype))
        buffer = x.new_empty(min(x.numel(), PIECE))
        zero = x.new_zeros(())
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        # That of the input is multiplied by it at once, that of the scale divided by it in the end.
        factor = 2 * float(scale)
        within = factor if abs(factor) > 1e-3 else 1.0
        of_scale = of_bias = 0.0
        for given, upper, piece in zip(*(line.split(PIECE) for line in lines), strict=True):
            positive = torch.clamp_min(given, 0, out=buffer[: len(given)])
            torch.addcmul(zero, upper, positive, value=within, out=piece)
            # Not as a dot product, whose sum over entries that nearly cancel is less exact.
            products = positive.mul_(piece) if x.dtype == wide else positive.to(wide).mul_(piece)
            of_scale += products.sum().item()
            of_bias += upper.sum(dtype=wide).item()
        if within != factor:
            result.mul_(factor)
        return result, *(x.new_full((1,), total, dtype=wide) for total in (of_scale / within, of_bias))


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
        if torch.compiler.is_compiling():
            return self.scale * F.relu(x).square() + self.bias
        if torch.is_grad_enabled():
            return _StarReLU.apply(x, self.scale, self.bias)
        return _square_positive(x.relu_() if self.inplace else F.relu(x), self.scale, self.bias)


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
