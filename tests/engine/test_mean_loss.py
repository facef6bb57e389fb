"""Losses of several processes."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmmeta.engine import MeanLossHook, hooks


def test_processes_with_other_losses_communicate_alike(monkeypatch):
    """Two processes: what each sends has one shape, and means are of those that have the loss."""
    outputs = [
        dict(loss=torch.tensor(1.0), a=torch.tensor(4.0)),
        dict(loss=torch.tensor(3.0), b=torch.tensor(7.0)),
    ]
    sent = []
    monkeypatch.setattr(hooks, 'get_world_size', lambda: 2)
    monkeypatch.setattr(hooks, 'all_gather_object', lambda names: [list(output) for output in outputs])
    monkeypatch.setattr(hooks, 'all_reduce', lambda sums: sent.append(sums.clone()))
    runner = SimpleNamespace(model=nn.Linear(1, 1))
    for output in outputs:
        MeanLossHook().after_train_iter(runner, 0, None, dict(output))
    assert sent[0].shape == sent[1].shape == (2, 3)
    total = sum(sent)
    monkeypatch.setattr(hooks, 'all_reduce', lambda sums: sums.copy_(total))
    for output in outputs:
        MeanLossHook().after_train_iter(runner, 0, None, output)
    assert outputs[0] == dict(loss=2.0, a=4.0)
    assert outputs[1] == dict(loss=2.0, b=7.0)


@pytest.mark.parametrize('outputs', [None, {}, dict(later=torch.tensor(5.0))])
def test_what_nobody_had_at_first_stays_a_processes_own(monkeypatch, outputs):
    hook, sent = MeanLossHook(), []
    hook.names = ['loss']
    monkeypatch.setattr(hooks, 'get_world_size', lambda: 2)
    monkeypatch.setattr(hooks, 'all_reduce', sent.append)
    before = dict(outputs or {})
    hook.after_train_iter(SimpleNamespace(model=nn.Linear(1, 1)), 0, None, outputs)
    assert len(sent) == 1 and sent[0].shape == (2, 1)
    assert (outputs or {}) == before
