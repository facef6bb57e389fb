"""Recomputation in backward: cheap inputs of linear maps are recomputed instead of kept.

A norm or an activation in front of a linear map is read again in backward, for the gradient of the weights.
It takes as much memory as what it was computed from, which is kept anyway, and a fraction of the map's time.

The contract, of those who compute (norms and activations) and those who read (linear maps):

- Who computes ``y = function(*inputs)`` passes that to :func:`recomputable`. The function is deterministic
  and calls no module; its inputs are kept for backward in any case. Called in backward it returns the same
  bits, and with gradients enabled (``create_graph=True``) a result with a graph.
- Who reads asks :func:`recipe_of`, saves the inputs of the recipe instead of ``y``, and calls it in backward;
  it runs under the autocast of the forward pass.
- Anything in between that makes it untrue (a hook that replaces the tensor, an in-place operation on it or on
  an input) leaves no recipe: the tensor is saved as usual.
- :func:`~mmmeta.models.ops.dispatch.recompute` decides whether there is a recipe at all. Nothing of this is
  seen by modules or hooks, or recorded by a compiler.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from . import dispatch
from .state import autocast_dtype

# Not in an attribute of the tensors, which would be pickled with them.
_recipes: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


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
        device, dtype = self.device, autocast_dtype(self.device)
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
    if isinstance(y, Tensor) and dispatch.recompute(y):  # torch.fx traces with symbols
        device = y.device.type
        _recipes[y] = Recipe(function, inputs, _versions(y, *inputs), device, autocast_dtype(device))
    return y


def recipe_of(x: Tensor) -> Recipe | None:
    """Return how to recompute a tensor, or None if that is unknown or no longer true.

    Args:
        x (Tensor): What backward would have to keep.
    """
    recipe = _recipes.get(x) if dispatch.can_recompute() else None
    if recipe is None or recipe.versions != _versions(x, *recipe.inputs):
        return None
    return recipe


def channels_last(x: Tensor) -> Tensor:
    """View ``(B, C, H, W)`` as ``(B, H, W, C)``; what is recomputable stays so."""
    return _permute(x, (0, 2, 3, 1))


def channels_first(x: Tensor) -> Tensor:
    """View ``(B, H, W, C)`` as ``(B, C, H, W)``; what is recomputable stays so."""
    return _permute(x, (0, 3, 1, 2))


def _permute(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    y, recipe = x.permute(dims), recipe_of(x)
    if recipe is not None:  # a view has the version of what it views
        _recipes[y] = recipe._replace(function=partial(_permuted, function=recipe.function, dims=dims))
    return y


def _permuted(
    *inputs: Tensor | float | None, function: Callable[..., Tensor], dims: tuple[int, ...]
) -> Tensor:
    return function(*inputs).permute(dims)
