"""Memory and speed of a training, before it is started."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner

from mmmeta.config import adapt
from mmmeta.config.building import build
from mmmeta.config.data import check_data, explain_data_errors
from mmmeta.models.ops import MIN_BYTES, keeping_below
from mmmeta.utils.errors import UsageError
from mmmeta.utils.processes import physical_memory

from .storages import StorageLog

# Of the memory of a device; the rest is for libraries, fragments and other processes.
USABLE = 0.9
# Images of which the largest is taken.
SAMPLE = 8
# Images of which the maps are small enough for a GPU to keep them.
DECIDING_BATCH = 8
CGROUP = Path('/sys/fs/cgroup/memory.max')


@dataclass(frozen=True)
class Forecast:
    """What a training step takes.

    Attributes:
        device (str): Where it was counted.
        precision (str): ``'float32'``, or that of mixed precision.
        shape (tuple[int, ...]): Shape of the largest of some images.
        batch_sizes (tuple[int, int]): Batches that were run.
        peaks (tuple[int, int]): Bytes of tensors at the peak of a step with each: weights, gradients, state
            of the optimiser and activations.
        seconds (float): Time of a step with the larger batch.
        memory (int): Bytes that the device has.
    """

    device: str
    precision: str
    shape: tuple[int, ...]
    batch_sizes: tuple[int, int]
    peaks: tuple[int, int]
    seconds: float
    memory: int

    @property
    def bytes_per_image(self) -> float:
        """Bytes of one image more."""
        return (self.peaks[1] - self.peaks[0]) / (self.batch_sizes[1] - self.batch_sizes[0])

    @property
    def images_per_second(self) -> float:
        """Images that a process trains on in a second, without the time of loading them."""
        return self.batch_sizes[1] / self.seconds

    def peak_of(self, batch_size: int) -> float:
        """Bytes of a step with another batch, on the line through the two that were counted."""
        return self.peaks[0] + self.bytes_per_image * (batch_size - self.batch_sizes[0])

    @property
    def largest_batch(self) -> int:
        """The largest batch whose step takes 90 % of the memory at most; 0 if none fits."""
        rest = USABLE * self.memory - self.peak_of(0)
        return max(int(rest / self.bytes_per_image), 0) if self.bytes_per_image > 0 else 0


class TrainingStep:
    """Training steps of a config with batches of one image, several times: no weights are loaded.

    Args:
        cfg (Config): As :func:`~mmmeta.apis.load_config` returns it.

    Raises:
        UsageError: The config cannot be trained, or its data are not there.
    """

    def __init__(self, cfg: Config) -> None:
        missing = [key for key in ('model', 'train_dataloader', 'optim_wrapper') if not cfg.get(key)]
        if missing:
            raise UsageError(f"'{cfg.filename}' has no {' and no '.join(missing)}: nothing can be trained")
        self.cfg = cfg = copy.deepcopy(cfg)
        check_data(cfg, ['train_dataloader'])
        adapt(cfg, device=True)
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        self.device = get_device()
        with explain_data_errors(cfg, ['train_dataloader'], 'building'):
            dataset = build(DATASETS.build, cfg.train_dataloader.dataset)
            if hasattr(dataset, 'full_init'):
                dataset.full_init()
        with explain_data_errors(cfg, ['train_dataloader'], 'reading'):
            self.sample = _largest(dataset)
        model = revert_sync_batchnorm(build(MODELS.build, cfg.model))
        self.model = model.to(self.device).train()
        self.optim_wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)

    def run(self, batch_size: int) -> float:
        """Run a step; its seconds."""
        batch = self._batch(batch_size)
        self._wait()
        start = time.monotonic()
        self.model.train_step(batch, optim_wrapper=self.optim_wrapper)
        self._wait()
        return time.monotonic() - start

    def count(self, batch_size: int) -> int:
        """Run a step; bytes of tensors at its peak: by the allocator on a GPU, one by one elsewhere."""
        if self.device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
            # Both batches recompute the same maps, or the line through them would have no meaning.
            with keeping_below(MIN_BYTES * batch_size / DECIDING_BATCH):
                self.run(batch_size)
            return torch.cuda.max_memory_allocated()
        states = [value for state in self.optim_wrapper.optimizer.state.values() for value in state.values()]
        gradients = [parameter.grad for parameter in self.model.parameters()]
        alive = [*self.model.parameters(), *self.model.buffers(), *gradients, *states]
        with StorageLog([tensor for tensor in alive if isinstance(tensor, torch.Tensor)]) as log:
            self.run(batch_size)
        return log.peak

    def _batch(self, size: int) -> Any:
        loader = dict(
            dataset=[copy.deepcopy(self.sample) for _ in range(size)],
            batch_size=size,
            sampler=dict(type='DefaultSampler', shuffle=False),
        )
        if 'collate_fn' in self.cfg.train_dataloader:
            loader['collate_fn'] = self.cfg.train_dataloader.collate_fn
        return next(iter(Runner.build_dataloader(loader)))

    def _wait(self) -> None:
        if self.device == 'cuda':
            torch.cuda.synchronize()


def forecast(cfg: Config, progress: Callable[[Sequence], Iterator] = iter) -> Forecast:
    """Run four training steps with two small batches, and say what larger ones would take.

    No weights are loaded, nothing is written, and memory does not run out: what larger batches take is on the
    line through the two that were counted. On several processes each takes as much, and as much as the
    gradients once more. A GPU keeps small maps instead of recomputing them; here those that it keeps of eight
    images, so that it takes a little more for fewer, and less for more.

    Args:
        cfg (Config): As :func:`~mmmeta.apis.load_config` returns it.
        progress (callable): Wraps the steps. Defaults to ``iter``.

    Raises:
        UsageError: The config cannot be trained, or its data are not there.
    """
    step = TrainingStep(cfg)
    # A norm over the one pixel of a pooled map needs two.
    smaller, larger = (2, 3) if cfg.get('default_scope') == 'mmseg' else (1, 2)
    # The first step makes the state of the optimiser.
    calls = [step.run, step.count, step.count, step.run]
    sizes = [smaller, smaller, larger, larger]
    _, *peaks, seconds = [calls[i](sizes[i]) for i in progress(range(len(calls)))]
    wrapper, on_gpu = step.cfg.optim_wrapper, step.device == 'cuda'
    amp = wrapper.get('type') in ('AmpOptimWrapper', 'mmmeta.Bf16OptimWrapper')
    dtype = wrapper.get('dtype') or ('float16' if on_gpu else 'bfloat16')
    return Forecast(
        device=torch.cuda.get_device_name() if on_gpu else step.device,
        precision=f'mixed precision ({dtype})' if amp else 'float32',
        shape=tuple(step.sample['inputs'].shape),
        batch_sizes=(smaller, larger),
        peaks=tuple(peaks),
        seconds=seconds,
        memory=_memory(step.device),
    )


def _largest(dataset: Any) -> dict[str, Any]:
    """The largest of some images, as the pipeline leaves it."""
    count = len(dataset)
    samples = [dataset[i] for i in range(0, count, max(1, count // SAMPLE))]
    return max(samples, key=lambda sample: sample['inputs'].numel())


def _memory(device: str) -> int:
    """Bytes of the device, or of the group of processes that this one is in."""
    if device == 'cuda':
        return torch.cuda.get_device_properties(0).total_memory
    total = physical_memory()
    if total is None:
        raise UsageError('this system does not report its memory: forecast on Linux or macOS, or on a GPU')
    limit = CGROUP.read_text().strip() if CGROUP.is_file() else 'max'
    return min(total, int(limit)) if limit.isdigit() else total
