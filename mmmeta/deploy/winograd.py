"""3x3 convolutions with a quarter of the products.

Winograd's minimal filtering F(4x4, 3x3), after Lavin and Gray, *Fast Algorithms for Convolutional Neural
Networks* (arXiv:1509.09308): 36 products for a tile of 4x4 outputs in place of 144. cuDNN does the same on
GPUs; PyTorch's kernels on CPUs do not.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .acceleration import runs_plainly
from .chunks import chunk_rows

# A tile of outputs, and the tile of inputs that it depends on.
OUT, IN = 4, 6
# Where polynomials are evaluated, beside infinity. With 1/2 and -2 errors are at most 3.3e-6 of the largest
# output (256 channels), with 1/2 and -1/2, or 2 and -2, 1.1e-5. PyTorch's own convolution has 2.3e-6 with
# AVX2 and 3e-7 with AVX-512.
POINTS = (0, 1, -1, 1 / 2, -2)
# The smallest map that it is used for, in positions, and the smallest number of channels: below, transforms
# take as long as what they save.
MIN_POSITIONS = 4096
MIN_CHANNELS = 128


def _evaluations(terms: int) -> Tensor:
    """Powers of the points, ``(6, terms)``; the last row is for infinity."""
    rows = [[float(point) ** power for power in range(terms)] for point in POINTS]
    return torch.tensor([*rows, [0.0] * (terms - 1) + [1.0]], dtype=torch.float64, device='cpu')


def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """What maps inputs ``(36, 36)``, kernels ``(36, 9)`` and products ``(16, 36)``, tiles being flat."""
    of_inputs = torch.linalg.inv(_evaluations(IN)).t()
    # Kernels take what would make inputs larger.
    scale = of_inputs.abs().amax(1, keepdim=True)
    of_inputs, of_kernels, of_products = of_inputs / scale, _evaluations(3) * scale, _evaluations(OUT).t()
    return tuple(
        torch.kron(matrix, matrix).float()
        for matrix in map(Tensor.contiguous, (of_inputs, of_kernels, of_products))
    )


OF_INPUTS, OF_KERNELS, OF_PRODUCTS = _transforms()


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``conv2d(x, weight, bias, padding=1)`` on a CPU, in float32 and without gradients.

    A few rows of tiles at a time, so that what lies between the transforms stays in the cache.

    Args:
        x (Tensor): A map, ``(B, C, H, W)``.
        weight (Tensor): Kernel, ``(O, C, 3, 3)``.
        bias (Tensor | None): ``(O,)``. Defaults to None.

    Returns:
        Tensor: ``(B, O, H, W)``, in the memory format of the map.
    """
    batch, channels, height, width = x.shape
    out_channels = len(weight)
    tiles_y, tiles_x = -(-height // OUT), -(-width // OUT)
    rows = chunk_rows(tiles_y, x[:1, 0, 0, ::OUT], IN * IN * max(channels, out_channels))
    tiles, step = rows * tiles_x, OUT * rows
    kernel = OF_KERNELS @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    kernel = kernel.view(IN * IN, channels, out_channels)

    is_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    out = torch.empty(
        (batch, out_channels, height, width),
        dtype=x.dtype,
        memory_format=torch.channels_last if is_last else torch.contiguous_format,
    )
    # The same memory for all strips; what is left and right of the map stays zero.
    strip = x.new_zeros(step + 2, OUT * tiles_x + 2, channels)
    down, right, _ = strip.stride()
    overlapping = strip.as_strided(
        (IN, IN, rows, tiles_x, channels), (down, right, OUT * down, OUT * right, 1)
    )
    gathered = x.new_empty(IN, IN, rows, tiles_x, channels)
    inputs = x.new_empty(IN * IN, tiles * channels)
    products = x.new_empty(IN * IN, tiles, out_channels)
    outputs = x.new_empty(OUT * OUT, tiles * out_channels)
    tile_map = outputs.view(OUT, OUT, rows, tiles_x, out_channels).permute(4, 2, 0, 3, 1)
    for image, out_image in zip(x, out, strict=True):
        for top in range(0, height, step):
            bottom = min(top + step, height)
            first, last = max(top - 1, 0), min(bottom + 1, height)
            start = first - top + 1
            stop = start + last - first
            strip[:start] = 0
            strip[stop:] = 0
            strip[start:stop, 1 : width + 1] = image[:, first:last].permute(1, 2, 0)
            gathered.copy_(overlapping)
            torch.mm(OF_INPUTS, gathered.view(IN * IN, -1), out=inputs)
            torch.bmm(inputs.view(IN * IN, tiles, channels), kernel, out=products)
            torch.mm(OF_PRODUCTS, products.view(IN * IN, -1), out=outputs)
            if bias is not None:
                outputs.view(-1, out_channels).add_(bias)
            rows_out = out_image[:, top:bottom]
            if rows_out.shape[1:] == (step, OUT * tiles_x):
                rows_out.unflatten(1, (rows, OUT)).unflatten(3, (tiles_x, OUT)).copy_(tile_map)
            else:
                rows_out.copy_(tile_map.reshape(out_channels, step, -1)[:, : bottom - top, :width])
    return out


def should_use_winograd(x: Tensor, weight: Tensor) -> bool:
    """Whether :func:`conv3x3` may take the place of a convolution, and is faster."""
    return (
        not runs_plainly(x)
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled('cpu')
        and x.ndim == 4
        and weight.shape[2:] == (3, 3)
        and x.shape[2] * x.shape[3] >= MIN_POSITIONS
        and min(weight.shape[:2]) >= MIN_CHANNELS
    )


def conv_same(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``conv2d(x, weight, bias, padding='same')``, with fewer products where that is faster.

    Args:
        x (Tensor): A map, ``(B, C, H, W)``.
        weight (Tensor): Kernel, ``(O, C, k, k)`` with odd k.
        bias (Tensor | None): ``(O,)``. Defaults to None.
    """
    if should_use_winograd(x, weight):
        return conv3x3(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2)


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution with fewer products, see :func:`conv3x3`, on float32 maps that are large enough."""

    @staticmethod
    def replaces(conv: nn.Conv2d) -> bool:
        """Whether a convolution is one that :func:`conv3x3` computes, and wide enough to gain."""
        kind = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode
        return (
            kind == ((3, 3), (1, 1), (1, 1), (1, 1), 1, 'zeros')
            and min(conv.in_channels, conv.out_channels) >= MIN_CHANNELS
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C_in, H, W)`` to ``(B, C_out, H, W)``."""
        return conv_same(x, self.weight, self.bias)
