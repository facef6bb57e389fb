"""Resuming the order of the data."""

import time
from itertools import chain

import pytest
from mmcv.transforms import Compose
from mmdet.datasets.transforms import CachedMixUp, CachedMosaic
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmmeta.engine import EpochBasedTrainLoop, IterBasedTrainLoop, ResumableBatchSampler, random_state
from mmmeta.engine.random_state import find_caching_transforms


class Images(Dataset):
    """As many images as ADE20K has; none may be loaded while a run resumes."""

    metainfo = None

    def __init__(self, length=20_210):
        self.length = length
        self.loaded = []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.loaded.append(index)
        return index


class FakeRunner:
    """What a loop asks of its runner."""

    seed = 3
    val_loop = None
    logger = type('Logger', (), dict.fromkeys(('info', 'warning'), staticmethod(print)))
    visualizer = type('Visualizer', (), {})()

    def __init__(self):
        self._randomness_cfg = {}

    build_dataloader = staticmethod(Runner.build_dataloader)


def loop_over(dataset, sampler, **loader):
    loader = dict(
        dataset=dataset,
        sampler=sampler,
        batch_size=16,
        num_workers=0,
        collate_fn=dict(type='pseudo_collate'),
        **loader,
    )
    return IterBasedTrainLoop(FakeRunner(), loader, max_iters=1_000_000)


@pytest.mark.parametrize(
    ('sampler', 'start'),
    [
        (dict(type='InfiniteSampler', shuffle=True), 5),
        (dict(type='InfiniteSampler', shuffle=True), 12),
        (dict(type='DefaultSampler', shuffle=True), 3),
        (dict(type='DefaultSampler', shuffle=True), 4),
        (dict(type='DefaultSampler', shuffle=True), 11),
    ],
)
@pytest.mark.parametrize('batch_sampler', [None, dict(type='BatchSampler', drop_last=True)])
def test_a_resumed_loop_gets_the_batches_of_an_uninterrupted_one(sampler, start, batch_sampler, monkeypatch):
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)  # MMEngine's pause between passes
    if batch_sampler:
        from mmengine.registry import DATA_SAMPLERS
        from torch.utils.data import BatchSampler

        if 'BatchSampler' not in DATA_SAMPLERS:
            DATA_SAMPLERS.register_module(module=BatchSampler)
    whole = loop_over(Images(60), dict(sampler), batch_sampler=batch_sampler)
    whole._start_data()
    batches = [next(whole.dataloader_iterator) for _ in range(start + 6)]
    resumed = loop_over(Images(60), dict(sampler), batch_sampler=batch_sampler)
    resumed._iter = start
    resumed._start_data()
    assert resumed.dataloader.dataset.loaded == []
    assert [next(resumed.dataloader_iterator) for _ in range(6)] == batches[start:]


def test_iteration_100_000_is_there_within_a_minute_and_no_image_is_loaded():
    loop = loop_over(Images(), dict(type='InfiniteSampler', shuffle=True))
    loop._iter = 100_000
    start = time.monotonic()
    loop._start_data()
    assert time.monotonic() - start < 60
    assert loop.dataloader.dataset.loaded == []


def test_advance_stops_at_the_end_of_a_pass():
    batches = ResumableBatchSampler(DefaultSampler(Images(10), shuffle=False), 4)
    assert len(batches) == 3
    assert batches.advance(2) == 2
    assert list(batches) == [[8, 9]]
    assert list(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert batches.advance(5) == 3
    dropped = ResumableBatchSampler(DefaultSampler(Images(10), shuffle=False), 4, drop_last=True)
    assert list(dropped) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    infinite = ResumableBatchSampler(InfiniteSampler(Images(10), shuffle=False, seed=0), 4)
    assert infinite.advance(1000) == 1000


class Recorder(FakeRunner):
    """Also trains: it keeps the batches."""

    seed = 0
    optim_wrapper = None

    def __init__(self):
        super().__init__()
        self.model, self.batches = self, []

    def call_hook(self, name, **_):
        pass

    def train(self):
        pass

    def train_step(self, data_batch, optim_wrapper):
        self.batches.append(data_batch)


class RandomImages(Images):
    """Images that are drawn at random."""

    def __getitem__(self, index):
        import random

        import numpy as np
        import torch

        return [index, random.random(), np.random.rand(), torch.rand(1).item()]


def epochs(start, workers=2, max_epochs=3, epoch=None, length=5):
    """The batches of three epochs of five, from an iteration on."""
    loader = dict(
        dataset=RandomImages(10),
        sampler=dict(type='DefaultSampler', shuffle=True, seed=1),
        batch_size=2,
        num_workers=workers,
        collate_fn=dict(type='pseudo_collate'),
    )
    runner = Recorder()
    loop = EpochBasedTrainLoop(runner, loader, max_epochs)
    loop._epoch, loop._iter = start // 5 if epoch is None else epoch, start
    loop.resumed_length = length
    loop.run()
    assert loop._epoch == max_epochs
    return runner.batches


def test_epochs_go_on_in_the_middle_with_the_same_random_numbers():
    whole = epochs(0)
    assert len({str(batch) for batch in whole}) == 15  # an image differs from epoch to epoch
    for start in (3, 5, 11):
        assert epochs(start) == whole[start:]
    # Stopped at the last iteration of an epoch, which was not over yet.
    assert epochs(5, epoch=0) == whole[5:]
    # Of a data set of another length: from the beginning of the epoch.
    assert epochs(7, length=6) == whole[5:]


def test_a_position_is_drawn_alike_whatever_worker_reads_it():
    assert epochs(0, workers=1) == epochs(0, workers=3)


def test_each_process_draws_numbers_of_its_own(monkeypatch):
    first = epochs(0, max_epochs=1)
    monkeypatch.setattr(random_state, 'get_rank', lambda: 1)
    second = epochs(0, max_epochs=1)
    for (indices, *drawn), (same, *others) in zip(first, second, strict=True):
        assert indices == same and not {*chain(*drawn)} & {*chain(*others)}


def test_transforms_that_keep_images_are_named(capfd):
    mosaic, mix_up = CachedMosaic(), CachedMixUp()
    images = Images(60)
    images.pipeline = Compose([mosaic, dict(type='Resize', scale=(8, 8))])
    assert find_caching_transforms(images) == ['CachedMosaic']
    mixing = Images(60)
    mixing.dataset, mixing.pipeline = images, [mix_up]
    assert find_caching_transforms(mixing) == ['CachedMixUp', 'CachedMosaic']
    loop = loop_over(mixing, dict(type='InfiniteSampler'))
    loop._start_data()
    message = (
        'CachedMixUp, CachedMosaic keep images between calls, which are not in a checkpoint: a run that is '
    )
    assert message + 'resumed differs from an uninterrupted one' in capfd.readouterr().out
    assert find_caching_transforms(Images(60)) == []
