"""Benchmarks of the speed and memory of backbones, whole models and windowed attention."""

import gc
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from rich.console import Console
from rich.progress import track
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmmeta.models.layers import Attention, StarReLU
from mmmeta.models.ops import MIN_BYTES, keeping_below
from mmmeta.utils.errors import UsageError

from .storages import StorageLog


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
    """Time functions alternately, so that other load on the machine affects all of them equally.

    A terminal shows a progress bar, which is refreshed between calls only.

    Args:
        functions (Sequence[callable]): Functions to time, without arguments.
        repeats (int): Timed rounds. Defaults to 5.
        warmup (int): Rounds before them. Defaults to 2.

    Returns:
        list[Timing]: One for each function.
    """
    seconds: list[list[float]] = [[] for _ in functions]
    turns = list(product(range(warmup + repeats), zip(functions, seconds, strict=True)))
    # Refreshed between calls: a thread of its own would be measured as well.
    bar = dict(console=Console(stderr=True), transient=True, auto_refresh=False)
    for turn, (function, record) in track(turns, 'measuring', **bar):
        elapsed = (_time_on_gpu if torch.cuda.is_available() else _time_on_cpu)(function)
        if turn >= warmup:
            record.append(elapsed)
    return [Timing(statistics.median(record), min(record), max(record)) for record in seconds]


def _time_on_cpu(function: Callable[[], object]) -> float:
    """Seconds that a function takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _time_on_gpu(function: Callable[[], object]) -> float:
    """Seconds that a function takes on the GPU, by CUDA events."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def bytes_kept(model: nn.Module, *inputs: torch.Tensor) -> int:
    """Bytes that a forward pass keeps in memory: its outputs and the tensors saved for backward.

    Parameters and inputs do not count. Storages that are alive after the forward pass do, so that tensors
    that are recomputed in backward do not.

    Args:
        model (nn.Module): The model, in the mode that it is to be measured in.
        inputs (Tensor): Its inputs.
    """
    with StorageLog((*model.parameters(), *model.buffers(), *inputs)) as log:
        before = log.bytes
        outputs = model(*inputs)
    gc.collect()
    kept = log.bytes - before
    del outputs
    return kept


def _fused_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: Any = None, **_: Any
) -> torch.Tensor:
    """The kernels that PyTorch chooses on a GPU; for fake tensors it would take the explicit product."""
    if query.dtype in (torch.bfloat16, torch.float16) and attn_mask is None:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
    attend = torch.ops.aten._scaled_dot_product_efficient_attention
    if attn_mask is not None:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).expand(-1, query.shape[1], -1, -1)
    return attend(query, key, value, attn_mask, True)[0]


@contextmanager
def _forced_autocast(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Autocast, also for a device that is not available, for which :class:`torch.autocast` does nothing."""
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_dtype(device, before[1] if dtype is torch.float32 else dtype)
    torch.set_autocast_enabled(device, dtype is not torch.float32)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])
        torch.clear_autocast_cache()


def bytes_per_image(
    build: Callable[[], nn.Module],
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    device: str = 'cpu',
    batch: int = 16,
) -> float:
    """Bytes that an image of a batch keeps in memory between forward and backward.

    Nothing is computed: the tensors are fake ones, which have shape, dtype and device alone. So the device
    need not be available to count under its rules: those of its autocast and its branches.

    Args:
        build (callable): Builds the model on the CPU.
        size (tuple[int, int]): Height and width.
        dtype (torch.dtype): Of autocast; float32 disables it. Defaults to float32.
        device (str): ``'cpu'`` or ``'cuda'``. Defaults to ``'cpu'``.
        batch (int): Images, of which a GPU keeps small maps. Defaults to 16.
    """
    model = build()
    model.train()  # some of MMPretrain's return nothing
    attention = F.scaled_dot_product_attention
    kept = []
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = model.to_empty(device=device)
        try:
            if device == 'cuda':
                F.scaled_dot_product_attention = _fused_attention
            # What does not depend on the batch, such as weights cast by autocast, cancels. Which maps a GPU
            # keeps, for being small, is decided for the first batch in both.
            for images in (batch, batch + 1):
                with _forced_autocast(device, dtype), keeping_below(MIN_BYTES * images / batch):
                    kept.append(bytes_kept(model, torch.empty(images, 3, *size, device=device)))
        finally:
            F.scaled_dot_product_attention = attention
    return kept[1] - kept[0]


def build_config(cfg: Config) -> nn.Module:
    """Build the model of a config with random weights, in eval mode, with fixed proposals.

    Proposals of random weights differ between models and runs, and so does the time that it takes to process
    them. Here the output of the region proposal network depends on the size of the image alone.

    Args:
        cfg (Config): A config of MMDetection, MMSegmentation or MMPretrain.

    Raises:
        UsageError: The config has no model.
    """
    if 'model' not in cfg:
        raise UsageError(f"'{cfg.filename}' has no model: give a config that can be trained")
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        model = MODELS.build(cfg.model).eval()
    if hasattr(model, 'rpn_head'):
        for name, values in (('rpn_cls', _ranks), ('rpn_reg', _shifts)):
            if hasattr(model.rpn_head, name):
                getattr(model.rpn_head, name).register_forward_hook(_Replace(values))
    return model


def _ranks(*shape: int, generator: torch.Generator) -> torch.Tensor:
    """Scores in random order, the highest equal for maps of all sizes, so that each level has proposals."""
    count = math.prod(shape)
    return torch.randperm(count, generator=generator).view(shape) / -1000


def _shifts(*shape: int, generator: torch.Generator) -> torch.Tensor:
    """Offsets from anchors and logarithms of sizes, as small as those of trained networks."""
    return 0.2 * torch.randn(shape, generator=generator)


class _Replace:
    """A forward hook that replaces the output of a layer by fixed values."""

    def __init__(self, values: Callable[..., torch.Tensor]) -> None:
        self.values = values
        self.known: dict[torch.Size, torch.Tensor] = {}

    def __call__(self, module: nn.Module, args: Any, out: torch.Tensor) -> torch.Tensor:
        if out.shape not in self.known:
            self.known[out.shape] = self.values(*out.shape, generator=torch.Generator().manual_seed(0))
        return self.known[out.shape].to(out)


def run_config(model: nn.Module, image: torch.Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Run a model of :func:`build_config` once, as a test does, without reading and resizing images.

    Segmentors and classifiers give logits, detectors boxes and masks; with random weights nearly none of them
    passes the threshold, so that mask heads have nothing to do.

    Args:
        model (nn.Module): The model.
        image (Tensor): Images, ``(B, C, H, W)``.
        dtype (torch.dtype): Of autocast; float32 disables it. Defaults to float32.
    """
    with torch.inference_mode(), _autocast(image, dtype):
        if not hasattr(model, 'bbox_head') and not hasattr(model, 'roi_head'):
            model(image, mode='tensor')
            return
        size = tuple(image.shape[-2:])
        meta = dict(
            img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1, 1)
        )
        from mmdet.structures import DetDataSample

        model(image, [DetDataSample(metainfo=meta) for _ in image], mode='predict')


