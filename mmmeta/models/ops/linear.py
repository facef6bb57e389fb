"""Linear maps: over the channels of each position, and convolutions."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .recompute import linear_map


class _Convolution(NamedTuple):
    """A convolution; see :func:`torch.nn.functional.conv2d`."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, *self)

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rest = self.stride, self.padding, self.dilation, False, (0, 0), self.groups
        return torch.ops.aten.convolution_backward(grad, x, weight, [len(weight)], *rest, needed)


class _MatrixProduct:
    """A linear map over the channels of each position."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)

    @staticmethod
    def backward(
        grad: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        grad = grad.permute(0, 2, 3, 1)
        rows = grad.flatten(0, 2)
        return (
            (grad @ weight).permute(0, 3, 1, 2) if needed[0] else None,
            rows.t() @ x.permute(0, 2, 3, 1).flatten(0, 2) if needed[1] else None,
            rows.sum(0) if needed[2] else None,
        )


def _runs_as_convolution(x: Tensor) -> bool:
    """Whether a linear map over channels is faster as a 1x1 convolution: by oneDNN, in half the time."""
    return x.device.type == 'cpu'


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map the channels of each position.

    Args:
        x (Tensor): ``(B, C_in, H, W)``.
        weight (Tensor): ``(C_out, C_in)``.
        bias (Tensor | None): ``(C_out,)``.

    Returns:
        Tensor: ``(B, C_out, H, W)``.
    """
    if _runs_as_convolution(x):
        return linear_map(_Convolution(), x, weight[:, :, None, None], bias)
    return linear_map(_MatrixProduct(), x, weight, bias)


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """Convolve, as :func:`torch.nn.functional.conv2d`, whose arguments these are.

    Args:
        x (Tensor): ``(B, C_in, H, W)``.
        weight (Tensor): ``(C_out, C_in / groups, kernel height, kernel width)``.
        bias (Tensor | None): ``(C_out,)``.
        stride (tuple[int, int]): Along height and width, as the following two.
        padding (tuple[int, int]): Zeros around the map.
        dilation (tuple[int, int]): Distance of the positions that are read.
        groups (int): Groups of channels.

    Returns:
        Tensor: ``(B, C_out, H', W')``.
    """
    if weight.shape[1] == 1:
        # Reshaped twice, so that the gradient has the strides of the weight: kernels change
        # strides of dimensions of size one, for which DistributedDataParallel warns and copies.
        weight = weight.flatten().view(weight.shape)
    return linear_map(_Convolution(stride, padding, dilation, groups), x, weight, bias)
