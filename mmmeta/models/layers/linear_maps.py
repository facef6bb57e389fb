"""The linear maps that a MetaFormer block is made of: over channels, and over positions of a channel."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


class Pointwise(nn.Linear):
    """A linear map over the channels of a feature map; one weight layout, ``(C_out, C_in)``, everywhere.

    Args:
        in_features (int): Channels in.
        out_features (int): Channels out.
        bias (bool): Whether to add a bias. Defaults to True.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C_in, H, W)`` to ``(B, C_out, H, W)``, channels last in memory."""
        if _runs_as_convolution(x):
            return linear_map(_Convolution(), x, self.weight[:, :, None, None], self.bias)
        return linear_map(_MatrixProduct(), x, self.weight, self.bias)


class Conv2d(nn.Conv2d):
    """PyTorch's ``Conv2d``, which can recompute its input in backward. Arguments are those of PyTorch's."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C_in, H, W)`` to ``(B, C_out, H', W')``."""
        weight = self.weight
        if weight.shape[1] == 1:
            # Reshaped twice, so that the gradient has the strides of the weight: kernels
            # change strides of dimensions of size one, for which DistributedDataParallel warns and copies.
            weight = weight.flatten().view(weight.shape)
        op = _Convolution(self.stride, self.padding, self.dilation, self.groups)
        return linear_map(op, x, weight, self.bias)