def _autocast(image: torch.Tensor, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(image.device.type, dtype, enabled=dtype is not torch.float32)


def gelu_formula(x: torch.Tensor) -> torch.Tensor:
    """GELU as arXiv:2210.13452 writes it, eq. 11, one operation after the other."""
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


class PlainStarReLU(nn.Module):
    """StarReLU as arXiv:2210.13452 writes it, one operation after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it elementwise to a tensor of any shape."""
        return self.scale * torch.relu(x) ** 2 + self.bias


def activations() -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """The activations of Table XI of arXiv:2210.13452, by their names there, and ours."""
    return {
        'GELU (PyTorch)': nn.GELU(),
        'GELU (formula)': gelu_formula,
        'StarReLU (formula)': PlainStarReLU(),
        'StarReLU (ours)': StarReLU(),
    }


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
        dtype (torch.dtype): Of autocast; float32 disables it. Defaults to float32.
    """
    with torch.inference_mode(not train), _autocast(image, dtype):
        features = model(image)
    if train:
        sum(feature.float().sum() for feature in features).backward()


def measure_peak(run: Callable[[], object], device: str) -> int:
    """Peak bytes of a call, beyond those allocated before it."""
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    try:
        import resource
    except ModuleNotFoundError as error:
        raise UsageError('this system does not report the peak of a process: measure on Linux') from error
    # Callers use a new process: the peak of a process never decreases.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def _measure_features(
    build: Callable[[], nn.Module],
    shape: tuple[int, int, int, int],
    train: bool,
    dtype: torch.dtype,
    device: str,
    threads: int,
) -> int:
    """Peak bytes of a backbone beyond its parameters."""
    torch.set_num_threads(threads)
    model = build().to(device)
    model.train(train)  # some of MMPretrain's return nothing
    run_features(model, torch.randn(1, 3, 64, 64, device=device), train, dtype)  # gradients; warm-up
    return measure_peak(lambda: run_features(model, torch.randn(*shape, device=device), train, dtype), device)


def peak_bytes(
    build: Callable[[], nn.Module],
    shape: tuple[int, int, int, int],
    train: bool = False,
    dtype: torch.dtype = torch.float32,
    device: str = 'cpu',
) -> int:
    """Peak memory of a backbone, in a process of its own.

    Args:
        build (callable): Builds the backbone; it is pickled.
        shape (tuple[int, int, int, int]): Of the images, ``(B, C, H, W)``.
        train (bool): Forward and backward instead of forward alone. Defaults to False.
        dtype (torch.dtype): Of autocast; float32 disables it. Defaults to float32.
        device (str): ``'cpu'`` or ``'cuda'``. Defaults to ``'cpu'``.

    Returns:
        int: Peak bytes of the call, beyond parameters, gradients and earlier allocations.
    """
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(_measure_features, (build, shape, train, dtype, device, torch.get_num_threads()))


def _measure_layer(
    side: int, dim: int, window: int | None, train: bool, device: str, repeats: int, threads: int
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

    run(16)  # warm-up
    peak = measure_peak(lambda: run(side), device)
    (timing,) = time_alternating([lambda: run(side)], repeats, warmup=0)
    return timing.median, peak


def measure_layer(
    side: int,
    dim: int = 320,
    window: int | None = 13,
    train: bool = False,
    device: str = 'cpu',
    repeats: int = 3,
) -> tuple[float, int]:
    """Measure an attention layer in a process of its own.

    Args:
        side (int): Height and width of the map in tokens.
        dim (int): Channels. Defaults to 320.
        window (int | None): Side of the window; None for global attention. Defaults to 13.
        train (bool): Forward and backward instead of forward alone. Defaults to False.
        device (str): ``'cpu'`` or ``'cuda'``. Defaults to ``'cpu'``.
        repeats (int): Timed calls. Defaults to 3.

    Returns:
        tuple[float, int]: Median seconds, and peak bytes beyond those allocated before the call.
    """
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        arguments = (side, dim, window, train, device, repeats, torch.get_num_threads())
        return pool.apply(_measure_layer, arguments)
