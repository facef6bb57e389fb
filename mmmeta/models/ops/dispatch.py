"""Decide which form of an operation runs: for all operations, and nowhere else.

An operation asks the function that bears its name, which returns the name of a form. The first line that is
true decides:

================== =========================================== ==========================================
operation          condition                                   form
================== =========================================== ==========================================
all                the reference is switched on                ``reference``; nothing is recomputed
``layer_norm``     compiled by TorchDynamo                     ``decomposed``
..                 otherwise                                   ``reference``
``group_norm``     runs at once, kernels run, a large map      ``kernel``
..                 on a CPU, traced, or exported to train      ``reference``
..                 on a CPU, with gradients                    ``joint``
..                 otherwise                                   ``fused``
``scaled_square``  captured                                    ``reference``
..                 kernels run                                 ``kernel``
..                 otherwise                                   ``function``
``pooling``        otherwise                                   ``transposed``
``attention``      no window, or one that covers the map       ``global``, before the switch
..                 ``backend='natten'``                        ``natten``
..                 exported or traced                          ``reference``
..                 kernels run, narrow heads                   ``kernel``
..                 compiled                                    ``reference``
..                 otherwise                                   ``tiles``
``recompute``      no gradient, or captured                    kept
..                 on a CPU, or a large map                    recomputed
..                 otherwise                                   kept
================== =========================================== ==========================================

Kernels run (:func:`kernel_obstacle`) on NVIDIA GPUs for which Triton compiles, on tensors with memory,
outside of transforms of :mod:`torch.func`. *Captured* is compiled, exported or traced.
:func:`~mmmeta.models.ops.describe` prints what was decided for a model, and why.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from mmmeta.utils.errors import UsageError

from .state import is_captured, transforms_active

#: Environment variable that switches to the references for a whole process.
SWITCH = 'MMMETA_OPS'

# Of NVIDIA's; GPUs of older generations have no bfloat16. On AMD's the kernels have never run.
MIN_CAPABILITY = (8, 0)
HAS_TRITON = find_spec('triton') is not None
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Elements of a map. Below, PyTorch's group norm takes less time than the kernels to launch.
MIN_ELEMENTS = 2**20
# Of a head; larger ones do not fit the shared memory of all GPUs.
MAX_HEAD_BYTES = 256
# On a GPU, what is smaller is kept: to prepare and launch its kernel again takes a processor 50 microseconds
# and more, in which memory of 1 TB/s reads and writes as much. A GPU that waits for launches has memory left.
MIN_BYTES = 32 * 2**20

SWITCHED = 'the reference is switched on'
CAPTURED = 'a compiler, an exporter or a tracer records operations of PyTorch'
KERNEL = "PyTorch has no such fused operation, and Triton's kernels run here"
NO_TRITON = 'Triton does not compile for this GPU'


def _is_switched_on() -> bool:
    value = os.environ.get(SWITCH, '')
    if value not in ('', 'reference'):
        raise UsageError(f"{SWITCH}='{value}' in the environment: give reference, or unset it")
    return value == 'reference'


_reference = _is_switched_on()
_min_bytes: float = MIN_BYTES
_log: Callable[[str, str, str], None] | None = None


@contextmanager
def use_reference(enabled: bool = True) -> Iterator[None]:
    """Run the references of all operations, in all threads; without recomputation in backward.

    Args:
        enabled (bool): False for the forms that the device has, whatever the environment says. Defaults to
            True.
    """
    global _reference
    previous, _reference = _reference, enabled
    try:
        yield
    finally:
        _reference = previous


@contextmanager
def keeping_below(size: float) -> Iterator[None]:
    """Keep what takes fewer bytes than ``size`` on a GPU, instead of :data:`MIN_BYTES`, to count memory."""
    global _min_bytes
    previous, _min_bytes = _min_bytes, size
    try:
        yield
    finally:
        _min_bytes = previous


@contextmanager
def logging_to(log: Callable[[str, str, str], None]) -> Iterator[None]:
    """Call a function with each decision: operation, form, reason."""
    global _log
    previous, _log = _log, log
    try:
        yield
    finally:
        _log = previous


def choose(operation: str, form: str, reason: str) -> str:
    """Log a decision, and return the form."""
    if _log is not None:
        _log(operation, form, reason)
    return form


def layer_norm() -> str:
    """Choose a form of layer normalisation."""
    if _reference:
        return choose('layer_norm', 'reference', SWITCHED)
    if torch.compiler.is_dynamo_compiling():
        return choose('layer_norm', 'decomposed', 'Inductor loses the strides of a single permuted map')
    return choose('layer_norm', 'reference', "PyTorch's fused operation")


def group_norm(x: Tensor) -> str:
    """Choose a form of group normalisation with one group.

    Args:
        x (Tensor): The map.
    """
    if _reference:
        return choose('group_norm', 'reference', SWITCHED)
    reason = CAPTURED
    if not is_captured():
        reason = kernel_obstacle(x)
        if not reason:
            if x.numel() >= MIN_ELEMENTS:
                return choose('group_norm', 'kernel', KERNEL)
            reason = f'under {MIN_ELEMENTS} elements kernels take longer to launch'
    if x.device.type == 'cpu':
        if torch.jit.is_tracing() or (torch.compiler.is_exporting() and torch.is_grad_enabled()):
            return choose('group_norm', 'reference', CAPTURED)
        if torch.is_grad_enabled():
            return choose('group_norm', 'joint', 'on a CPU PyTorch writes all gradients or crashes')
    return choose('group_norm', 'fused', reason)


def scaled_square(x: Tensor) -> str:
    """Choose a form of ``scale * relu(x) ** 2 + bias``.

    Args:
        x (Tensor): The input.
    """
    if _reference:
        return choose('scaled_square', 'reference', SWITCHED)
    if is_captured():
        return choose('scaled_square', 'reference', CAPTURED)
    obstacle = kernel_obstacle(x)
    if obstacle:
        return choose('scaled_square', 'function', obstacle)
    return choose('scaled_square', 'kernel', KERNEL)


def pooling() -> str:
    """Choose a form of pooling."""
    if _reference:
        return choose('pooling', 'reference', SWITCHED)
    return choose('pooling', 'transposed', 'linear, so that backward needs nothing but the gradient')


def is_global(window: tuple[int, int] | None, height: int, width: int) -> bool:
    """Return whether attention within a window is attention over the whole map.

    Args:
        window (tuple[int, int] | None): Height and width of the window; None for no window.
        height (int): Of the map.
        width (int): Of the map.
    """
    if window is None:
        return True
    if isinstance(height, torch.SymInt) or isinstance(width, torch.SymInt):
        return False  # exported for any size: windows that cover the map are right too, only slower
    return height <= window[0] and width <= window[1]


def attention(
    x: Tensor,
    dtype: torch.dtype,
    size: tuple[int, int],
    window: tuple[int, int] | None,
    backend: str,
    head_dim: int,
) -> tuple[str, str]:
    """Choose a form of attention; ``'reference'`` and ``'tiles'`` take a window plan.

    Args:
        x (Tensor): A tensor on its device.
        dtype (torch.dtype): Of queries, keys and values.
        size (tuple[int, int]): Height and width of the map.
        window (tuple[int, int] | None): Height and width of the window; None for no window.
        backend (str): ``'sdpa'`` or ``'natten'``.
        head_dim (int): Channels of a head.

    Returns:
        tuple[str, str]: The form and the reason, which :func:`choose` logs where it runs.
    """
    if is_global(window, *size):
        return 'global', 'without a window, or with one that covers the map'
    if _reference:
        return 'reference', SWITCHED
    if backend == 'natten':
        return 'natten', "as the argument backend='natten' says"
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return 'reference', CAPTURED
    if head_dim * dtype.itemsize > MAX_HEAD_BYTES:
        obstacle = f'heads over {MAX_HEAD_BYTES} bytes do not fit the shared memory of all GPUs'
    else:
        obstacle = kernel_obstacle(x, dtype)
    if not obstacle:
        return 'kernel', KERNEL
    if is_captured():
        return 'reference', CAPTURED
    return 'tiles', obstacle


def can_recompute() -> bool:
    """Return whether backward may recompute what it reads; otherwise a compiler decides, or there is none."""
    return not _reference and torch.is_grad_enabled() and not is_captured()


def recompute(y: Tensor) -> bool:
    """Decide whether backward recomputes a cheap result, if a linear map reads it.

    Args:
        y (Tensor): The result.
    """
    if not (can_recompute() and y.requires_grad):
        if _log is not None:
            _log('recompute', 'kept', SWITCHED if _reference else 'no gradient, or recorded by a compiler')
        return False
    if y.device.type == 'cpu':
        choose('recompute', 'recomputed', 'on a CPU whatever its size')
        return True
    size = y.numel() * y.element_size()  # `nbytes` raises an error where the size is a symbol
    # A symbol must not be compared: the result would be assumed of all sizes from then on.
    if isinstance(size, torch.SymInt) or size < _min_bytes:
        choose('recompute', 'kept', 'a small map, or one of unknown size: to launch again takes longer')
        return False
    choose('recompute', 'recomputed', 'a large map')
    return True


def kernel_obstacle(x: Tensor, dtype: torch.dtype | None = None) -> str:
    """Return why Triton's kernels do not run on such a tensor, or ``''`` if they do.

    Args:
        x (Tensor): The tensor.
        dtype (torch.dtype | None): Of what they compute. Defaults to None, that of the tensor.
    """
    if not x.is_cuda:
        return "Triton's kernels run on NVIDIA's GPUs"
    if (x.dtype if dtype is None else dtype) not in DTYPES:
        return "Triton's kernels have no such dtype"
    if torch.compiler.is_compiling():
        return '' if _compiles_for_current() else NO_TRITON
    if type(x) not in (Tensor, nn.Parameter):
        return 'a stand-in without memory, such as a fake tensor'
    if transforms_active():
        return 'under a transform of torch.func a tensor stands for several'
    return '' if _compiles_for(x.device) else NO_TRITON


@cache
def _compiles_for(device: torch.device) -> bool:
    """Return whether Triton is there and compiles, for which it needs a C compiler and Python's headers."""
    if not HAS_TRITON or torch.version.hip or torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        return False
    from .kernels.scaled_square import scaled_square

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
