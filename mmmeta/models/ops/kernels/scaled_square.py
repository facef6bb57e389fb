"""StarReLU and its gradients, each in one pass over the map."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launching import divide_up, on_its_device

BLOCK = 2048
NUM_WARPS = 8
# Programs that sum for the scalars' gradients, each over blocks at equal distances.
MAX_SUMS = 1024


@triton.jit
def _scaled_square_forward(x, y, scale, bias, count, OF_SCALE: tl.constexpr, OF_BIAS: tl.constexpr, BLOCK: tl.constexpr):  # noqa: E501  # fmt: skip
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    s = tl.load(scale).to(tl.float32) if OF_SCALE else scale
    b = tl.load(bias).to(tl.float32) if OF_BIAS else bias
    values = tl.load(x + index, mask=index < count, other=0.0)
    # Not a number stays none.
    positive = tl.where(values < 0, 0.0, values).to(tl.float32)
    tl.store(y + index, (positive * s * positive + b).to(values.dtype), mask=index < count)


@triton.jit
def _scaled_square_backward(
    x, grad, grad_x, sums, scale, count,
    OF_SCALE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    s = tl.load(scale).to(tl.float32) if OF_SCALE else scale
    of_scale = tl.zeros([BLOCK], tl.float32)
    of_bias = tl.zeros([BLOCK], tl.float32)
    for start in range(tl.program_id(0).to(tl.int64) * BLOCK, count, tl.num_programs(0) * BLOCK):
        index = start + tl.arange(0, BLOCK)
        values = tl.load(x + index, mask=index < count, other=0.0)
        grads = tl.load(grad + index, mask=index < count, other=0.0).to(tl.float32)
        positive = tl.where(values < 0, 0.0, values).to(tl.float32)
        product = grads * positive
        tl.store(grad_x + index, (product * (2 * s)).to(values.dtype), mask=index < count)
        of_scale += product * positive
        of_bias += grads
    tl.store(sums + tl.program_id(0), tl.sum(of_scale, 0))
    tl.store(sums + tl.num_programs(0) + tl.program_id(0), tl.sum(of_bias, 0))


@on_its_device
def scaled_square(x: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
    """``scale * relu(x) ** 2 + bias``, in float32 inside.

    Args:
        x (Tensor): Of any shape and strides; float32, bfloat16 or float16.
        scale (Tensor | float): Of shape ``(1,)``, or a constant.
        bias (Tensor | float): As ``scale``.
    """
    x, y = _dense(x)
    of_scale, of_bias = isinstance(scale, Tensor), isinstance(bias, Tensor)
    grid = (divide_up(x.numel(), BLOCK),)
    if x.numel():
        _scaled_square_forward[grid](
            x, y, scale, bias, x.numel(), of_scale, of_bias, BLOCK=BLOCK, num_warps=NUM_WARPS
        )
    return y


@on_its_device
def scaled_square_gradients(grad: Tensor, x: Tensor, scale: Tensor | float) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`scaled_square`.

    Args:
        grad (Tensor): Gradient of the result.
        x (Tensor): The input.
        scale (Tensor | float): The scale.

    Returns:
        tuple[Tensor, Tensor]: The gradient of ``x``, and those of scale and bias in a float32 tensor of shape
        ``(2,)``, summed in an order that depends on the number of elements alone.
    """
    x, grad_x = _dense(x)
    grad = grad if grad.stride() == x.stride() else torch.empty_like(x).copy_(grad)
    programs = max(1, min(divide_up(x.numel(), BLOCK), MAX_SUMS))
    sums = torch.empty(2, programs, dtype=torch.float32, device=x.device)
    _scaled_square_backward[(programs,)](
        x, grad, grad_x, sums, scale, x.numel(), isinstance(scale, Tensor),
        BLOCK=BLOCK, num_warps=NUM_WARPS,
    )  # fmt: skip
    return grad_x, sums.sum(1)


def _dense(x: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor whose elements lie one after the other in memory, in any order, and an empty one like it."""
    empty = torch.empty_like(x)
    if empty.stride() != x.stride():
        x = x.contiguous()
        empty = torch.empty_like(x)
    return x, empty
