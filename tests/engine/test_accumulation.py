"""What each process continues with when a run of several is resumed."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from mmmeta.engine import accumulation, random_state
from mmmeta.engine.accumulation import restore_gradients
from mmmeta.engine.random_state import capture_random_state, restore_random_state


@pytest.fixture(params=[0, 1])
def rank(request, monkeypatch):
    """One of two processes."""
    for module in (accumulation, random_state):
        monkeypatch.setattr(module, 'get_rank', lambda: request.param)
        monkeypatch.setattr(module, 'get_world_size', lambda: 2)
    return request.param


def test_its_own_gradients(rank):
    model = nn.Linear(2, 1)
    gradients = [
        {'weight': torch.full((1, 2), float(i)), 'bias': torch.full((1,), -float(i))} for i in (1, 2)
    ]
    assert restore_gradients(model, gradients)
    assert model.weight.grad.tolist() == [[rank + 1.0] * 2] and model.bias.grad.tolist() == [-rank - 1.0]
    assert not restore_gradients(model, gradients[:1])


def test_its_own_random_numbers(rank):
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    before, states, drawn = capture_random_state(), [], []
    for seed in (1, 2):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        states.append(capture_random_state())
        drawn.append(draw())
    assert drawn[0] != drawn[1]
    assert restore_random_state(states)
    assert draw() == drawn[rank]
    assert not restore_random_state(states[:1])
    restore_random_state([before] * 2)
