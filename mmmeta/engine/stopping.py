"""Runs that end early: at a signal, and when they have diverged."""

import os
import signal
import threading
import time
from contextlib import suppress
from itertools import chain
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

from mmmeta.registry import HOOKS
from mmmeta.utils.errors import UsageError
from mmmeta.utils.mmengine_private import adapts_loss_scale
from mmmeta.utils.processes import note_end, signals

from .checkpoint_hook import CheckpointHook
from .random_state import gather_random_states

# Slurm sends the last one before a job's time is over (`--signal=USR1@60`).
SIGNALS = signals('SIGTERM', 'SIGINT', 'SIGUSR1')


def _checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)


@HOOKS.register_module()
class StopHook(Hook):
    """End a run at SIGTERM, SIGINT or SIGUSR1 with a checkpoint of the whole state.

    The iteration is finished, all processes agree on where to stop, and the run leaves with 128 and the
    signal's number, as a shell reports it. During a validation the state from before it is written. A second
    SIGINT ends at once.

    The agreement of an iteration is read in the next one, so that no process waits for it.
    """

    # After all others, so that what they do in an iteration is done, and saved.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self.received = 0
        self.since = 0.0
        self.group: Any = None
        self.pending: tuple[torch.Tensor, Any] | None = None
        self.states: list[dict] | None = None
        self.val_batches = 0
        self.handlers: dict[int, Any] = {}

    def before_train(self, runner: Runner) -> None:
        """Listen."""
        self.process = os.getpid()
        if get_world_size() > 1:
            # Of its own, and not on a GPU, for which the process would have to wait.
            self.group = dist.new_group(backend='gloo')
        if threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a process that was forked, such as that of a pool, is to end
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        # A terminal sends it to all processes, and a launcher once more to those that it started.
        again = time.monotonic() - self.since > 1
        if self.received and number == signal.SIGINT and again:
            raise KeyboardInterrupt
        self.since = time.monotonic()
        self.received = number

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Stop if a process was told to."""
        if self._agreed():
            self._stop(runner, runner.epoch, runner.iter + 1)

    def _agreed(self) -> int:
        """The signal that was received by any process, the same on all; 0 without one."""
        if self.group is None:
            return self.received
        agreed = 0
        if self.pending is not None:
            number, work = self.pending
            work.wait()
            agreed = int(number)
        number = torch.tensor(self.received)
        self.pending = number, dist.all_reduce(number, dist.ReduceOp.MAX, group=self.group, async_op=True)
        self.received = agreed or self.received
        return agreed

    def before_val_epoch(self, runner: Runner) -> None:
        """Note the state that a resumed run continues with."""
        if self.handlers:
            self.states = gather_random_states()
            # A process may have more batches than another, and all have to communicate as often.
            self.val_batches = min(all_gather_object(len(runner.val_dataloader)))

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stop if a process was told to: nothing has changed since the last iteration."""
        if self.handlers and batch_idx < self.val_batches and self._agreed():
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # which validates the average in the place of the weights
                    hook.after_val_epoch(runner)
            self._stop(runner, runner.epoch, runner.iter, self.states)

    def _stop(self, runner: Runner, epoch: int, iteration: int, states: list[dict] | None = None) -> None:
        hook = _checkpoint_hook(runner)
        name = signal.Signals(self.received).name
        where = 'during a validation, which is not repeated, ' if states else ''
        saved = 'without a checkpoint, since the config has no CheckpointHook'
        if hook is not None:
            path = hook.save_now(runner, epoch, iteration, states)
            saved = f"resume from '{path}'" if path else 'there is no checkpoint'
            if hook.saved_iteration == iteration:
                note_end(f'stopped by {name} after iteration {iteration}')
            else:
                saved = f'without a checkpoint, since the weights are not finite; {saved}'
        runner.logger.info(f'stopped by {name} {where}after iteration {iteration}: {saved}')
        self._end()
        if self.group is not None:
            dist.barrier(self.group)  # until the first one has written it
        raise SystemExit(128 + self.received)

    def after_train(self, runner: Runner) -> None:
        """Leave signals to whoever handled them before."""
        self._end()

    def _end(self) -> None:
        if self.pending is not None:
            self.pending[1].wait()
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}


@HOOKS.register_module()
class SignOfLifeHook(Hook):
    """Touch a file now and then, so that other machines see that the run is alive.

    Args:
        path (str): The file.
        interval (float): Seconds at least in between. Defaults to 60.
    """

    def __init__(self, path: str, interval: float = 60) -> None:
        self.path, self.interval, self.last = path, interval, time.monotonic()

    def after_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Touch it, in training and validation."""
        if time.monotonic() - self.last >= self.interval:
            self.last = time.monotonic()
            with suppress(OSError):  # of a storage that is away for a moment
                os.utime(self.path)

    after_train_iter = after_val_iter = after_iter


@HOOKS.register_module()
class DivergenceHook(Hook):
    """End a run whose losses are not finite any more.

    Under float16's loss scaling losses count once the scale is below 1: until then it may be the scale that
    makes gradients overflow, and such steps are skipped. On a GPU the losses are looked at every ``patience``
    iterations, so that no iteration waits for it.

    Args:
        patience (int): Consecutive iterations with a loss that is not finite. Defaults to 10.
    """

    # After the losses have been averaged over the processes: all see the same.
    priority = 'LOW'

    def __init__(self, patience: int = 10) -> None:
        if type(patience) is not int or patience < 1:
            raise UsageError(f'patience={patience} of DivergenceHook: give a positive number of iterations')
        self.patience = patience
        self.names: list[str] = []
        self.counts = torch.zeros(0, dtype=torch.int64)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Count iterations in a row."""
        losses = {
            key: value.detach().float().reshape(())
            for key, value in (outputs or {}).items()
            if 'loss' in key and isinstance(value, torch.Tensor) and value.numel() == 1
        }
        if not losses:
            return
        finite = torch.stack(list(losses.values())).isfinite()
        if list(losses) != self.names:
            self.names, self.counts = list(losses), torch.zeros_like(finite, dtype=torch.int64)
        self.counts = (self.counts + 1).masked_fill(finite, 0)
        if finite.is_cuda and (runner.iter + 1) % self.patience:
            return
        counts = self.counts.tolist()
        # A scale that is fixed skips nothing that would come right.
        adapts = adapts_loss_scale(runner.optim_wrapper)
        scale = runner.optim_wrapper.loss_scaler.get_scale() if adapts else None
        if max(counts) < self.patience or (scale is not None and scale >= 1):
            return
        name = self.names[counts.index(max(counts))]
        amp = '' if scale is None else f', loss scale {scale:.3g}'
        rates = ', '.join(
            f'{rate:.3g}' for rate in sorted(set(chain(*runner.optim_wrapper.get_lr().values())))
        )
        hook = _checkpoint_hook(runner)
        last = hook and hook.last_complete
        raise UsageError(
            f'the run has diverged: {name} has not been finite for {max(counts)} iterations, up to iteration '
            f'{runner.iter + 1} (learning rate {rates}{amp}); '
            + (f"the last checkpoint with finite weights is '{last}'" if last else 'there is no checkpoint')
            + '. Lower the learning rate, or look for images or labels that make the loss infinite'
        )
