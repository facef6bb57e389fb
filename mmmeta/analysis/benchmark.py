"""How fast backbones and windows are, and how much memory they take, measured side by side."""

import ast
import gc
import multiprocessing
import resource
import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import util
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmmeta import models
from mmmeta.errors import UsageError
from mmmeta.models.layers import Attention

FAMILIES = {name.lower(): name for name in models.__all__}


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs.

    Attributes:
        median (float): Their median.
        fastest (float): The fastest.
        slowest (float): The slowest.
    """

    median: float
    fastest: float
    slowest: float


def time_alternating(
    functions: Sequence[Callable[[], object]], repeats: int = 5, warmup: int = 2
) -> list[Timing]:
    """Time functions in turns, so that what else the machine does meets all of them alike.

    Args:
        functions (Sequence[callable]): What is timed, without arguments.
        repeats (int): Timed rounds. Defaults to 5.
        warmup (int): Rounds before them. Defaults to 2.

    Returns:
        list[Timing]: One for each function.
    """
    seconds = [[] for _ in functions]
    for turn in range(warmup + repeats):
        for function, record in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= warmup:
                record.append(time.perf_counter() - start)
    return [Timing(statistics.median(record), min(record), max(record)) for record in seconds]


class _StorageLog(TorchDispatchMode):
    """Note every storage that operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, torch.Tensor):
                storage = result.untyped_storage()
                self.storages[storage._cdata] = weakref.ref(storage), storage.nbytes()
        return results


def bytes_kept(model: nn.Module, *inputs: torch.Tensor) -> int:
    """Bytes that a forward pass leaves in memory: its outputs and what backward will need.

    Parameters and inputs do not count. What counts is what is still there, whoever holds it, so that tensors
    that are computed again in backward do not.

    Args:
        model (nn.Module): The model, in the mode that it is to be measured in.
        inputs (Tensor): Its inputs.
    """
    given = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers(), *inputs)}
    with _StorageLog() as log:
        outputs = model(*inputs)
    gc.collect()
    kept = sum(
        size for key, (storage, size) in log.storages.items() if key not in given and storage() is not None
    )
    del outputs
    return kept


def build_features(spec: str) -> nn.Module:
    """Build a backbone that returns features at several strides, from how a command line names it.

    Args:
        spec (str): One of ours, such as ``caformer_s18``, with arguments after commas, such as
            ``caformer_s18,window=13``; one of timm's, such as ``timm/caformer_s18``; or the backbone of one
            of MMPretrain's, such as ``mmpretrain/poolformer-s12_32xb128_in1k``, which gives what that
            classifier asks it for.

    Returns:
        nn.Module: The backbone in eval mode, with random weights.

    Raises:
        UsageError: There is no such backbone, or the package is not installed.
    """
    name, *arguments = spec.split(',')
    package, _, foreign = name.rpartition('/')
    if package in ('timm', 'mmpretrain'):
        if util.find_spec(package) is None:
            raise UsageError(f"'{spec}' needs {package}, which is not installed: pip install {package}")
        return {'timm': _timm_features, 'mmpretrain': _mmpretrain_backbone}[package](foreign)
    family, _, arch = name.rpartition('_')
    if family not in FAMILIES:
        choices = ', '.join(f'{family}_<arch>' for family in FAMILIES if family != 'metaformer')
        raise UsageError(f"unknown backbone '{name}': choose {choices}, or timm/<model>")
    try:
        options = dict(argument.split('=', 1) for argument in arguments)
        options = {key: ast.literal_eval(value) for key, value in options.items()}
    except (ValueError, SyntaxError) as error:
        raise UsageError(
            f"'{spec}': arguments are Python values, such as window=13 or border='truncate'"
        ) from error
    try:
        return getattr(models, FAMILIES[family])(arch, **options).eval()
    except TypeError as error:
        raise UsageError(f"'{spec}': {error}") from error


def _timm_features(name: str) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise UsageError(f"timm has no model '{name}': see timm.list_models()")
    return timm.create_model(name, features_only=True).eval()


def _mmpretrain_backbone(name: str) -> nn.Module:
    import mmpretrain

    if name not in mmpretrain.list_models():
        raise UsageError(f"MMPretrain has no model '{name}': see mmpretrain.list_models()")
    backbone = mmpretrain.get_model(name, pretrained=False).backbone
    backbone.eval()  # some return nothing
    return backbone


def run_features(
    model: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    image: torch.Tensor,
    train: bool = False,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Run a backbone once.

    Args:
        model (callable): Maps images to features.
        image (Tensor): Images, ``(B, C, H, W)``.
        train (bool): Forward and backward instead of forward alone. Defaults to False.
        dtype (torch.dtype): Of autocast; float32 goes without. Defaults to float32.
    """
    autocast = torch.autocast(image.device.type, dtype, enabled=dtype is not torch.float32)
    with torch.inference_mode(not train), autocast:
        features = model(image)
    if train:
        sum(feature.float().sum() for feature in features).backward()


def _peak(run: Callable[[], object], device: str) -> int:
    """Bytes that a call takes at its height, beyond what there was before it."""
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    # In a process of its own: the height of a process only grows.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def _measure_layer(
    side: int, dim: int, window: int | None, train: bool, device: str, threads: int
) -> tuple[float, int]:
    """Median seconds and peak bytes of an attention layer on a map of ``side x side`` tokens."""
    torch.set_num_threads(threads)
    layer = Attention(dim, window=window).to(device)

    def run(size: int) -> None:
        x = torch.randn(1, dim, size, size, device=device).to(memory_format=torch.channels_last)
        with torch.set_grad_enabled(train):
            out = layer(x.requires_grad_(train))
        if train:
            out.sum().backward()

    run(16)  # what the first call of anything costs
    peak = _peak(lambda: run(side), device)
    (timing,) = time_alternating([lambda: run(side)], repeats=3, warmup=0)
    return timing.median, peak


def measure_layer(
    side: int, dim: int = 320, window: int | None = 13, train: bool = False, device: str = 'cpu'
) -> tuple[float, int]:
    """Measure an attention layer in a process of its own.

    Args:
        side (int): Height and width of the map in tokens.
        dim (int): Channels. Defaults to 320.
        window (int | None): Side of the window; None for global attention. Defaults to 13.
        train (bool): Forward and backward instead of forward alone. Defaults to False.
        device (str): ``'cpu'`` or ``'cuda'``. Defaults to ``'cpu'``.

    Returns:
        tuple[float, int]: Median seconds, and bytes at the height of the call beyond those before it.
    """
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(_measure_layer, (side, dim, window, train, device, torch.get_num_threads()))
