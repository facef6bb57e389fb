"""Recomputation in backward: what is cheap to compute is not kept for the linear map that reads it.

A norm or an activation in front of a linear map is read again in backward, for the gradient of the weights.
It takes as much memory as what it was computed from, which is kept anyway, and a fraction of the map's time.

A layer that computes something cheap notes how, by :func:`recomputable`; a linear map that gets such a tensor
keeps the inputs of that computation in its place. Whatever stands between them (a hook that replaces the
tensor, an operation that writes into it) leaves a tensor without a valid note, which is kept as ever.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


class Recipe(NamedTuple):
    """How a tensor was computed.

    Attributes:
        function (callable): A deterministic function of the inputs, which calls no module.
        inputs (tuple[Tensor | float | None]): Its inputs.
        versions (tuple[int]): Versions of the tensor and of its inputs, which writing into them changes.
        autocast (dict): Arguments of :class:`torch.autocast` that the function ran under.
    """

    function: Callable[..., Tensor]
    inputs: tuple[Tensor | float | None, ...]
    versions: tuple[int, ...]
    autocast: dict[str, Any]

    def __call__(self, *inputs: Tensor | float | None) -> Tensor:
        """Compute the tensor again, from its inputs as backward has them."""
        with torch.autocast(**self.autocast):
            return self.function(*inputs)


# Beside the tensors and not in an attribute, which would be saved with them.
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


def computes_plainly() -> bool:
    """Whether nothing is kept for backward here, or a compiler decides what is."""
    return not torch.is_grad_enabled() or is_captured()


def _autocast_state(device: str) -> dict[str, Any]:
    """Arguments of :class:`torch.autocast` that give the present state."""
    if not torch.amp.is_autocast_available(device):
        return dict(device_type='cpu', enabled=False)
    return dict(
        device_type=device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        # A weight that is cast without gradients must not be found by those who need its gradient.
        cache_enabled=False,
    )


def _versions(*values: Tensor | float | None) -> tuple[int, ...]:
    return tuple(value._version for value in values if isinstance(value, Tensor))


def recomputable(y: Tensor, function: Callable[..., Tensor], *inputs: Tensor | float | None) -> Tensor:
    """Note how a tensor was computed.

    Args:
        y (Tensor): ``function(*inputs)``, just computed.
        function (callable): A deterministic function that calls no module.
        inputs (Tensor | float | None): Its inputs, which are kept for backward in any case.

    Returns:
        Tensor: ``y``.
    """
    if y.requires_grad and not computes_plainly():
        _recipes[y] = Recipe(function, inputs, _versions(y, *inputs), _autocast_state(y.device.type))
    return y


class _RecomputingMap(torch.autograd.Function):
    """A linear map that keeps for backward what its input was computed from."""

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
    """Compute ``op.forward(x, weight, bias)``; for backward what ``x`` was computed from is kept, if noted.

    Args:
        op (LinearMap): The operation.
        x (Tensor): Its input.
        weight (Tensor): Its weight.
        bias (Tensor | None): Its bias.
    """
    # A weight without gradient does not read the input again.
    recipe = None if computes_plainly() or not weight.requires_grad else _recipes.get(x)
    if recipe is None or recipe.versions != _versions(x, *recipe.inputs):
        return op.forward(x, weight, bias)
    # As autocast does around a convolution; inside the function its cache would keep casts without gradients.
    device = x.device.type
    if recipe.autocast['device_type'] == device and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight, bias = (
            tensor if tensor is None or tensor.dtype == torch.float64 else tensor.to(dtype)
            for tensor in (x, weight, bias)
        )
    return _RecomputingMap.apply(x, weight, bias, op, recipe._replace(inputs=()), *recipe.inputs)
