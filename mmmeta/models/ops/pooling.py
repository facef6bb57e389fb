"""Average pooling minus its input.

Forms: ``reference``, by autograd; ``transposed``, with a gradient of its own that needs nothing kept.
"""

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from . import dispatch
from .state import apply


def pooling_difference(x: Tensor, size: int, dilation: int = 1) -> Tensor:
    """Average windows, whose part beyond the border is left out of the mean, and subtract the input.

    Args:
        x (Tensor): ``(B, C, H, W)``.
        size (int): Side of the windows, odd.
        dilation (int): Distance of the pixels that are averaged. Defaults to 1.

    Returns:
        Tensor: ``(B, C, H, W)``.
    """
    if dispatch.pooling() == 'reference':
        # Contiguous, since `avg_pool2d_backward` is wrong on GPUs for maps with channels last.
        return _difference(x.contiguous(), size, dilation)
    return apply(_PoolingDifference, x, size, dilation)


def _difference(x: Tensor, size: int, dilation: int) -> Tensor:
    if dilation == 1:
        return F.avg_pool2d(x, size, stride=1, padding=size // 2, count_include_pad=False) - x
    mean = partial(_mean_with_zeros, size=size, dilation=dilation)
    return mean(x) / mean(x.new_ones(1, 1, *x.shape[2:])) - x


def _mean_with_zeros(x: Tensor, size: int, dilation: int) -> Tensor:
    """Mean over windows, of zeros beyond the border; a dilated one over each grid of pixels it connects."""
    if dilation == 1:
        return F.avg_pool2d(x, size, stride=1, padding=size // 2)
    height, width = x.shape[2:]
    grids = F.pixel_unshuffle(F.pad(x, (0, -width % dilation, 0, -height % dilation)), dilation)
    return F.pixel_shuffle(_mean_with_zeros(grids, size, 1), dilation)[..., :height, :width]


class _PoolingDifference(Function):
    """:func:`_difference`: linear, so nothing is kept for backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, size: int, dilation: int) -> Tensor:
        return _difference(x, size, dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.window = inputs[1:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # A mean is a sum over the number of pixels that it covers, and the transpose of the sum is the sum.
        # Not `avg_pool2d_backward`, which is wrong on GPUs for maps with channels last.
        covered = _mean_with_zeros(grad.new_ones(1, 1, *grad.shape[2:]), *ctx.window)
        return _mean_with_zeros(grad / covered, *ctx.window) - grad, None, None
