"""Call linear maps and convolutions so that backward recomputes what they read, see :mod:`.recompute`.

The modules are PyTorch's own. While one is called, its ``F.linear`` or ``F.conv2d`` is replaced by a function
that computes the same and saves less; whatever else a module or what took its place does, such as an adapter
around it, stays as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.overrides import TorchFunctionMode, has_torch_function

from . import dispatch
from .recompute import Recipe, recipe_of
from .state import apply, autocast_dtype


def call_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Call a layer; where that is possible, backward recomputes the input instead of keeping it.

    Args:
        layer (nn.Module): ``nn.Linear``, ``nn.Conv2d``, or what took its place.
        x (Tensor): Its input.
    """
    if recipe_of(x) is not None or (_is_depthwise(layer) and dispatch.can_recompute()):
        with _Recomputing(x):
            return layer(x)
    return layer(x)


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.in_channels == layer.groups


class _Recomputing(TorchFunctionMode):
    """Replace what maps one tensor linearly.

    Args:
        x (Tensor): The tensor.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a function of PyTorch, or what stands for it."""
        if kwargs or not args or args[0] is not self.x or has_torch_function(args):
            return func(*args, **(kwargs or {}))
        if func is F.linear:
            return _map(_MatrixProduct(), *args)
        if func is F.conv2d and not isinstance(args[4], str):
            return _convolve(*args)
        return func(*args)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
    if weight.shape[1] == 1:
        # Reshaped twice, so that the gradient has the strides of the weight: kernels change
        # strides of dimensions of size one, for which DistributedDataParallel warns and copies.
        weight = weight.flatten().view(weight.shape)
    return _map(_Convolution(*geometry), x, weight, bias)


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
    """A linear map of the last dimension; see :func:`torch.nn.functional.linear`."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(
        grad: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows = grad.flatten(0, -2)
        return (
            grad @ weight if needed[0] else None,
            rows.t() @ x.flatten(0, -2) if needed[1] else None,
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
