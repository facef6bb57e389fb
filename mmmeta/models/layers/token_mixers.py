"""The token mixers of the MetaFormer papers.

A token mixer maps a feature map of shape (B, C, H, W) to one of the same shape. It is built with the number
of channels as its first argument, ``dim``; the backbone normalises before it and adds the residual after it.
"""

import math
from typing import TypeGuard

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from mmmeta.models.ops import (
    WindowPlan,
    WindowRule,
    attention,
    call_linear,
    channels_first,
    channels_last,
    check_natten,
    is_global,
    plan_for,
    pooling_difference,
)
from mmmeta.utils.errors import UsageError

from .activations import build_activation
from .checks import BACKENDS, check_choice, is_integer, is_number, resolve_window

# One node each in what torch.fx traces.
torch.fx.wrap('attention')
torch.fx.wrap('plan_for')
torch.fx.wrap('pooling_difference')
torch.fx.wrap('_mix_randomly')


class Identity(nn.Module):
    """No mixing: IdentityFormer's token mixer (arXiv:2210.13452, eq. 4).

    Args:
        dim (int): Channels; unused, common to all mixers.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, C, H, W)`` as it is."""
        return x


class Pooling(nn.Module):
    """Average pooling minus its input (arXiv:2111.11418, eq. 4); the border is left out of the mean.

    Args:
        dim (int): Channels; unused, common to all mixers.
        pool_size (int): Side of the pooling window, odd and positive. Defaults to 3.
        dilation (int): Distance of the pixels that are averaged. Defaults to 1.

    Raises:
        UsageError: ``pool_size`` is even or not positive.
    """

    def __init__(self, dim: int, pool_size: int = 3, dilation: int = 1) -> None:
        super().__init__()
        if not is_integer(pool_size) or pool_size % 2 == 0:
            raise UsageError(
                f'pool_size={pool_size!r} would change the size of the map: give an odd, positive number'
            )
        self.pool_size = pool_size
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``(B, C, H, W)``."""
        return pooling_difference(x, self.pool_size, self.dilation)

    def extra_repr(self) -> str:
        """Show the window in ``print(model)``."""
        dilated = f', dilation={self.dilation}' if self.dilation > 1 else ''
        return f'pool_size={self.pool_size}{dilated}'


class RandomMixing(nn.Module):
    """Mixing by a frozen random matrix (arXiv:2210.13452, eq. 5), on maps of any size.

    The matrix is ``softmax(rand(N, N))`` over its last dimension, for a square grid of N tokens: 14x14 in
    stage 3 and 7x7 in stage 4 of the paper's 224x224 images. It is drawn once and never trained, but it is
    part of the network and of its state dict.

    On a map of another size the tokens are first averaged onto that grid (adaptive average pooling), mixed,
    and brought back to the map by bilinear interpolation. At the paper's size both steps are the identity;
    at every size each output is a convex combination of the input's tokens, as in the paper, and the cost is
    linear in the number of tokens.

    Args:
        dim (int): Channels; unused, common to all mixers.
        num_tokens (int): Tokens N of the grid, a square number.

    Raises:
        UsageError: ``num_tokens`` is not a square.
    """

    def __init__(self, dim: int, num_tokens: int) -> None:
        super().__init__()
        if not is_integer(num_tokens) or math.isqrt(num_tokens) ** 2 != num_tokens:
            raise UsageError(f'num_tokens={num_tokens!r} is no square grid: give a square number such as 196')
        self.grid_size = math.isqrt(num_tokens)
        self.random_matrix = nn.Parameter(
            torch.softmax(torch.rand(num_tokens, num_tokens), dim=-1), requires_grad=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``(B, C, H, W)``."""
        return _mix_randomly(x, self.random_matrix, self.grid_size)

    def extra_repr(self) -> str:
        """Show the grid in ``print(model)``."""
        return f'grid={self.grid_size}x{self.grid_size}'


def _mix_randomly(x: Tensor, matrix: Tensor, side: int) -> Tensor:
    size, grid = x.shape[-2:], (side, side)
    if size != grid:
        x = F.adaptive_avg_pool2d(x, grid)
    tokens = x.flatten(2).transpose(1, 2)
    # In this order the strides identify even a single image as channels last.
    x = (matrix @ tokens).unflatten(1, grid).permute(0, 3, 1, 2)
    if size != grid:
        x = F.interpolate(x, size, mode='bilinear', align_corners=False)
    return x


