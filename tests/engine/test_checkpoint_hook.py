"""What a checkpoint holds, and that it is complete or not there."""

import errno
import itertools
import os
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

from mmmeta.engine import CheckpointHook, Runner, checkpoint_hook
from mmmeta.utils import atomic
from mmmeta.utils.errors import UsageError

COUNT = itertools.count()


class Model(BaseModel):
    """A layer with chance in it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, inputs, mode):
        return dict(loss=nn.functional.dropout(self.layer(inputs)).square().mean())


def train(folder, max_iters, accumulative_counts=1, resume=False, kind=Runner, **hook):
    runner = kind(
        model=Model(),
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.arange(3.0) + i) for i in range(8)],
            sampler=dict(type='InfiniteSampler'),
            collate_fn=dict(type='default_collate'),
            batch_size=2,
        ),
        train_cfg=dict(type='mmmeta.IterBasedTrainLoop', max_iters=max_iters),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.1, momentum=0.9), accumulative_counts=accumulative_counts
        ),
        default_hooks=dict(checkpoint=dict(type='mmmeta.CheckpointHook', by_epoch=False, **hook)),
        randomness=dict(seed=0),
        resume=resume,
        experiment_name=f'test_checkpoint_hook_{next(COUNT)}',
    )
    runner.train()
    return runner


def names(folder):
    """Checkpoints and drafts."""
    return sorted(path.name for path in Path(folder).iterdir() if 'iter' in path.name or 'part' in path.name)


@pytest.mark.parametrize('at', [3, 4, 5])
def test_resuming_in_the_middle_of_accumulated_gradients(at, tmp_path):
    counts = dict(accumulative_counts=4, interval=1)
    whole = train(tmp_path / 'whole', 10, **counts)
    # As a run of ten iterations would have left it.
    interrupted = tmp_path / 'interrupted'
    interrupted.mkdir()
    os.rename(tmp_path / f'whole/iter_{at}.pth', interrupted / f'iter_{at}.pth')
    (interrupted / 'last_checkpoint').write_text(str(interrupted / f'iter_{at}.pth'))
    gradients = torch.load(interrupted / f'iter_{at}.pth', weights_only=True).get('gradients')
    assert (gradients is None) == (at == 4)
    resumed = train(interrupted, 10, resume=True, **counts)
    assert torch.equal(resumed.model.layer.weight, whole.model.layer.weight)


def test_gradients_of_another_number_of_processes_are_left_out(tmp_path, capfd):
    train(tmp_path, 3, accumulative_counts=4, interval=2)
    path = tmp_path / 'iter_2.pth'
    checkpoint = torch.load(path, weights_only=True)
    for key in ('gradients', 'random_states'):
        checkpoint[key] *= 2
    torch.save(checkpoint, path)
    (tmp_path / 'last_checkpoint').write_text(str(path))
    train(tmp_path, 3, accumulative_counts=4, interval=2, resume=True)
    out, err = capfd.readouterr()
    assert 'the checkpoint is of a run of 2 processes: what is drawn at random differs' in out + err
    assert 'nor are the gradients restored that it had accumulated' in out + err


class Sharding(Runner):
    """Its checkpoints are folders of a file for each process, as those of FSDP and DeepSpeed."""

    def save_checkpoint(self, out_dir, filename, *args, **kwargs):
        folder = Path(out_dir, filename)
        folder.mkdir()
        (folder / 'rank0.pth').write_text('weights')


def test_folders_of_sharded_checkpoints_are_pruned(tmp_path):
    train(tmp_path, 3, kind=Sharding, interval=1, max_keep_ckpts=2)
    assert names(tmp_path) == ['iter_2.pth', 'iter_3.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_3.pth')
    assert (tmp_path / 'iter_3.pth/rank0.pth').is_file()


def test_the_best_checkpoint_is_there_while_a_better_one_is_written(tmp_path):
    listed = []

    class Improving(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
            hook._save_best_checkpoint(runner, dict(score=float(runner.iter)))

    class Listing(Runner):
        def register_default_hooks(self, hooks=None):
            super().register_default_hooks(hooks)
            self.register_hook(Improving())

        def save_checkpoint(self, out_dir, filename, *args, **kwargs):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            listed.append(sorted(path.name for path in Path(out_dir).glob('best*')))

    train(tmp_path, 3, kind=Listing, interval=10, save_last=False, save_best='score', rule='greater')
    bests = [f'best_score_iter_{i}.pth' for i in range(3)]
    drafts = [f'{name}.part' for name in bests]
    assert listed == [[drafts[0]], [bests[0], drafts[1]], [bests[1], drafts[2]]]
    assert [path.name for path in tmp_path.glob('best*')] == [bests[2]]


def test_each_metric_has_one_best_checkpoint(tmp_path):
    scores = [dict(up=1.0, down=1.0), dict(up=2.0, down=3.0), dict(up=0.0, down=0.5), dict(up=3.0, down=0.5)]

    class Scoring(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
            hook._save_best_checkpoint(runner, dict(scores[runner.iter]))
            left.append(sorted(path.name for path in tmp_path.glob('best*')))

    class Scored(Runner):
        def register_default_hooks(self, hooks=None):
            super().register_default_hooks(hooks)
            self.register_hook(Scoring())

    left = []
    options = dict(save_last=False, save_best=['up', 'down'], rule=['greater', 'less'])
    train(tmp_path, 4, kind=Scored, interval=10, **options)
    # The numbers of the iterations in which each was best, one file for each.
    assert left == [
        [f'best_down_iter_{down}.pth', f'best_up_iter_{up}.pth']
        for up, down in ((0, 0), (1, 0), (1, 2), (3, 2))
    ]


class FullDisk(Runner):
    """There is no room for the first two tries of the second checkpoint."""

    tries = 0

    def save_checkpoint(self, out_dir, filename, *args, **kwargs):
        super().save_checkpoint(out_dir, filename, *args, **kwargs)
        FullDisk.tries += 1
        if FullDisk.tries in (2, 3):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_waiting_for_room(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(checkpoint_hook, 'ROOM_INTERVAL', 0.01)
    monkeypatch.setattr(FullDisk, 'tries', 0)
    train(tmp_path, 3, kind=FullDisk, interval=1, wait_for_room=60)
    assert names(tmp_path) == ['iter_1.pth', 'iter_2.pth', 'iter_3.pth']
    out, err = capfd.readouterr()
    path = tmp_path / 'iter_2.pth'
    problem = f"cannot write '{path}' (No space left on device): make room; the run can be resumed from "
    assert problem + f"'{tmp_path}/iter_1.pth'; waiting for room, 60 s at most" in out + err


def test_a_signal_ends_the_waiting(monkeypatch, tmp_path):
    monkeypatch.setattr(FullDisk, 'tries', 0)

    class Signalled(Hook):
        received = 15  # as StopHook's

    class Stopped(FullDisk):
        def register_default_hooks(self, hooks=None):
            super().register_default_hooks(hooks)
            self.register_hook(Signalled())

    with pytest.raises(UsageError, match=f"make room; the run can be resumed from '{tmp_path}/iter_1.pth'$"):
        train(tmp_path, 3, kind=Stopped, interval=1, wait_for_room=60)


def test_not_waiting_for_room(monkeypatch, tmp_path):
    monkeypatch.setattr(FullDisk, 'tries', 0)
    with pytest.raises(UsageError, match=f"make room; the run can be resumed from '{tmp_path}/iter_1.pth'$"):
        train(tmp_path, 3, kind=FullDisk, interval=1)
    assert names(tmp_path) == ['iter_1.pth']


@pytest.mark.parametrize('value', [-1, '10', None])
def test_how_long_to_wait_is_a_number(value):
    with pytest.raises(UsageError, match=f'wait_for_room={value!r} of CheckpointHook: give a number of sec'):
        CheckpointHook(wait_for_room=value)


def _write_half(path):
    path.write_text('half')
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_argument_that_does_not_exist():
    with pytest.raises(UsageError, match='CheckpointHook takes no argument intervall: remove it'):
        CheckpointHook(intervall=3)


class TestWriting:
    def test_the_order_of_system_calls(self, monkeypatch, tmp_path):
        """The contents are on the disk before the name is, and the name before the run goes on."""
        calls = []
        for name in ('fsync', 'replace'):
            real = getattr(os, name)

            def note(*args, name=name, real=real):
                what = os.readlink(f'/proc/self/fd/{args[0]}') if name == 'fsync' else args[1]
                calls.append((name, Path(what).name))
                return real(*args)

            monkeypatch.setattr(atomic.os, name, note)
        with atomic.written(tmp_path / 'a.png') as draft:
            draft.write_text('picture')
        assert calls == [('fsync', '.part-a.png'), ('replace', 'a.png'), ('fsync', tmp_path.name)]
        assert [path.name for path in tmp_path.iterdir()] == ['a.png']

    def test_what_fails_leaves_what_was_there(self, tmp_path):
        path = tmp_path / 'record.json'
        path.write_text('before')
        with pytest.raises(OSError, match='No space'), atomic.written(path) as draft:
            _write_half(draft)
        assert path.read_text() == 'before'
        assert [path.name for path in tmp_path.iterdir()] == ['record.json']
