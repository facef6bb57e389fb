"""A training loop that resumes without replaying its data."""

import time
from collections.abc import Iterator
from typing import Any

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.runner import IterBasedTrainLoop as MMEngineIterBasedTrainLoop
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from mmengine.runner.utils import calc_dynamic_intervals
from torch.utils.data import BatchSampler, Sampler

from mmmeta.registry import DATA_SAMPLERS, LOOPS


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler:
    """Batches of indices that can be advanced without loading an image.

    Args:
        sampler (Sampler): Draws indices.
        batch_size (int): Indices of a batch.
        drop_last (bool): Whether to leave out an incomplete last batch. Defaults to False.
        batch_sampler (dict | None): Config of the batch sampler to advance. Defaults to None: consecutive
            indices make a batch.
    """

    def __init__(
        self, sampler: Sampler, batch_size: int, drop_last: bool = False, batch_sampler: dict | None = None
    ) -> None:
        if batch_sampler is None:
            self._batches = BatchSampler(sampler, batch_size, drop_last)
        else:
            self._batches = MMENGINE_DATA_SAMPLERS.build(
                batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size)
            )
        self.sampler = sampler
        self.batch_size = batch_size
        self._started: Iterator | None = None

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches after those that :meth:`advance` skipped, or all."""
        iterator, self._started = self._started or iter(self._batches), None
        yield from iterator

    def __len__(self) -> int:
        """Number of batches of a pass."""
        return len(self._batches)

    def advance(self, num_batches: int) -> int:
        """Skip batches; the next iteration starts after them.

        Args:
            num_batches (int): Number of batches to skip.

        Returns:
            int: Number of batches skipped: fewer at the end of a pass.
        """
        self._started = iter(self._batches)
        drawn = 0
        while drawn < num_batches and next(self._started, None) is not None:
            drawn += 1
        return drawn


@LOOPS.register_module()
class IterBasedTrainLoop(MMEngineIterBasedTrainLoop):
    """MMEngine's ``IterBasedTrainLoop``, which resumes without loading past batches.

    MMEngine loads and transforms every past batch again before it continues. Here only their indices are
    drawn, so that a resumed run receives the same images in the same order within seconds.

    Args:
        runner (Runner): The runner.
        dataloader (dict): Config of the data loader.
        max_iters (int): Iterations to train.
        val_begin (int): First iteration after which to validate. Defaults to 1.
        val_interval (int): Iterations between validations. Defaults to 1000.
        dynamic_intervals (list | None): Pairs of a milestone and the interval after it. Defaults to None.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        dataloader = dict(dataloader)
        batch_sampler = dict(
            type='mmmeta.ResumableBatchSampler', batch_sampler=dataloader.pop('batch_sampler', None)
        )
        if batch_sampler['batch_sampler'] is None:
            batch_sampler['drop_last'] = dataloader.pop('drop_last', False)
        # Not the parent's constructor: it would start to load data before the runner has resumed.
        BaseLoop.__init__(self, runner, dict(dataloader, batch_sampler=batch_sampler))
        self._max_iters = int(max_iters)
        self._max_epochs = 1
        self._epoch = 0
        self._iter = 0
        self.val_begin = val_begin
        self.val_interval = val_interval
        self.stop_training = False
        self.runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)
        self.dataloader_iterator: Any = None
        self.dynamic_milestones, self.dynamic_intervals = calc_dynamic_intervals(
            self.val_interval, dynamic_intervals
        )

    def _start_data(self) -> None:
        """Start loading data after the batches that have been trained on."""
        batch_sampler = self.dataloader.batch_sampler
        epoch, behind, start = 0, self._iter, time.monotonic()
        while behind > 0:
            drawn = batch_sampler.advance(behind)
            if drawn == 0:
                raise RuntimeError('the training data set is empty')
            behind -= drawn
            if behind > 0:
                epoch += 1
                batch_sampler.sampler.set_epoch(epoch)
        if self._iter:
            self.runner.logger.info(
                f'data loading resumes after batch {self._iter} (skipped in {time.monotonic() - start:.1f} s)'
            )
        self.dataloader_iterator = _InfiniteDataloaderIterator(self.dataloader)
        self.dataloader_iterator._epoch = epoch

    def run(self) -> Any:
        """Train.

        Returns:
            nn.Module: The model.
        """
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self._start_data()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
            if self.runner.val_loop is not None and self._iter >= self.val_begin and due:
                self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model
