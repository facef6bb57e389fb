"""Linear maps: over the channels of each position, and convolutions.

What they read is recomputed in backward where that is possible, see :mod:`mmmeta.models.ops.recompute`.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from . import dispatch
from .recompute import Recipe, recipe_of
from .state import apply, autocast_dtype


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map the channels of each position.

    Args:
        x (Tensor): ``(B, C_in, H, W)``.
        weight (Tensor): ``(C_out, C_in)``.
        bias (Tensor | None): ``(C_out,)``.

    Returns:
        Tensor: ``(B, C_out, H, W)``.
    """
    if dispatch.pointwise(x) == 'convolution':
        return _map(_Convolution(), x, weight[:, :, None, None], bias)
    return _map(_MatrixProduct(), x, weight, bias)


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
    return _map(_Convolution(stride, padding, dilation, groups), x, weight, bias)


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
    """The reference of a linear map over the channels of each position."""

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


class _RecomputingMap(Function):
    """A linear map that saves the inputs of its input's recipe for backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        op: _Convolution | _MatrixProduct,
        recipe: Recipe,
        *inputs: Any,
    ) -> Tensor:
        return op.forward(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, weight, _, ctx.op, ctx.recipe, *values = inputs
        ctx.dtype = x.dtype
        ctx.constants = [None if isinstance(value, Tensor) else value for value in values]
        ctx.save_for_backward(weight, *(value if isinstance(value, Tensor) else None for value in values))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *tensors = ctx.saved_tensors
        pairs = zip(tensors, ctx.constants, strict=True)
        x = ctx.recipe(*(constant if tensor is None else tensor for tensor, constant in pairs))
        needed = ctx.needs_input_grad
        grads = ctx.op.backward(grad, x.to(ctx.dtype), weight, needed[:3])
        return (*grads, *[None] * (len(needed) - 3))


def _map(op: _Convolution | _MatrixProduct, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``op.forward(x, weight, bias)``; saves the inputs of the recipe of ``x``, if it has one."""
    # Without a gradient of the weight, backward does not need the input.
    recipe = recipe_of(x) if weight.requires_grad else None
    if recipe is None:
        return op.forward(x, weight, bias)
    # As autocast does around a convolution; inside the function its cache would keep casts without gradients.
    dtype = autocast_dtype(recipe.device)
    if dtype is not None:
        x, weight, bias = (
            tensor if tensor is None or tensor.dtype == torch.float64 else tensor.to(dtype)
            for tensor in (x, weight, bias)
        )
    return apply(_RecomputingMap, x, weight, bias, op, recipe._replace(inputs=()), *recipe.inputs)
