"""Convolution of resized maps, computed at their original resolution.

Heads that merge a pyramid resize its maps to the finest one, concatenate them and convolve the whole; nearly
all of the arithmetic is then redundant. Resizing and convolving are linear: each tap of the kernel is a
linear map over channels, which may run before resizing, and resizing shifted by the tap is a linear map
along each axis.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor


def _resized_taps(length: int, size: int, taps: int, align_corners: bool, like: Tensor) -> Tensor:
    """Interpolation matrices of an axis, shifted by each tap of a kernel: ``(taps, size, length)``."""
    identity = torch.eye(length, device=like.device, dtype=like.dtype)[None]
    resized = F.interpolate(identity, size=size, mode='linear', align_corners=align_corners)[0]
    padded = F.pad(resized, (taps // 2, taps // 2))
    return torch.stack([padded[:, tap : tap + size].t() for tap in range(taps)])


def conv_resized(x: Tensor, weight: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Compute ``conv2d(interpolate(x, size, mode='bilinear'), weight, padding='same')``.

    Args:
        x (Tensor): A map, ``(B, C, h, w)``.
        weight (Tensor): Kernel, ``(O, C, k, k)`` with odd k.
        size (tuple[int, int]): Height H and width W that the map is resized to.
        align_corners (bool): As :func:`torch.nn.functional.interpolate` takes it. Defaults to False.

    Returns:
        Tensor: ``(B, O, H, W)``, channels last in memory.
    """
    _, channels, h, w = x.shape
    height, width = size
    out_channels, _, taps, _ = weight.shape
    # Each product reads the previous output without a copy: (tap of y, y, x, tap of x, channel), after the
    # first two of them (tap of y, y, X, channel), and (Y, X, channel).
    kernel = weight.permute(2, 1, 3, 0).reshape(taps, channels, taps * out_channels)
    columns = _resized_taps(w, width, taps, align_corners, x).permute(1, 2, 0).reshape(width, w * taps)
    rows = _resized_taps(h, height, taps, align_corners, x).permute(1, 0, 2).reshape(height, taps * h)
    outs = []
    for tokens in x.permute(0, 2, 3, 1).flatten(1, 2):
        values = torch.stack([tokens @ kernel[tap] for tap in range(taps)])
        values = columns @ values.view(taps * h, w * taps, out_channels)
        values = rows @ values.view(taps * h, width * out_channels)
        outs.append(values.view(height, width, out_channels))
    return torch.stack(outs).permute(0, 3, 1, 2)


def conv_pyramid(
    maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None = None, align_corners: bool = False
) -> Tensor:
    """Convolve the concatenation of maps, all resized to the size of the first.

    Args:
        maps (Sequence[Tensor]): Maps, ``(B, C_i, H_i, W_i)``.
        weight (Tensor): Kernel, ``(O, sum of C_i, k, k)`` with odd k; the stride is 1 and borders are padded.
        bias (Tensor | None): ``(O,)``. Defaults to None.
        align_corners (bool): As :func:`torch.nn.functional.interpolate` takes it. Defaults to False.

    Returns:
        Tensor: ``(B, O, H_0, W_0)``.
    """
    size = maps[0].shape[2:]
    # By slices: exporters fold what has one output alone, and eight bits need weights that are constants.
    ends = list(accumulate(x.shape[1] for x in maps))
    kernels = [weight[:, end - x.shape[1] : end] for x, end in zip(maps, ends, strict=True)]
    out = F.conv2d(maps[0], kernels[0], bias, padding='same')
    for x, kernel in zip(maps[1:], kernels[1:], strict=True):
        if x.shape[2:] == size:
            out += F.conv2d(x, kernel, padding='same')
        else:
            out += conv_resized(x, kernel, size, align_corners)
    return out
