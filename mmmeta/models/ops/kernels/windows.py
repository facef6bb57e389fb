"""Attention in windows as a flash kernel: keys are read where they are, nothing is gathered.

A program attends from a tile of queries to the rectangle of keys around it, in blocks, with a running softmax
as in FlashAttention-2 (arXiv:2307.08691). What a query sees along an axis follows from its position, so there
are no indices and no mask in memory. In backward one kernel computes the gradient of the queries and another
one that of keys and values, for a tile of keys and the rectangle of queries that see them: no program adds to
what another one wrote, so that gradients do not depend on the order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import divide_up, next_power_of_2, on_its_device

# What :func:`_first_key` and the functions beside it know, for ``MODE``.
MODES = {('slide', 'shift'): 0, ('slide', 'truncate'): 1, ('block', 'shift'): 2, ('block', 'truncate'): 2}
SHIFT, TRUNCATE = tl.constexpr(0), tl.constexpr(1)
# Side of a tile of queries or keys.
TILE = 8
# How many of the others are multiplied at a time, and by how many warps: on tensor cores, and in float32, for
# which the former would not fit into the registers.
BLOCK, NUM_WARPS = 64, 4
FLOAT32_BLOCK, FLOAT32_NUM_WARPS = 32, 8
NUM_STAGES = 2
# Scores below those of any key, whose exponentials vanish. Not infinity, whose differences are no numbers.
MASKED = tl.constexpr(-1.0e30)
LOG2_E = 1.4426950408889634


@triton.jit
def _first_key(query, length, WINDOW: tl.constexpr, MODE: tl.constexpr):
    if MODE == SHIFT:
        return tl.maximum(tl.minimum(query - WINDOW // 2, length - WINDOW), 0)
    elif MODE == TRUNCATE:
        return tl.maximum(query - WINDOW // 2, 0)
    else:
        return query // WINDOW * WINDOW


@triton.jit
def _last_key(query, length, WINDOW: tl.constexpr, MODE: tl.constexpr):
    if MODE == TRUNCATE:
        return tl.minimum(query + (WINDOW - 1) // 2, length - 1)
    else:
        return tl.minimum(_first_key(query, length, WINDOW, MODE) + WINDOW - 1, length - 1)


@triton.jit
def _first_query(key, length, WINDOW: tl.constexpr, MODE: tl.constexpr):
    if MODE == SHIFT:  # all queries at the border share its window
        return tl.where(key < WINDOW, 0, key - (WINDOW - 1) // 2)
    elif MODE == TRUNCATE:
        return tl.maximum(key - (WINDOW - 1) // 2, 0)
    else:
        return key // WINDOW * WINDOW


@triton.jit
def _last_query(key, length, WINDOW: tl.constexpr, MODE: tl.constexpr):
    if MODE == SHIFT:
        return tl.where(key >= length - WINDOW, length - 1, key + WINDOW // 2)
    elif MODE == TRUNCATE:
        return tl.minimum(key + WINDOW // 2, length - 1)
    else:
        return tl.minimum(key // WINDOW * WINDOW + WINDOW - 1, length - 1)


@triton.jit
def _is_seen(query, key, length, WINDOW: tl.constexpr, MODE: tl.constexpr):
    """Whether a query sees a key, along one axis."""
    first, last = _first_key(query, length, WINDOW, MODE), _last_key(query, length, WINDOW, MODE)
    return (first <= key) & (key <= last)


@triton.jit
def _tile(height, width, TILE: tl.constexpr):
    """Rows and columns of this program's tile, where it begins, and which of its tokens are on the map."""
    columns = tl.cdiv(width, TILE)
    y0, x0 = tl.program_id(0) // columns * TILE, tl.program_id(0) % columns * TILE
    tokens = tl.arange(0, TILE * TILE)
    y, x = y0 + tokens // TILE, x0 + tokens % TILE
    return y, x, y0, x0, (y < height) & (x < width)


