"""The hook that writes checkpoints."""

import inspect
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, barrier, broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from mmmeta.registry import HOOKS
from mmmeta.utils.atomic import NO_ROOM, publish, written
from mmmeta.utils.errors import UsageError, shorten
from mmmeta.utils.mmengine_private import checkpoint_of, is_resuming

from .accumulation import gather_gradients
from .checkpoint import from_plain, to_plain
from .random_state import gather_random_states
from .resuming import POINTER, find_last_checkpoint, optimizer_kinds, remove_paths

# Seconds between tries to write on a disk that is full.
ROOM_INTERVAL = 10
# The file in a work directory that lists the checkpoints of its run.
WRITTEN = 'checkpoints.json'
# Characters in the name of a file.
MAX_NAME = 255
# Sharded checkpoints are folders with one of these: PyTorch's, FSDP's, DeepSpeed's (up to stage 2, and 3) and
# ColossalAI's.
SHARDS = (
    *('.metadata', 'rank0.pth', 'mp_rank_00_model_states.pt'),
    *('zero_pp_rank_0_mp_rank_00_model_states.pt', 'meta.pth'),
)


@contextmanager
def waiting_for_room(runner: Runner) -> Iterator[None]:
    """Leave out what has no room on the disk, in a run that waits for some at its checkpoints."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM or not any(getattr(hook, 'wait_for_room', 0) for hook in runner.hooks):
            raise


def _train_sampler(runner: Runner) -> Any:
    """The sampler that draws the training images."""
    dataloader = getattr(runner.train_loop, 'dataloader', None)
    if dataloader is None:  # a loop over several data loaders
        return None
    if hasattr(dataloader.sampler, 'seed'):
        return dataloader.sampler
    return getattr(dataloader.batch_sampler, 'sampler', None)


class _SavingAtomically:
    """A runner whose checkpoints appear when they are complete."""

    def __init__(self, runner: Runner, hook: 'CheckpointHook') -> None:
        self._runner, self._hook = runner, hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """As MMEngine's, under another name first."""
        backend = self._hook.file_backend
        if not isinstance(backend, LocalBackend):
            self._hook.note(self._runner, filename)
            self._runner.save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        path = os.path.join(out_dir, filename)
        last = self._hook.last_complete
        kept = f"the run can be resumed from '{last}'" if last else 'there is no earlier one'
        start = time.monotonic()
        while True:
            try:
                self._hook.note(self._runner, filename)
                self._runner.save_checkpoint(out_dir, f'{filename}.part', *args, **kwargs)
                barrier()  # all processes write sharded ones
                if is_main_process():
                    publish(f'{path}.part', path)
                return
            except OSError as error:
                if os.path.isfile(f'{path}.part'):
                    os.remove(f'{path}.part')
                problem = f"cannot write '{path}' ({error.strerror}): make room; {kept}"
                waited = time.monotonic() - start
                stopped = any(getattr(hook, 'received', 0) for hook in self._runner.hooks)
                if error.errno not in NO_ROOM or stopped or waited >= self._hook.wait_for_room:
                    raise UsageError(problem) from error
            left = self._hook.wait_for_room - waited
            self._runner.logger.warning(f'{problem}; waiting for room, {left:.0f} s at most')
            time.sleep(min(ROOM_INTERVAL, left))


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's ``CheckpointHook``, whose files load without executing code and are written atomically.

    The arguments are those of MMEngine's, and ``wait_for_room``. What differs:

    - every file loads with ``torch.load(path, weights_only=True)`` and still resumes exactly: with the random
      numbers of an uninterrupted run, by the states of the generators of all processes, and in the middle of
      accumulated gradients;
    - a file, the best one too, appears under its name when it is complete and on the disk, and older ones are
      pruned (``max_keep_ckpts``) after that: a run that is killed while it saves keeps the previous one;
    - only files that the run itself wrote are pruned or replaced by a better one: ``checkpoints.json`` in the
      work directory lists their names, of which those count that this hook gives, and no path in a checkpoint
      is followed;
    - weights that are not finite are not written;
    - a disk that is full ends the run in one sentence and leaves no part of a file;
    - the seed of the training sampler is saved and restored, so that a run without a fixed seed resumes
      with the same order of the data.

    Args:
        args: As MMEngine's hook takes them.
        wait_for_room (float): Seconds to wait for room on a disk that is full, before the run ends; logs and
            records that it keeps from being written are left out meanwhile. Other processes wait in their
            next communication: less than the timeout of the process group. Defaults to 0.
        kwargs: As MMEngine's hook takes them.
    """

    #: The newest checkpoint of this run that is complete.
    last_complete: str | None = None
    saved_iteration: int | None = None
    _random_states: list[dict] | None = None
    _gradients: list[dict] | None = None

    def __init__(self, *args: Any, wait_for_room: float = 0, **kwargs: Any) -> None:
        for key in ('save_best', 'rule', 'published_keys'):
            names = kwargs.get(key) or []
            names = [names] if isinstance(names, str) else names
            if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
                raise UsageError(f'{key}={names!r} of CheckpointHook: give a name, or a list of names')
        super().__init__(*args, **kwargs)
        # MMEngine passes what it does not know to the runner, at the first checkpoint.
        unknown = {*self.args} - {*inspect.signature(Runner.save_checkpoint).parameters}
        if unknown:
            raise UsageError(f'CheckpointHook takes no argument {shorten(sorted(unknown))}: remove it')
        if not isinstance(wait_for_room, (int, float)) or wait_for_room < 0:
            raise UsageError(f'wait_for_room={wait_for_room!r} of CheckpointHook: give a number of seconds')
        self.wait_for_room = wait_for_room
        for key in ('interval', 'max_keep_ckpts'):
            if type(getattr(self, key)) is not int:
                raise UsageError(f'{key}={getattr(self, key)!r} of CheckpointHook: give a number, or -1')
        template = self.filename_tmpl
        if not isinstance(template, str) or os.path.basename(template) != template or '{' not in template:
            raise UsageError(
                f"filename_tmpl={template!r} of CheckpointHook: give a file name such as 'iter_{{}}.pth'"
            )
        # Names of files that this run wrote, the newest last: its checkpoints, and the best of each metric.
        self._kept: list[str] = []
        self._best: dict[str, list[str]] = {}

    def before_train(self, runner: Runner) -> None:
        """Find what cannot be saved before there is anything to lose, and what the run has written before."""
        earlier, out_dir = remove_paths(runner.message_hub.runtime_info), self.out_dir
        super().before_train(runner)
        if is_resuming(runner):
            self.last_complete = checkpoint_of(runner) or find_last_checkpoint(runner.work_dir, out_dir)
        self._read_written(runner)
        left = {*earlier} - {name for names in self._best.values() for name in names}
        if self.save_best and left:
            runner.logger.info(
                f'the best checkpoint of the earlier run, {", ".join(sorted(left))}, is not listed in '
                f'{WRITTEN}: it is left alone'
            )
        options = dict(save_optimizer=True, save_param_scheduler=bool(runner.param_schedulers))
        lacking = [f'{key}=False' for key, needed in options.items() if needed and not getattr(self, key)]
        if lacking:
            runner.logger.warning(
                f'{", ".join(lacking)} of CheckpointHook: this run cannot be resumed from its checkpoints, '
                'they serve as load_from alone'
            )
        for name, value in runner.message_hub.runtime_info.items():
            try:
                to_plain(value, f'message_hub[{name!r}]')
            except TypeError as error:
                raise UsageError(f'the run could not be saved: {error}') from error

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn the checkpoint into plain values; runs after the other hooks, by its priority."""
        seed = getattr(_train_sampler(runner), 'seed', None)
        checkpoint['meta']['sampler_seed'] = None if seed is None else int(seed)
        checkpoint['meta']['epoch_length'] = getattr(runner.train_loop, 'epoch_length', None)
        checkpoint['meta']['optimizer'] = optimizer_kinds(runner.optim_wrapper)
        if self._random_states is not None:
            checkpoint['random_states'] = self._random_states
        if self._gradients is not None:
            checkpoint['gradients'] = self._gradients
        for key, value in checkpoint.items():
            checkpoint[key] = to_plain(value, key)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Turn plain values back into MMEngine's objects."""
        if not is_resuming(runner):
            return
        for key, value in checkpoint.items():
            checkpoint[key] = from_plain(value)
        states, gradients = checkpoint.pop('random_states', None), checkpoint.pop('gradients', None)
        seed, sampler = checkpoint.get('meta', {}).get('sampler_seed'), _train_sampler(runner)
        if seed is not None and hasattr(sampler, 'seed'):
            sampler.seed = seed
        runner.train_loop.random_states, runner.train_loop.gradients = states, gradients
        runner.train_loop.resumed_length = checkpoint.get('meta', {}).get('epoch_length')
        if states is None:
            runner.logger.warning(
                'the checkpoint has no states of random generators: what is drawn at random differs from an '
                'uninterrupted run'
            )

    def save_now(
        self, runner: Runner, epoch: int, iteration: int, states: list[dict] | None = None
    ) -> str | None:
        """Save the state of a run outside of the usual intervals.

        Args:
            runner (Runner): The runner.
            epoch (int): Epochs that are complete.
            iteration (int): Iterations that are complete.
            states (list[dict] | None): Random states of the processes. Defaults to None: those of now, for
                which all processes have to call this.

        Returns:
            str | None: The newest complete checkpoint, if there is one.
        """
        if iteration != self.saved_iteration:
            step = f'epoch_{epoch}_iter_{iteration}.pth' if self.by_epoch else iteration
            self._save_checkpoint_with_step(runner, step, dict(epoch=epoch, iter=iteration), states)
        return self.last_complete

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        if not self.save_best or not self._is_finite(runner):
            return
        # Losses of a validation are those of each process, which would decide otherwise than the others.
        shared = [metrics]
        broadcast_object_list(shared)
        metrics = shared[0]
        earlier = self._best_paths()
        # MMEngine would remove them before the new one is there.
        self._set_best_paths(dict.fromkeys(earlier))
        super()._save_best_checkpoint(_SavingAtomically(runner, self), metrics)
        better = {key: path for key, path in self._best_paths().items() if path}
        self._set_best_paths({**earlier, **better})
        for key in better:
            self._prune(self._best.get(key, []), 1)

    @property
    def best_checkpoints(self) -> list[str]:
        """The best checkpoints, one for each metric that has been measured."""
        return [path for path in self._best_paths().values() if path]

    def _best_paths(self) -> dict[str, str | None]:
        """The best checkpoint of each metric; a single metric needs no name."""
        if not self.save_best:
            return {}
        return getattr(self, 'best_ckpt_path_dict', None) or dict(best=getattr(self, 'best_ckpt_path', None))

    def _set_best_paths(self, paths: dict[str, str | None]) -> None:
        if hasattr(self, 'best_ckpt_path_dict'):
            self.best_ckpt_path_dict.update(paths)
        elif paths:
            self.best_ckpt_path = paths['best']

    def note(self, runner: Runner, name: str) -> None:
        """List a file as one that this run wrote; before it is there, so that none is forgotten.

        Args:
            runner (Runner): The runner.
            name (str): Its name in the folder of the checkpoints.
        """
        if not is_main_process():
            return
        best = [key for key, path in self._best_paths().items() if path and os.path.basename(path) == name]
        for names in [self._best.setdefault(key, []) for key in best] or [self._kept]:
            names[:] = [other for other in names if other != name] + [name]
        with written(Path(runner.work_dir, WRITTEN)) as draft:
            draft.write_text(json.dumps(dict(kept=self._kept, best=self._best), indent=1))

    def _read_written(self, runner: Runner) -> None:
        """Continue the list of files that the run wrote before it was interrupted."""
        path = Path(runner.work_dir, WRITTEN)
        source = str(self.last_complete or '')
        folder, name = os.path.dirname(source) or '.', os.path.basename(source)
        own = os.path.realpath(folder) == os.path.realpath(self.out_dir) or folder == self.out_dir
        if not is_resuming(runner) or not own or not path.is_file():
            return
        try:
            content = json.loads(path.read_text())
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
            content = None
        content = content if isinstance(content, dict) else {}
        best = content.get('best')
        best = best if isinstance(best, dict) else {}
        kept = self._file_names(content.get('kept'))
        if name in kept:
            self._kept, paths = kept, self._best_paths()
            self._best = {key: self._file_names(best.get(key)) for key in paths}
            for key, names in self._best.items():
                paths[key] = self.file_backend.join_path(self.out_dir, names[-1]) if names else None
            self._set_best_paths(paths)

    def _file_names(self, names: Any) -> list[str]:
        """Those that name checkpoints in the folder of the checkpoints, as this hook writes them."""
        names = [n for n in names if isinstance(n, str)] if isinstance(names, list) else []
        return [n for n in names if self._is_own_name(n) and self._is_checkpoint(n)]

    def _is_own_name(self, name: str) -> bool:
        """Whether a name is one that this hook gives, whatever the number in it."""
        if name != os.path.basename(name) or not name.isprintable() or len(name) > MAX_NAME:
            return False
        templates = {self.filename_tmpl, 'epoch_{}.pth', 'iter_{}.pth'}
        numbers = map(int, re.findall('[0-9]{1,18}', name))
        plain = [re.escape(template.format(number)) for number in numbers for template in templates]
        plain.append(r'epoch_[0-9]+_iter_[0-9]+\.pth')
        return any(re.fullmatch(f'(best_.+_)?{pattern}', name) for pattern in plain)

    def _is_checkpoint(self, name: str) -> bool:
        """Whether a file of this name is there, or a folder with a sharded checkpoint."""
        path = self.file_backend.join_path(self.out_dir, name)
        if not self.file_backend.isdir(path):
            return self.file_backend.exists(path)
        return any(self.file_backend.exists(self.file_backend.join_path(path, shard)) for shard in SHARDS)

    def _prune(self, names: list[str], keep: int) -> None:
        """Remove all files but the newest."""
        while len(names) > keep:
            path = self.file_backend.join_path(self.out_dir, names.pop(0))
            if not is_main_process() or os.path.islink(path):
                continue
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # sharded
                self.file_backend.rmtree(path)

    @staticmethod
    def _is_finite(runner: Runner) -> bool:
        """Whether the weights are; an error in the log if not."""
        finite = torch.stack([p.detach().isfinite().all() for p in runner.model.parameters()]).all()
        finite = finite.float()
        all_reduce(finite, 'min')  # of shards, which differ
        if not finite:
            runner.logger.error('the weights are not finite: no checkpoint is written')
        return bool(finite)

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int | str, meta: dict, states: list[dict] | None = None
    ) -> None:
        if not self._is_finite(runner):
            return
        self._random_states = states or gather_random_states()
        self._gradients = gather_gradients(runner.model)
        # A string is the name of a file in the middle of an epoch.
        filename = step if isinstance(step, str) else self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        _SavingAtomically(getattr(runner, '_runner', runner), self).save_checkpoint(
            self.out_dir,
            filename,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._random_states = self._gradients = None
        self.last_complete, self.saved_iteration = self.last_ckpt, meta['iter']
        if not is_main_process():
            return
        with written(os.path.join(runner.work_dir, POINTER)) as draft:
            draft.write_text(self.last_ckpt)
        if self.max_keep_ckpts > 0:
            self._prune(self._kept, self.max_keep_ckpts)
