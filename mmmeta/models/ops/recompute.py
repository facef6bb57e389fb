"""Recomputation in backward: cheap inputs of linear maps are recomputed instead of kept.

A norm or an activation in front of a linear map is read again in backward, for the gradient of the weights.
It takes as much memory as what it was computed from, which is kept anyway, and a fraction of the map's time.

A layer with a cheap output registers its recipe, by :func:`recomputable`; a linear map with such an input
saves the inputs of the recipe instead. Anything in between (a hook that replaces the
tensor, an in-place operation) leaves a tensor without a valid recipe, which is saved as usual.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils.weak import WeakTensorKeyDictionary


class Recipe(NamedTuple):
    """How a tensor was computed.

    Attributes:
        function (callable): A deterministic function of the inputs, which calls no module.
        inputs (tuple[Tensor | float | None]): Its inputs.
        versions (tuple[int]): Version counters of the tensor and of its inputs, which in-place writes change.
        device (str): Type of the device.
        autocast (torch.dtype | None): Of the autocast that the function ran under; None without autocast.
    """

    function: Callable[..., Tensor]
    inputs: tuple[Tensor | float | None, ...]
    versions: tuple[int, ...]
    device: str
    autocast: torch.dtype | None

    def __call__(self, *inputs: Tensor | float | None) -> Tensor:
        """Recompute the tensor, from the inputs that were saved for backward."""
        device, dtype = self.device, _autocast_dtype(self.device)
        if dtype == self.autocast:
            return self.function(*inputs)
        # As `torch.autocast` does, whose objects take longer to make than a kernel to launch. A weight cast
        # without gradients must not be reused from its cache where the gradient is needed.
        default, cache = torch.get_autocast_dtype(device), torch.is_autocast_cache_enabled()
        torch.set_autocast_dtype(device, self.autocast or default)
        torch.set_autocast_enabled(device, self.autocast is not None)
        torch.set_autocast_cache_enabled(False)
        try:
            return self.function(*inputs)
        finally:
            torch.set_autocast_cache_enabled(cache)
            torch.set_autocast_enabled(device, dtype is not None)
            torch.set_autocast_dtype(device, default)


# On a GPU, what is smaller is kept: to prepare and launch its kernel again takes a processor 50 microseconds
# and more, in which memory of 1 TB/s reads and writes as much. A GPU that waits for launches has memory left.
MIN_BYTES = 32 * 2**20

_min_bytes: float = MIN_BYTES

# Not in an attribute of the tensors, which would be pickled with them.
_recipes: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


class LinearMap(Protocol):
    """An operation that is linear in its input and in its weight."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute the output."""

    def backward(
        self, grad: Tensor, x: Tensor, weight: Tensor, needed: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Compute those gradients of input, weight and bias that are needed."""


def is_captured() -> bool:
    """Whether operations are recorded by a compiler or tracer, which decides itself how they run."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_recompute_disabled() -> bool:
    """Whether nothing is saved for backward, or a compiler decides what is saved."""
    return not torch.is_grad_enabled() or is_captured()


def _autocast_dtype(device: str) -> torch.dtype | None:
    """Of the autocast in force, if there is one."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def _versions(*values: Tensor | float | None) -> tuple[int, ...]:
    return tuple(value._version for value in values if isinstance(value, Tensor))


def recomputable(y: Tensor, function: Callable[..., Tensor], *inputs: Tensor | float | None) -> Tensor:
    """Register how to recompute a tensor.

    Args:
        y (Tensor): ``function(*inputs)``, just computed.
        function (callable): A deterministic function that calls no module.
        inputs (Tensor | float | None): Its inputs, which are kept for backward in any case.

    Returns:
        Tensor: ``y``.
    """
    device = y.device.type
    worthwhile = device == 'cpu' or y.nbytes >= _min_bytes
    if worthwhile and y.requires_grad and not is_recompute_disabled():
        _recipes[y] = Recipe(function, inputs, _versions(y, *inputs), device, _autocast_dtype(device))
    return y


@contextmanager
def keeping_below(size: float) -> Iterator[None]:
    """Keep what takes fewer bytes than ``size`` on a GPU, instead of :data:`MIN_BYTES`, to count memory."""
    global _min_bytes
    previous, _min_bytes = _min_bytes, size
    try:
        yield
    finally:
        _min_bytes = previous


def apply(function: type[Function], *args: Any) -> Any:
    """``function.apply(*args)``, without what PyTorch does there in each call to bind default arguments.

    That takes longer than to launch a kernel, and is needed under transforms of :mod:`torch.func` alone.
    """
    if is_captured() or torch._C._are_functorch_transforms_active():
        return function.apply(*args)
    return super(Function, function).apply(*args)


class _RecomputingMap(Function):
    """A linear map that saves the inputs of its input's recipe for backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, op: LinearMap, recipe: Recipe, *inputs: Any
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


def linear_map(op: LinearMap, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute ``op.forward(x, weight, bias)``; saves the inputs of the recipe of ``x``, if it has one.

    Args:
        op (LinearMap): The operation.
        x (Tensor): Its input.
        weight (Tensor): Its weight.
        bias (Tensor | None): Its bias.
    """
    # Without a gradient of the weight, backward does not need the input.
    recipe = None if is_recompute_disabled() or not weight.requires_grad else _recipes.get(x)
    if recipe is None or recipe.versions != _versions(x, *recipe.inputs):
        return op.forward(x, weight, bias)
    # As autocast does around a convolution; inside the function its cache would keep casts without gradients.
    dtype = _autocast_dtype(recipe.device)
    if dtype is not None:
        x, weight, bias = (
            tensor if tensor is None or tensor.dtype == torch.float64 else tensor.to(dtype)
            for tensor in (x, weight, bias)
        )
    return apply(_RecomputingMap, x, weight, bias, op, recipe._replace(inputs=()), *recipe.inputs)
