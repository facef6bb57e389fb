"""Cheap results that are computed again in backward instead of being kept.

A norm or an activation in front of a linear map is read again in backward, for the gradient of the weights.
It takes as much memory as what it was computed from, which is kept anyway, and a fraction of the map's time.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_local = threading.local()


@contextmanager
def keep_everything() -> Iterator[None]:
    """Keep what is needed for backward, as under activation checkpointing, which keeps none of it anyway."""
    before = getattr(_local, 'keeps', False)
    _local.keeps = True
    try:
        yield
    finally:
        _local.keeps = before


#: Stands for a tensor that is computed again.
AGAIN = object()


def _identity(tensor: Tensor) -> tuple:
    """What two names of one tensor have in common, as long as nobody writes into it."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor._version


def through(cheap: Callable[[Tensor], Tensor], consume: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Compute ``consume(cheap(x))``, keeping ``x`` for backward but not ``cheap(x)``.

    Results and gradients are those of the plain expression, the same operations in the same order.

    Args:
        cheap (callable): A function of ``x`` without chance, which does not itself keep its result.
        consume (callable): What reads the result.
        x (Tensor): The input. Nobody may write over it before backward.

    Returns:
        Tensor: The result of ``consume``.

    Raises:
        RuntimeError: In backward, if ``x`` has been written over.
    """
    y = cheap(x)
    kind = x.device.type
    plain = torch.compiler.is_compiling() or not torch.is_grad_enabled() or getattr(_local, 'keeps', False)
    if plain or not y.requires_grad or kind == 'meta':
        return consume(y)
    autocast = dict(
        device_type=kind, dtype=torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind)
    )
    version = x._version
    identity = _identity(y)

    def pack(tensor: Tensor) -> Tensor | object:
        return AGAIN if _identity(tensor) == identity else tensor

    def unpack(kept: Tensor | object) -> Tensor:
        if kept is not AGAIN:
            return kept
        if x._version != version:
            raise RuntimeError('a tensor that backward needs has been written over')
        # With gradients, without which activations write over their input.
        with torch.enable_grad(), torch.autocast(**autocast):
            return cheap(x)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return consume(y)
