"""Learning rates that are followed without training are those of MMEngine's runner."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmmeta.engine.schedules import follow_schedule

WARMUP = dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=4)
SCHEDULES = {
    'warm-up of one iteration': (True, [dict(WARMUP, end=1)]),
    'iterations': (False, [WARMUP, dict(type='PolyLR', eta_min=0.0, by_epoch=False, begin=4, end=20)]),
    'the end of the loop': (False, [dict(type='CosineAnnealingLR', by_epoch=False)]),
    'epochs': (True, [WARMUP, dict(type='MultiStepLR', by_epoch=True, milestones=[2, 3], gamma=0.1)]),
    'epochs by iteration': (
        True,
        [WARMUP, dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True, end=4)],
    ),
    'one': (False, dict(type='ExponentialLR', gamma=0.9, by_epoch=False)),
}


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, mode):
        return dict(loss=(self.weight * inputs.float()).sum())


class Rates(Hook):
    def __init__(self):
        self.rates = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.append(runner.optim_wrapper.param_groups[0]['lr'])


@pytest.mark.parametrize('name', SCHEDULES)
def test_they_are_those_of_a_run(name, tmp_path):
    by_epoch, schedule = SCHEDULES[name]
    hook = Rates()
    Runner(
        Model(),
        str(tmp_path),
        train_dataloader=dict(
            batch_size=2,
            dataset=torch.utils.data.TensorDataset(torch.arange(9)),
            sampler=dict(type='DefaultSampler'),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=4) if by_epoch else dict(by_epoch=False, max_iters=20),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        param_scheduler=schedule,
        custom_hooks=[hook],
        default_hooks=dict(checkpoint=None, logger=None),
        experiment_name=f'{tmp_path.name}',
        log_level='ERROR',
    ).train()
    rates = follow_schedule(schedule, 0.1, 20, 5)
    assert len(hook.rates) == 20
    assert (rates.first, rates.highest, rates.last) == (hook.rates[0], max(hook.rates), hook.rates[-1])
    assert rates.mean == pytest.approx(sum(hook.rates) / 20)


def test_a_warm_up_of_one_iteration_never_ends():
    assert follow_schedule([dict(WARMUP, end=1)], 0.1, 20, 5).highest == pytest.approx(1e-3)
