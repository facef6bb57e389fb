"""Training loops that resume without replaying their data, and exactly."""

import time
from collections.abc import Iterator
from typing import Any

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.runner import EpochBasedTrainLoop as MMEngineEpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as MMEngineIterBasedTrainLoop
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmengine.runner.utils import calc_dynamic_intervals
from torch.utils.data import BatchSampler, DataLoader, Sampler

from mmmeta.registry import DATA_SAMPLERS, LOOPS

from .accumulation import restore_gradients
from .random_state import (
    DrawnIndex,
    draw_by_position,
    find_caching_transforms,
    number_batches,
    restore_random_state,
)


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler:
    """Batches of indices that can be advanced without loading an image.

    The indices are :class:`~mmmeta.engine.random_state.DrawnIndex`: they know their epoch and their position.

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
        self.epoch = 0
        self._started: Iterator[list[DrawnIndex]] | None = None

    def _start(self) -> Iterator[list[DrawnIndex]]:
        return number_batches(iter(self._batches), self.epoch)

    def __iter__(self) -> Iterator[list[DrawnIndex]]:
        """Yield the batches after those that :meth:`advance` skipped, or all."""
        iterator, self._started = self._started or self._start(), None
        yield from iterator

    def __len__(self) -> int:
        """Number of batches of a pass."""
        return len(self._batches)

    def set_epoch(self, epoch: int) -> None:
        """Begin another pass."""
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def advance(self, num_batches: int) -> int:
        """Skip batches; the next iteration starts after them.

        Args:
            num_batches (int): Number of batches to skip.

        Returns:
            int: Number of batches skipped: fewer at the end of a pass.
        """
        self._started = self._start()
        drawn = 0
        while drawn < num_batches and next(self._started, None) is not None:
            drawn += 1
        return drawn


class _ResumableLoop(BaseLoop):
    """What both loops have in common.

    ``random_states`` and ``gradients`` are set by the checkpoint hook where a run is resumed.
    """

    random_states: list[dict] | None = None
    gradients: list[dict] | None = None
    resumed_length: int | None = None

    @property
    def epoch_length(self) -> int:
        """Batches of a pass, which a checkpoint notes."""
        return len(self.dataloader)

    def _build_data(self, dataloader: dict) -> dict:
        """The config of a data loader whose batches can be advanced."""
        dataloader = dict(dataloader)
        batch_sampler = dict(
            type='mmmeta.ResumableBatchSampler', batch_sampler=dataloader.pop('batch_sampler', None)
        )
        if batch_sampler['batch_sampler'] is None:
            batch_sampler['drop_last'] = dataloader.pop('drop_last', False)
        return dict(dataloader, batch_sampler=batch_sampler)

    def _seed_data(self) -> None:
        # Hooks read it, which PyTorch does not have with a batch sampler, and does not let anybody set.
        object.__setattr__(self.dataloader, 'batch_size', self.dataloader.batch_sampler.batch_size)
        seed = getattr(self.dataloader.batch_sampler.sampler, 'seed', None)
        draw_by_position(self.dataloader, self.runner.seed if seed is None else seed)
        caching = find_caching_transforms(self.dataloader.dataset)
        if caching:
            self.runner.logger.warning(
                f'{", ".join(caching)} keep images between calls, which are not in a checkpoint: a run that '
                'is resumed differs from an uninterrupted one'
            )
        if self.runner.val_loop is not None:
            # Otherwise a validation would draw from the generator of the training.
            draw_by_position(self.runner.val_dataloader, self.runner.seed)

    def _report_skipped(self, start: float) -> None:
        self.runner.logger.info(
            f'data loading resumes after batch {self._iter} (skipped in {time.monotonic() - start:.1f} s)'
        )

    def _restore_state(self) -> None:
        """Continue with the random numbers and gradients of the run that is resumed; data are loading."""
        states, self.random_states = self.random_states, None
        gradients, self.gradients = self.gradients, None
        if states is not None and not restore_random_state(states):
            self.runner.logger.warning(
                f'the checkpoint is of a run of {len(states)} processes: what is drawn at random differs '
                'from an uninterrupted run'
            )
        if gradients is not None and not restore_gradients(self.runner.model, gradients):
            self.runner.logger.warning('nor are the gradients restored that it had accumulated')
        elif gradients is not None:
            self.runner.logger.info('the gradients that were accumulated are restored: none is lost')


@LOOPS.register_module()
class IterBasedTrainLoop(_ResumableLoop, MMEngineIterBasedTrainLoop):
    """MMEngine's ``IterBasedTrainLoop``, which resumes without loading past batches.

    MMEngine loads and transforms every past batch again before it continues. Here only their indices are
    drawn, so that a resumed run receives the same images in the same order within seconds; and with the same
    random numbers, in the network and in the data's transforms.

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
        # Not the parent's constructor: it would start to load data before the runner has resumed.
        BaseLoop.__init__(self, runner, self._build_data(dataloader))
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
                batch_sampler.set_epoch(epoch)
        if self._iter:
            self._report_skipped(start)
        self._seed_data()
        self.dataloader_iterator = _InfiniteIterator(self.dataloader, epoch)
        self._restore_state()

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


class _InfiniteIterator:
    """Batches without end; each pass begins by the batch sampler.

    Args:
        dataloader (DataLoader): The data loader.
        epoch (int): The pass that it is in.
    """

    def __init__(self, dataloader: DataLoader, epoch: int) -> None:
        self._dataloader, self._epoch = dataloader, epoch
        self._iterator = iter(dataloader)

    def __iter__(self) -> '_InfiniteIterator':
        return self

    def __next__(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            self._epoch += 1
            self._dataloader.batch_sampler.set_epoch(self._epoch)
            self._iterator = iter(self._dataloader)
            return next(self._iterator)


@LOOPS.register_module()
class EpochBasedTrainLoop(_ResumableLoop, MMEngineEpochBasedTrainLoop):
    """MMEngine's ``EpochBasedTrainLoop``, which resumes in the middle of an epoch too.

    Args:
        runner (Runner): The runner.
        dataloader (dict): Config of the data loader.
        max_epochs (int): Epochs to train.
        val_begin (int): First epoch after which to validate. Defaults to 1.
        val_interval (int): Epochs between validations. Defaults to 1.
        dynamic_intervals (list | None): Pairs of a milestone and the interval after it. Defaults to None.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        data = self._build_data(dataloader)
        super().__init__(runner, data, max_epochs, val_begin, val_interval, dynamic_intervals)
        self._started = False

    def run_epoch(self) -> None:
        """Train for an epoch, or for what is left of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        batch_sampler = self.dataloader.batch_sampler
        batch_sampler.set_epoch(self._epoch)
        done = 0
        if not self._started:
            self._started = True
            self._seed_data()
            # Another data set or number of processes makes epochs of another length: from the beginning then.
            if self.resumed_length == len(self.dataloader):
                done = self._iter - self._epoch * len(self.dataloader)
                # Earlier epochs may have had another length.
                done = done if 0 <= done <= len(self.dataloader) else 0
            start = time.monotonic()
            if done:
                batch_sampler.advance(done)
                self._report_skipped(start)
        iterator = iter(self.dataloader)
        self._restore_state()
        for i, data_batch in enumerate(iterator, done):
            self.run_iter(i, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
