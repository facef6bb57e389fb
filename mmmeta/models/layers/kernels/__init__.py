"""Triton kernels of the leaf operations for which PyTorch has no fused one.

The operations choose them by :func:`has_kernels`; nothing else imports the modules beside this one, which
need Triton. `tools/gpu_report.py` measures them against what PyTorch offers.
"""

from collections.abc import Callable
from functools import cache, wraps
from importlib.util import find_spec

import torch
from torch import Tensor, nn

# Triton compiles for these. GPUs of older generations have no bfloat16.
MIN_CAPABILITY = (8, 0)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@cache
def _compiles_for(device: torch.device) -> bool:
    return find_spec('triton') is not None and torch.cuda.get_device_capability(device) >= MIN_CAPABILITY


def _has_memory(x: Tensor) -> bool:
    return type(x) in (Tensor, nn.Parameter) and not torch._C._are_functorch_transforms_active()


def has_kernels(x: Tensor) -> bool:
    """Whether the kernels run on such a tensor: by its device and dtype, and if it is no stand-in for others.

    Fake tensors have no memory, and those under a transform of :mod:`torch.func` stand for several.
    """
    return (
        x.is_cuda
        and x.dtype in DTYPES
        and (torch.compiler.is_compiling() or _has_memory(x))
        and _compiles_for(x.device)
    )


def on_its_device(function: Callable) -> Callable:
    """Launch on the GPU of the first argument, which need not be the current one; Triton does not look."""

    @wraps(function)
    def launch(x: Tensor, *args: object, **kwargs: object) -> object:
        with torch.cuda.device_of(x):
            return function(x, *args, **kwargs)

    return launch
