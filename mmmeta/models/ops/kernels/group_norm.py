"""Group norm with one group, over maps with channels last.

PyTorch's kernel takes one block of threads for the statistics of an image, and copies the map to channels
first. Here an image is cut into chunks of positions, and nothing is copied. No program adds to what another
one wrote, so that results do not depend on the order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import divide_up, next_power_of_2, on_its_device

# Elements that a program holds at a time; programs for one image at most.
BLOCK, MAX_CHUNKS = 4096, 256
NUM_WARPS = 8


@triton.jit
def _rows(start, positions, channels, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Offsets into an image of some positions, all their channels, and which of them exist."""
    rows, lanes = start + tl.arange(0, ROWS), tl.arange(0, LANES)
    mask = (rows < positions)[:, None] & (lanes < channels)[None, :]
    return rows[:, None] * channels + lanes[None, :], mask


@triton.jit
def _moments(x, parts, positions, channels, length, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Count, mean and sum of squared differences of a chunk."""
    x += tl.program_id(1).to(tl.int64) * positions * channels
    first = tl.program_id(0) * length
    count, mean, squares = 0.0, 0.0, 0.0
    for start in range(first, tl.minimum(first + length, positions), ROWS):
        offsets, mask = _rows(start, tl.minimum(first + length, positions), channels, ROWS, LANES)
        values = tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32)
        new = tl.sum(mask.to(tl.float32))
        new_mean = tl.sum(values) / new
        centred = tl.where(mask, values - new_mean, 0.0)
        # Chan et al., Algorithms for computing the sample variance, 1983: of two sets together.
        apart, together = new_mean - mean, count + new
        squares += tl.sum(centred * centred) + apart * apart * (count * new / together)
        mean += apart * (new / together)
        count = together
    part = parts + (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)) * 3
    tl.store(part, count)
    tl.store(part + 1, mean)
    tl.store(part + 2, squares)


@triton.jit
def _normalise(
    x, parts, weight, bias, y, stats, positions, channels, length, eps,
    HAS_BIAS: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    chunk = tl.arange(0, CHUNKS)
    exists = chunk < tl.num_programs(0)
    part = parts + (tl.program_id(1) * tl.num_programs(0) + chunk) * 3
    counts = tl.load(part, mask=exists, other=0.0)
    means = tl.load(part + 1, mask=exists, other=0.0)
    squares = tl.load(part + 2, mask=exists, other=0.0)
    total = tl.sum(counts)
    mean = tl.sum(means * counts) / total
    variance = (tl.sum(squares) + tl.sum(counts * (means - mean) * (means - mean))) / total
    scale = 1 / tl.sqrt(variance + eps)
    tl.store(stats + tl.program_id(1) * 2, mean, mask=tl.program_id(0) == 0)
    tl.store(stats + tl.program_id(1) * 2 + 1, scale, mask=tl.program_id(0) == 0)
    _scale_rows(
        x, weight, bias, y, mean, scale, positions, channels, length, HAS_BIAS, ROWS, LANES
    )  # fmt: skip


@triton.jit
def _normalise_again(
    x, stats, weight, bias, y, positions, channels, length,
    HAS_BIAS: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    mean = tl.load(stats + tl.program_id(1) * 2)
    scale = tl.load(stats + tl.program_id(1) * 2 + 1)
    _scale_rows(
        x, weight, bias, y, mean, scale, positions, channels, length, HAS_BIAS, ROWS, LANES
    )  # fmt: skip


@triton.jit
def _scale_rows(
    x, weight, bias, y, mean, scale, positions, channels, length,
    HAS_BIAS: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Write a chunk, normalised."""
    x += tl.program_id(1).to(tl.int64) * positions * channels
    y += tl.program_id(1).to(tl.int64) * positions * channels
    lanes = tl.arange(0, LANES)
    w = tl.load(weight + lanes, mask=lanes < channels, other=0.0).to(tl.float32)
    b = tl.zeros([LANES], tl.float32)
    if HAS_BIAS:
        b = tl.load(bias + lanes, mask=lanes < channels, other=0.0).to(tl.float32)
    first = tl.program_id(0) * length
    last = tl.minimum(first + length, positions)
    for start in range(first, last, ROWS):
        offsets, mask = _rows(start, last, channels, ROWS, LANES)
        values = tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32)
        result = (values - mean) * scale * w[None, :] + b[None, :]
        tl.store(y + offsets, result.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _sum_gradients(
    x, grad, stats, sums, positions, channels, length, ROWS: tl.constexpr, LANES: tl.constexpr
):  # fmt: skip
    """For each channel of a chunk: the sum of gradients times normalised values, and of gradients."""
    x += tl.program_id(1).to(tl.int64) * positions * channels
    grad += tl.program_id(1).to(tl.int64) * positions * channels
    mean = tl.load(stats + tl.program_id(1) * 2)
    scale = tl.load(stats + tl.program_id(1) * 2 + 1)
    first = tl.program_id(0) * length
    last = tl.minimum(first + length, positions)
    of_weight, of_bias = tl.zeros([LANES], tl.float32), tl.zeros([LANES], tl.float32)
    for start in range(first, last, ROWS):
        offsets, mask = _rows(start, last, channels, ROWS, LANES)
        values = tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32)
        grads = tl.load(grad + offsets, mask=mask, other=0.0).to(tl.float32)
        of_weight += tl.sum(grads * ((values - mean) * scale), 0)
        of_bias += tl.sum(grads, 0)
    lanes = tl.arange(0, LANES)
    row = sums + (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * 2 * channels
    tl.store(row + lanes, of_weight, mask=lanes < channels)
    tl.store(row + channels + lanes, of_bias, mask=lanes < channels)


@triton.jit
def _differentiate_norm(
    x, grad, stats, sums, weight, grad_x, positions, channels, length,
    ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    x += tl.program_id(1).to(tl.int64) * positions * channels
    grad += tl.program_id(1).to(tl.int64) * positions * channels
    grad_x += tl.program_id(1).to(tl.int64) * positions * channels
    lanes = tl.arange(0, LANES)
    w = tl.load(weight + lanes, mask=lanes < channels, other=0.0).to(tl.float32)
    mean = tl.load(stats + tl.program_id(1) * 2)
    scale = tl.load(stats + tl.program_id(1) * 2 + 1)
    # Of the image: gradients of the normalised values, times these, and alone.
    row = sums + tl.program_id(1) * 2 * channels
    size = (positions * channels).to(tl.float32)
    product = tl.sum(w * tl.load(row + lanes, mask=lanes < channels, other=0.0)) / size
    plain = tl.sum(w * tl.load(row + channels + lanes, mask=lanes < channels, other=0.0)) / size
    first = tl.program_id(0) * length
    last = tl.minimum(first + length, positions)
    for start in range(first, last, ROWS):
        offsets, mask = _rows(start, last, channels, ROWS, LANES)
        values = tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32)
        grads = tl.load(grad + offsets, mask=mask, other=0.0).to(tl.float32)
        normalised = (values - mean) * scale
        result = scale * (grads * w[None, :] - plain - normalised * product)
        tl.store(grad_x + offsets, result.to(grad_x.dtype.element_ty), mask=mask)


def _layout(x: Tensor) -> tuple[tuple[int, int], tuple[int, int, int], dict]:
    """Grid, positions, channels and positions of a chunk, and sizes of a tile."""
    batch, channels, height, width = x.shape
    lanes = next_power_of_2(channels)
    rows = max(1, BLOCK // lanes)
    positions = height * width
    chunks = min(MAX_CHUNKS, divide_up(positions, rows))
    length = divide_up(positions, chunks)
    chunks = divide_up(positions, length)
    return (chunks, batch), (positions, channels, length), dict(ROWS=rows, LANES=lanes, num_warps=NUM_WARPS)


@on_its_device
def normalise_maps(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Group norm with one group.

    Args:
        x (Tensor): ``(B, C, H, W)``; copied unless its channels are last in memory.
        weight (Tensor): ``(C,)``.
        bias (Tensor | None): ``(C,)``.
        eps (float): Added to the variance.
        dtype (torch.dtype): Of the result; inside it is float32.

    Returns:
        tuple[Tensor, Tensor]: The result, and mean and inverse standard deviation of each image, ``(B, 2)``.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    grid, sizes, options = _layout(x)
    y = torch.empty_like(x, dtype=dtype)
    parts, stats = (x.new_empty(*shape, dtype=torch.float32) for shape in ((*grid, 3), (len(x), 2)))
    _moments[grid](x, parts, *sizes, **options)
    chunks = next_power_of_2(grid[0])
    has_bias = bias is not None
    _normalise[grid](x, parts, weight, bias, y, stats, *sizes, eps, has_bias, CHUNKS=chunks, **options)
    return y, stats


@on_its_device
def normalise_maps_again(
    x: Tensor, weight: Tensor, bias: Tensor | None, stats: Tensor, dtype: torch.dtype
) -> Tensor:
    """The result of :func:`normalise_maps`, from its second one."""
    x = x.contiguous(memory_format=torch.channels_last)
    grid, sizes, options = _layout(x)
    y = torch.empty_like(x, dtype=dtype)
    _normalise_again[grid](x, stats, weight, bias, y, *sizes, bias is not None, **options)
    return y


@on_its_device
def normalise_maps_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stats: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, and in float32 of weight and bias.

    Args:
        grad (Tensor): Gradient of the result.
        x (Tensor): The input.
        weight (Tensor): The weight.
        stats (Tensor): Second result of :func:`normalise_maps`.
    """
    x, grad = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, grad))
    grid, sizes, options = _layout(x)
    chunks, batch = grid
    sums = x.new_empty(batch, chunks, 2, x.shape[1], dtype=torch.float32)
    _sum_gradients[grid](x, grad, stats, sums, *sizes, **options)
    of_images = sums.sum(1)
    grad_x = torch.empty_like(x)
    _differentiate_norm[grid](x, grad, stats, of_images, weight, grad_x, *sizes, **options)
    of_weight, of_bias = of_images.sum(0)
    return grad_x, of_weight, of_bias