class SepConv(nn.Module):
    """Inverted separable convolution (arXiv:2210.13452, eq. 6): pointwise, activation, depthwise, pointwise.

    Args:
        dim (int): Channels C.
        expansion_ratio (float): Width of the inner part over C. Defaults to 2.
        kernel_size (int): Side of the depthwise kernel, odd. Defaults to 7.
        act (str | dict): Activation, see :func:`build_activation`. Defaults to ``'StarReLU'``.
        bias (bool): Whether the convolutions have biases. Defaults to False.
        dilation (int): Dilation of the depthwise kernel. Defaults to 1.

    Raises:
        UsageError: ``kernel_size`` is even or not positive.
    """

    def __init__(
        self,
        dim: int,
        expansion_ratio: float = 2,
        kernel_size: int = 7,
        act: str | dict = 'StarReLU',
        bias: bool = False,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        if not is_integer(kernel_size) or kernel_size % 2 == 0:
            raise UsageError(
                f'kernel_size={kernel_size!r} would change the size of the map: give an odd, positive number'
            )
        if not is_number(expansion_ratio) or int(expansion_ratio * dim) < 1:
            raise UsageError(
                f'expansion_ratio={expansion_ratio!r} leaves no channels of {dim}: give a positive number'
            )
        hidden = int(expansion_ratio * dim)
        self.pwconv1 = nn.Linear(dim, hidden, bias=bias)
        self.act = build_activation(act)
        padding = dilation * (kernel_size // 2)
        self.dwconv = nn.Conv2d(
            hidden, hidden, kernel_size, padding=padding, dilation=dilation, groups=hidden, bias=bias
        )
        self.pwconv2 = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``(B, C, H, W)``."""
        hidden = self.act(call_linear(self.pwconv1, channels_last(x)))
        mixed = call_linear(self.dwconv, channels_first(hidden))
        return channels_first(self.pwconv2(channels_last(mixed)))


class Attention(nn.Module):
    """Vanilla multi-head self-attention without positional terms, over all positions or over windows.

    Windows change no parameter: weights trained with global attention load, and vice versa. See
    :func:`~mmmeta.models.ops.windows.plan_windows` for the definition of the windows.

    Args:
        dim (int): Channels C, a multiple of ``head_dim``.
        head_dim (int): Channels of a head. Defaults to 32.
        bias (bool): Whether the projections have biases. Defaults to False.
        window (int | tuple[int, int] | None): Side of the window, or its height and width, in tokens; odd in
            mode ``'slide'``. A map that the window covers is attended to as a whole. Defaults to None, global
            attention.
        border (str): What a sliding window does at the border: ``'shift'`` inwards, so that it always has
            the same number of keys, or ``'truncate'``. Defaults to ``'shift'``.
        window_mode (str): ``'slide'``, a window around each query, or ``'block'``, windows beside each other.
            Defaults to ``'slide'``.
        backend (str): ``'sdpa'``, PyTorch's fused attention, or ``'natten'``, the kernels of an installed
            NATTEN, on GPUs, for shifted sliding windows. Defaults to ``'sdpa'``.

    Raises:
        UsageError: ``dim`` is not a multiple of ``head_dim``, a value is not one of those that its argument
            takes, or NATTEN cannot be used.
    """

    def __init__(
        self,
        dim: int,
        head_dim: int = 32,
        bias: bool = False,
        window: int | tuple[int, int] | None = None,
        border: str = 'shift',
        window_mode: str = 'slide',
        backend: str = 'sdpa',
    ) -> None:
        super().__init__()
        if not is_integer(head_dim) or dim % head_dim:
            raise UsageError(f'head_dim={head_dim!r} does not divide the {dim} channels: choose a divisor')
        self.head_dim = head_dim
        self.window = None if window is None else resolve_window(window, window_mode, border)
        self.border = border
        self.window_mode = window_mode
        self.backend = backend
        check_choice('backend', backend, BACKENDS)
        if backend == 'natten':
            check_natten(self.window, window_mode, border)
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.proj = nn.Linear(dim, dim, bias=bias)

    @property
    def window_rule(self) -> WindowRule:
        """The windows."""
        return WindowRule(self.window, self.window_mode, self.border, self.backend)

    def is_global(self, height: int, width: int) -> bool:
        """Whether attention on a map of that size is global."""
        return is_global(self.window, height, width)

    def plan(self, x: Tensor) -> WindowPlan | None:
        """Plan the windows of ``(B, C, H, W)``; None where no plan is needed.

        Layers with the same windows share the plan of a map: see ``forward``.
        """
        return plan_for(x, self.window_rule, self.head_dim)

    def forward(self, x: Tensor, plan: WindowPlan | None = None) -> Tensor:
        """Mix ``(B, C, H, W)``, with the plan of a layer with the same windows or its own."""
        qkv = call_linear(self.qkv, channels_last(x))
        return channels_first(self.proj(attention(qkv, self.window_rule, self.head_dim, plan)))

    def extra_repr(self) -> str:
        """Show the head width and the windows in ``print(model)``."""
        text = f'head_dim={self.head_dim}'
        if self.window is None:
            return text
        rule = self.border if self.window_mode == 'slide' else self.window_mode
        return f'{text}, window={self.window[0]}x{self.window[1]}, {rule}, {self.backend}'


def takes_plan(mixer: nn.Module | None) -> TypeGuard[Attention]:
    """Return whether a token mixer runs :meth:`Attention.forward`, which takes the plan of its windows.

    Subclasses with a ``forward`` of their own need not take one: they plan their windows themselves.
    """
    return isinstance(mixer, Attention) and type(mixer).forward is Attention.forward


TOKEN_MIXERS = {
    'identity': Identity,
    'pooling': Pooling,
    'random_mixing': RandomMixing,
    'sep_conv': SepConv,
    'attention': Attention,
}