@triton.jit
def _attend_forward(
    qkv, out, lse, height, width, heads, scale,
    WINDOW_Y: tl.constexpr, WINDOW_X: tl.constexpr, MODE: tl.constexpr, HEAD: tl.constexpr,
    LANES: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    channels = heads * HEAD
    image, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    qkv += image * height * width * 3 * channels + head * HEAD
    out += image * height * width * channels + head * HEAD
    lse += tl.program_id(1).to(tl.int64) * height * width
    lanes = tl.arange(0, LANES)
    qy, qx, y0, x0, inside = _tile(height, width, TILE)
    # Queries that stick out of the map copy the last one; they are not stored.
    qy, qx = tl.minimum(qy, height - 1), tl.minimum(qx, width - 1)
    rows = qy * width + qx
    query = tl.load(
        qkv + rows[:, None] * (3 * channels) + lanes[None, :], mask=lanes[None, :] < HEAD, other=0.0
    )

    top, left = _first_key(y0, height, WINDOW_Y, MODE), _first_key(x0, width, WINDOW_X, MODE)
    bottom = _last_key(tl.minimum(y0 + TILE, height) - 1, height, WINDOW_Y, MODE)
    right = _last_key(tl.minimum(x0 + TILE, width) - 1, width, WINDOW_X, MODE)
    span = right - left + 1
    count = (bottom - top + 1) * span
    largest = tl.full([TILE * TILE], MASKED, tl.float32)
    total = tl.zeros([TILE * TILE], tl.float32)
    result = tl.zeros([TILE * TILE, LANES], tl.float32)
    for start in range(0, count, BLOCK):
        index = start + tl.arange(0, BLOCK)
        ky, kx = top + index // span, left + index % span
        loaded = (index < count)[:, None] & (lanes[None, :] < HEAD)
        places = (ky * width + kx)[:, None] * (3 * channels) + lanes[None, :]
        key = tl.load(qkv + places + channels, mask=loaded, other=0.0)
        value = tl.load(qkv + places + 2 * channels, mask=loaded, other=0.0)
        seen = _is_seen(qy[:, None], ky[None, :], height, WINDOW_Y, MODE)
        seen &= _is_seen(qx[:, None], kx[None, :], width, WINDOW_X, MODE)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        scores = tl.where(seen, scores, MASKED)
        larger = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(weights, 1)
        result = tl.dot(weights.to(value.dtype), value, result * shrink[:, None], input_precision=PRECISION)
        largest = larger
    stored = inside[:, None] & (lanes[None, :] < HEAD)
    result = (result / total[:, None]).to(query.dtype)
    tl.store(out + rows[:, None] * channels + lanes[None, :], result, mask=stored)
    tl.store(lse + rows, largest + tl.log2(total), mask=inside)


@triton.jit
def _attend_backward_queries(
    qkv, out, grad, lse, delta, grad_qkv, height, width, heads, scale, log_2,
    WINDOW_Y: tl.constexpr, WINDOW_X: tl.constexpr, MODE: tl.constexpr, HEAD: tl.constexpr,
    LANES: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    channels = heads * HEAD
    image, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    qkv += image * height * width * 3 * channels + head * HEAD
    grad_qkv += image * height * width * 3 * channels + head * HEAD
    out += image * height * width * channels + head * HEAD
    grad += image * height * width * channels + head * HEAD
    lse += tl.program_id(1).to(tl.int64) * height * width
    delta += tl.program_id(1).to(tl.int64) * height * width
    lanes = tl.arange(0, LANES)
    qy, qx, y0, x0, inside = _tile(height, width, TILE)
    qy, qx = tl.minimum(qy, height - 1), tl.minimum(qx, width - 1)
    rows = qy * width + qx
    places = rows[:, None] * (3 * channels) + lanes[None, :]
    query = tl.load(qkv + places, mask=lanes[None, :] < HEAD, other=0.0)
    of_out = rows[:, None] * channels + lanes[None, :]
    grads = tl.load(grad + of_out, mask=lanes[None, :] < HEAD, other=0.0)
    outs = tl.load(out + of_out, mask=lanes[None, :] < HEAD, other=0.0)
    norm = tl.load(lse + rows)
    mean = tl.sum(grads.to(tl.float32) * outs.to(tl.float32), 1)
    tl.store(delta + rows, mean, mask=inside)

    top, left = _first_key(y0, height, WINDOW_Y, MODE), _first_key(x0, width, WINDOW_X, MODE)
    bottom = _last_key(tl.minimum(y0 + TILE, height) - 1, height, WINDOW_Y, MODE)
    right = _last_key(tl.minimum(x0 + TILE, width) - 1, width, WINDOW_X, MODE)
    span = right - left + 1
    count = (bottom - top + 1) * span
    result = tl.zeros([TILE * TILE, LANES], tl.float32)
    for start in range(0, count, BLOCK):
        index = start + tl.arange(0, BLOCK)
        ky, kx = top + index // span, left + index % span
        loaded = (index < count)[:, None] & (lanes[None, :] < HEAD)
        of_key = (ky * width + kx)[:, None] * (3 * channels) + lanes[None, :]
        key = tl.load(qkv + of_key + channels, mask=loaded, other=0.0)
        value = tl.load(qkv + of_key + 2 * channels, mask=loaded, other=0.0)
        seen = _is_seen(qy[:, None], ky[None, :], height, WINDOW_Y, MODE)
        seen &= _is_seen(qx[:, None], kx[None, :], width, WINDOW_X, MODE)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        weights = tl.exp2(tl.where(seen, scores, MASKED) - norm[:, None])
        of_weights = tl.dot(grads, tl.trans(value), input_precision=PRECISION)
        of_scores = weights * (of_weights - mean[:, None])
        result = tl.dot(of_scores.to(key.dtype), key, result, input_precision=PRECISION)
    stored = inside[:, None] & (lanes[None, :] < HEAD)
    tl.store(grad_qkv + places, (result * (scale * log_2)).to(query.dtype), mask=stored)


@triton.jit
def _attend_backward_keys(
    qkv, grad, lse, delta, grad_qkv, height, width, heads, scale, log_2,
    WINDOW_Y: tl.constexpr, WINDOW_X: tl.constexpr, MODE: tl.constexpr, HEAD: tl.constexpr,
    LANES: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    channels = heads * HEAD
    image, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    qkv += image * height * width * 3 * channels + head * HEAD
    grad_qkv += image * height * width * 3 * channels + head * HEAD
    grad += image * height * width * channels + head * HEAD
    lse += tl.program_id(1).to(tl.int64) * height * width
    delta += tl.program_id(1).to(tl.int64) * height * width
    lanes = tl.arange(0, LANES)
    ky, kx, y0, x0, inside = _tile(height, width, TILE)
    stored = inside[:, None] & (lanes[None, :] < HEAD)
    places = (ky * width + kx)[:, None] * (3 * channels) + lanes[None, :]
    key = tl.load(qkv + places + channels, mask=stored, other=0.0)
    value = tl.load(qkv + places + 2 * channels, mask=stored, other=0.0)

    top, left = _first_query(y0, height, WINDOW_Y, MODE), _first_query(x0, width, WINDOW_X, MODE)
    bottom = _last_query(tl.minimum(y0 + TILE, height) - 1, height, WINDOW_Y, MODE)
    right = _last_query(tl.minimum(x0 + TILE, width) - 1, width, WINDOW_X, MODE)
    span = right - left + 1
    count = (bottom - top + 1) * span
    of_key = tl.zeros([TILE * TILE, LANES], tl.float32)
    of_value = tl.zeros([TILE * TILE, LANES], tl.float32)
    for start in range(0, count, BLOCK):
        index = start + tl.arange(0, BLOCK)
        qy, qx = top + index // span, left + index % span
        rows = qy * width + qx
        loaded = (index < count)[:, None] & (lanes[None, :] < HEAD)
        query = tl.load(qkv + rows[:, None] * (3 * channels) + lanes[None, :], mask=loaded, other=0.0)
        grads = tl.load(grad + rows[:, None] * channels + lanes[None, :], mask=loaded, other=0.0)
        norm = tl.load(lse + rows, mask=index < count, other=0.0)
        mean = tl.load(delta + rows, mask=index < count, other=0.0)
        seen = _is_seen(qy[None, :], ky[:, None], height, WINDOW_Y, MODE)
        seen &= _is_seen(qx[None, :], kx[:, None], width, WINDOW_X, MODE)
        seen &= (index < count)[None, :]
        scores = tl.dot(key, tl.trans(query), input_precision=PRECISION) * scale
        weights = tl.exp2(tl.where(seen, scores, MASKED) - norm[None, :])
        of_value = tl.dot(weights.to(grads.dtype), grads, of_value, input_precision=PRECISION)
        of_weights = tl.dot(value, tl.trans(grads), input_precision=PRECISION)
        of_scores = weights * (of_weights - mean[None, :])
        of_key = tl.dot(of_scores.to(query.dtype), query, of_key, input_precision=PRECISION)
    tl.store(grad_qkv + places + channels, (of_key * (scale * log_2)).to(key.dtype), mask=stored)
    tl.store(grad_qkv + places + 2 * channels, of_value.to(key.dtype), mask=stored)


def _allows_tf32() -> bool:
    matmul = torch.backends.cuda.matmul
    # To read the older of the two settings is an error where the newer one, of PyTorch 2.9, was set.
    if hasattr(matmul, 'fp32_precision'):
        return matmul.fp32_precision == 'tf32'
    return matmul.allow_tf32


def _arguments(qkv: Tensor, size: list[int], window: list[int], mode: int, head_dim: int) -> tuple:
    """Grid and common arguments of the kernels."""
    height, width = size
    heads = qkv.shape[1] // (3 * head_dim)
    batch = qkv.shape[0] // (height * width)
    grid = (divide_up(height, TILE) * divide_up(width, TILE), batch * heads)
    precision = 'tf32' if _allows_tf32() else 'ieee'
    on_tensor_cores = qkv.dtype != torch.float32 or precision == 'tf32'
    options = dict(
        WINDOW_Y=window[0], WINDOW_X=window[1], MODE=mode, HEAD=head_dim,
        LANES=max(16, next_power_of_2(head_dim)), TILE=TILE,
        BLOCK=BLOCK if on_tensor_cores else FLOAT32_BLOCK, PRECISION=precision,
        num_warps=NUM_WARPS if on_tensor_cores else FLOAT32_NUM_WARPS, num_stages=NUM_STAGES,
    )  # fmt: skip
    return grid, (height, width, heads, head_dim**-0.5 * LOG2_E), options


@torch.library.custom_op('mmmeta::attend_in_windows', mutates_args=())
@on_its_device
def _attend_in_windows(
    qkv: Tensor, size: list[int], window: list[int], mode: int, head_dim: int
) -> tuple[Tensor, Tensor]:
    """Attention, and log2 of the sums of exponentials, ``(B * heads, H * W)``."""
    grid, arguments, options = _arguments(qkv, size, window, mode, head_dim)
    out = qkv.new_empty(qkv.shape[0], qkv.shape[1] // 3)
    lse = qkv.new_empty(grid[1], size[0] * size[1], dtype=torch.float32)
    _attend_forward[grid](qkv, out, lse, *arguments, **options)
    return out, lse


@_attend_in_windows.register_fake
def _(qkv: Tensor, size: list[int], window: list[int], mode: int, head_dim: int) -> tuple[Tensor, Tensor]:
    rows, channels = qkv.shape[0], qkv.shape[1] // 3
    tokens = size[0] * size[1]
    lse = qkv.new_empty(rows // tokens * (channels // head_dim), tokens, dtype=torch.float32)
    return qkv.new_empty(rows, channels), lse


@torch.library.custom_op('mmmeta::attend_in_windows_backward', mutates_args=())
@on_its_device
def _attend_in_windows_backward(
    grad: Tensor, qkv: Tensor, out: Tensor, lse: Tensor,
    size: list[int], window: list[int], mode: int, head_dim: int,
) -> Tensor:  # fmt: skip
    grid, arguments, options = _arguments(qkv, size, window, mode, head_dim)
    arguments = *arguments, 1 / LOG2_E
    grad, grad_qkv, delta = grad.contiguous(), torch.empty_like(qkv), torch.empty_like(lse)
    _attend_backward_queries[grid](qkv, out, grad, lse, delta, grad_qkv, *arguments, **options)
    _attend_backward_keys[grid](qkv, grad, lse, delta, grad_qkv, *arguments, **options)
    return grad_qkv


@_attend_in_windows_backward.register_fake
def _(grad: Tensor, qkv: Tensor, *_: object) -> Tensor:
    return torch.empty_like(qkv)


def _save(ctx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    qkv, *ctx.rest = inputs
    ctx.save_for_backward(qkv, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    return _attend_in_windows_backward(grad, *ctx.saved_tensors, *ctx.rest), *[None] * len(ctx.rest)


_attend_in_windows.register_autograd(_differentiate, setup_context=_save)


def attend_in_windows(
    qkv: Tensor, size: tuple[int, int], window: tuple[int, int], mode: str, border: str, head_dim: int
) -> Tensor:
    """Multi-head attention of each query over the keys of its window.

    Args:
        qkv (Tensor): Concatenated queries, keys and values, ``(B * H * W, 3 * C)``, float32, bfloat16 or
            float16; sums are float32.
        size (tuple[int, int]): Height and width of the map.
        window (tuple[int, int]): Height and width of the window.
        mode (str): ``'slide'`` or ``'block'``.
        border (str): ``'shift'`` or ``'truncate'``.
        head_dim (int): Channels of a head.

    Returns:
        Tensor: ``(B * H * W, C)``.
    """
    return _attend_in_windows(qkv.contiguous(), list(size), list(window), MODES[mode, border], head_dim)[0]
