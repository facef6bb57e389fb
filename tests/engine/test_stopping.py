"""Runs that a signal or their losses end."""

import itertools
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import nn

from mmmeta.engine import DivergenceHook, Runner
from mmmeta.utils.errors import UsageError

COUNT = itertools.count()


class Model(BaseModel):
    """Draws in training and in validation, in which it is told to stop."""

    stops = False

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, inputs, mode):
        if mode == 'loss':
            return dict(loss=nn.functional.dropout(self.layer(inputs)).square().mean())
        torch.rand(5)
        if self.stops:
            os.kill(os.getpid(), signal.SIGTERM)
        return [{}]


class Nothing(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {}


def build(folder, stops=False, resume=False, validates=True):
    torch.manual_seed(0)  # of the first weights
    model = Model()
    model.stops = stops
    loader = dict(
        dataset=[dict(inputs=torch.arange(3.0) + i) for i in range(8)],
        collate_fn=dict(type='default_collate'),
        batch_size=2,
    )
    val = dict(loader, sampler=dict(type='DefaultSampler', shuffle=False))
    return Runner.from_cfg(
        dict(
            model=model,
            work_dir=str(folder),
            train_dataloader=dict(loader, sampler=dict(type='InfiniteSampler')),
            train_cfg=dict(by_epoch=False, max_iters=6, val_interval=3 if validates else 100),
            **(dict(val_dataloader=val, val_cfg=dict(), val_evaluator=[Nothing()]) if validates else {}),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=100)),
            randomness=dict(seed=0),
            resume=resume,
            log_level='ERROR',
            experiment_name=f'stopping_{next(COUNT)}',
        )
    )


def test_a_run_stopped_in_a_validation_goes_on_as_if_there_had_been_none(tmp_path):
    whole = build(tmp_path / 'whole', validates=False)
    whole.train()
    with pytest.raises(SystemExit) as end:
        build(tmp_path / 'stopped', stops=True).train()
    assert end.value.code == 128 + signal.SIGTERM
    assert (tmp_path / 'stopped/last_checkpoint').read_text().endswith('/iter_3.pth')
    resumed = build(tmp_path / 'stopped', resume=True)
    resumed.train()
    assert torch.equal(resumed.model.layer.weight, whole.model.layer.weight)


def test_losses_have_to_be_infinite_in_a_row():
    optim_wrapper = SimpleNamespace(get_lr=lambda: dict(lr=[0.1]))
    runner = SimpleNamespace(iter=0, hooks=[], optim_wrapper=optim_wrapper)
    hook, nan = DivergenceHook(patience=2), float('nan')
    for value in (nan, 1.0, nan, 1.0):
        hook.after_train_iter(runner, 0, outputs=dict(loss=torch.tensor(value), other_loss=torch.ones(())))
    hook.after_train_iter(runner, 0, outputs=dict(loss=torch.tensor(nan), other_loss=torch.ones(())))
    with pytest.raises(UsageError, match='has diverged: loss has not been finite for 2 iterations'):
        hook.after_train_iter(runner, 0, outputs=dict(loss=torch.tensor(nan), other_loss=torch.ones(())))
