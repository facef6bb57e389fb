"""What PyTorch is doing, and the only private parts of it that operations touch.

Without a private part its public counterpart takes over, which is slower and right as well.
"""

from typing import Any

import torch
from torch.autograd import Function

_are_transforms_active = getattr(torch._C, '_are_functorch_transforms_active', None)
# What `Function.apply` calls in the end, where no transform is active.
_HAS_PLAIN_APPLY = callable(getattr(super(Function, Function), 'apply', None))


def is_captured() -> bool:
    """Return whether a compiler, an exporter or a tracer records operations instead of running them."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def transforms_active() -> bool:
    """Return whether a transform of :mod:`torch.func` is active; True where PyTorch does not say."""
    return _are_transforms_active is None or _are_transforms_active()


def autocast_dtype(device: str) -> torch.dtype | None:
    """Return the dtype of the active autocast, or None without one.

    Args:
        device (str): Type of the device.
    """
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return None


def apply(function: type[Function], *args: Any) -> Any:
    """Return ``function.apply(*args)``, without binding default arguments as PyTorch does in each call.

    That takes longer than to launch a kernel, and is needed under transforms of :mod:`torch.func` alone.

    Args:
        function (type[Function]): An autograd function whose ``forward`` has no default arguments.
        args (Any): Its arguments.
    """
    if not _HAS_PLAIN_APPLY or is_captured() or transforms_active():
        return function.apply(*args)
    return super(Function, function).apply(*args)
