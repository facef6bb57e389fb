"""Pooling to a fixed number of bins from maps of any size, for export."""

import torch
from torch import Tensor, nn


class MatrixAdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """``nn.AdaptiveAvgPool2d`` as a matrix along each axis.

    Exporters translate the original for the size that they trace alone, and what they write for others is
    wrong without an error.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pool maps, ``(B, C, H, W)``."""
        size = self.output_size
        rows, columns = (size, size) if isinstance(size, int) else size
        along_rows = _bins(x.shape[2] if rows is None else rows, x.shape[2], x)
        along_columns = _bins(x.shape[3] if columns is None else columns, x.shape[3], x)
        return along_rows @ x @ along_columns.t()


def _bins(count: int, length: int, x: Tensor) -> Tensor:
    """Means of bins as a matrix, ``(count, length)``."""
    number = torch.arange(count, device=x.device)[:, None]
    place = torch.arange(length, device=x.device)
    first = torch.div(number * length, count, rounding_mode='floor')
    end = torch.div((number + 1) * length + count - 1, count, rounding_mode='floor')
    inside = ((place >= first) & (place < end)).to(x.dtype)
    return inside / inside.sum(1, keepdim=True)
