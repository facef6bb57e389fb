"""Activations of the MetaFormer papers."""

from functools import partial

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from mmmeta.models.ops import recomputable, scaled_square_relu
from mmmeta.utils.errors import UsageError

from .checks import check, is_number, parse_cfg

torch.fx.wrap('scaled_square_relu')


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
