"""Triton kernels of the leaf operations for which PyTorch has no fused one.

The operations choose them by :func:`has_kernels`; nothing else imports the modules beside this one, which
need Triton. `tools/gpu_report.py` measures them against what PyTorch offers.
"""

import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor, nn

# Of NVIDIA's; GPUs of older generations have no bfloat16. On AMD's the kernels have never run.
MIN_CAPABILITY = (8, 0)
HAS_TRITON = find_spec('triton') is not None
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@cache
def _compiles_for(device: torch.device) -> bool:
    """Whether Triton is there and compiles, for which it needs a C compiler and Python's headers."""
    if not HAS_TRITON or torch.version.hip or torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        return False
    from .scaled_square import scaled_square

    try:
        scaled_square(torch.ones(1, device=device), 1.0, 0.0)
    except Exception as error:  # whatever is missing, the model runs without
        warnings.warn(f'Triton does not run here, PyTorch operations take its place: {error}')
        return False
    return True


@torch.compiler.assume_constant_result
def _compiles_for_current() -> bool:
    """As above, of the current GPU, for a compiler that does not look into it."""
    return _compiles_for(torch.device('cuda', torch.cuda.current_device()))


def _has_memory(x: Tensor) -> bool:
    return type(x) in (Tensor, nn.Parameter) and not torch._C._are_functorch_transforms_active()


def has_kernels(x: Tensor) -> bool:
    """Whether the kernels run on such a tensor: by its device and dtype, and if it is no stand-in for others.

    Fake tensors have no memory, and those under a transform of :mod:`torch.func` stand for several.
    """
    if not x.is_cuda or x.dtype not in DTYPES:
        return False
    if torch.compiler.is_compiling():
        return _compiles_for_current()
    return _has_memory(x) and _compiles_for(x.device)
