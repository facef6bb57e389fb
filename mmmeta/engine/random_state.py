"""Random numbers that do not depend on when a run was started: of processes, and of data workers."""

import hashlib
import os
import random
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from torch.utils.data import DataLoader, get_worker_info

from mmmeta.utils.processes import signals


def capture_random_state() -> dict[str, Any]:
    """The states of the generators of this process: of Python, NumPy, torch, and torch on its GPU."""
    version, words, gauss = random.getstate()
    return dict(
        python=(version, torch.tensor(words), gauss),
        numpy=np.random.get_state(legacy=False),
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    )


def gather_random_states() -> list[dict[str, Any]]:
    """The states of all processes, on each of them."""
    return all_gather_object(capture_random_state())


def restore_random_state(states: list[dict[str, Any]]) -> bool:
    """Continue with the random numbers of an earlier run.

    Args:
        states (list[dict]): Result of :func:`gather_random_states` then.

    Returns:
        bool: False, and nothing was changed, if that run had another number of processes.
    """
    if len(states) != get_world_size():
        return False
    state = states[get_rank()]
    version, words, gauss = state['python']
    random.setstate((version, tuple(words.tolist()), gauss))
    numpy_state = dict(state['numpy'])
    numpy_state['state'] = dict(numpy_state['state'], key=numpy_state['state']['key'].astype(np.uint32))
    np.random.set_state(numpy_state)
    torch.set_rng_state(state['torch'].cpu())
    if state['cuda'] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())
    return True


class DrawnIndex(int):
    """An index of a data set, with its position in the order of the run, from which random numbers follow."""

    position: tuple[int, ...] = ()

    def __reduce__(self) -> tuple:
        return _drawn_index, (int(self), self.position)


def _drawn_index(index: int, position: tuple[int, ...]) -> DrawnIndex:
    drawn = DrawnIndex(index)
    drawn.position = position
    return drawn


def number_batches(batches: Iterator[list[int]], *position: int) -> Iterator[list[DrawnIndex]]:
    """Add the position to the indices of batches.

    Args:
        batches (Iterator[list[int]]): Batches of indices.
        position (int): Numbers that are common to all, such as the epoch.
    """
    for i, batch in enumerate(batches):
        yield [
            # Others than integers, such as a video and its frame, are left.
            _drawn_index(index, (*position, i, j)) if isinstance(index, (int, np.integer)) else index
            for j, index in enumerate(batch)
        ]


def seed_generators(*numbers: int) -> None:
    """Seed the generators of Python, NumPy and torch with several numbers."""
    digest = hashlib.sha256(' '.join(map(str, numbers)).encode()).digest()
    random.seed(digest)
    np.random.seed(np.frombuffer(digest, np.uint32))
    torch.random.default_generator.manual_seed(int.from_bytes(digest[:7], 'big'))


class _SeedingWorker:
    """A worker's initialisation, after which each image is drawn with random numbers of its own.

    Args:
        seed (int): Of the run.
        rank (int): Of the process.
        initialise (callable | None): The initialisation before.
    """

    def __init__(self, seed: int, rank: int, initialise: Any) -> None:
        self.seed, self.rank, self.initialise = seed, rank, initialise

    def __call__(self, worker_id: int) -> None:
        # Signals are for the process that reads from this one: not those that a terminal sends to a whole
        # group, and Slurm to all processes of a job.
        if hasattr(os, 'setpgrp'):
            os.setpgrp()
        for number in signals('SIGINT', 'SIGUSR1'):
            signal.signal(number, signal.SIG_IGN)
        # By a second one that process ends this one, should it not have ended by itself.
        signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))
        if self.initialise is not None:
            self.initialise(worker_id)
        dataset, seed, rank = get_worker_info().dataset, self.seed, self.rank
        kind = type(dataset)

        def getitem(self: Any, index: int) -> Any:
            if isinstance(index, DrawnIndex):
                seed_generators(seed, rank, *index.position)
                index = int(index)
            return kind.__getitem__(self, index)

        # The worker has a copy of the data set of its own; Python looks up the method in the class.
        dataset.__class__ = type(
            kind.__name__, (kind,), dict(__getitem__=getitem, __module__=kind.__module__)
        )


def draw_by_position(dataloader: DataLoader, seed: int) -> None:
    """Let what a data loader draws depend on the seed and the position alone, not on when it was started.

    Its batch sampler yields :class:`DrawnIndex`. Without workers the process itself draws.

    Args:
        dataloader (DataLoader): The data loader; it is changed.
        seed (int): Of the run.
    """
    # Otherwise each start would draw a number from torch's generator, in which a resumed run differs.
    dataloader.generator = torch.Generator().manual_seed(seed)
    if dataloader.num_workers:
        dataloader.worker_init_fn = _SeedingWorker(seed, get_rank(), dataloader.worker_init_fn)


def find_caching_transforms(dataset: Any) -> list[str]:
    """Names of transforms that keep images between calls, such as MMDetection's ``CachedMosaic``.

    Args:
        dataset (Dataset): A data set, with others inside or not, whose transforms are in ``pipeline``.
    """
    names, parts = [], [dataset]
    while parts:
        part = parts.pop()
        if hasattr(part, 'results_cache'):
            names.append(type(part).__name__)
        for key in ('dataset', 'datasets', 'pipeline', 'transforms', 'transform'):
            inner = getattr(part, key, None)
            parts += inner if isinstance(inner, (list, tuple)) else [] if inner is None else [inner]
    return sorted(set(names))
