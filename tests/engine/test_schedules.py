"""Learning rates that are followed without training are those of MMEngine's runner."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmmeta.engine import CheckpointHook, CompleteWeightsHook
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
    'epochs without a loop that counts them': (
        False,
        [dict(type='MultiStepLR', by_epoch=True, milestones=[1], gamma=0.1, end=9)],
    ),
    'a metric': (True, [WARMUP, dict(type='ReduceOnPlateauLR', monitor='loss', by_epoch=True)]),
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


def train(folder, schedule, iterations=20, by_epoch=False, lr=0.1, resume=False, **optimizer):
    """Train, and return the learning rate of each iteration and the runner."""
    hook = Rates()
    runner = Runner(
        Model(),
        str(folder),
        train_dataloader=dict(
            batch_size=2,
            dataset=torch.utils.data.TensorDataset(torch.arange(9)),
            sampler=dict(type='DefaultSampler'),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=iterations // 5)
        if by_epoch
        else dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=lr, **optimizer)),
        param_scheduler=schedule,
        custom_hooks=[hook, CompleteWeightsHook()],
        default_hooks=dict(checkpoint=CheckpointHook(interval=10, by_epoch=False), logger=None),
        experiment_name=f'{folder.name}_{iterations}_{resume}_{lr}',
        log_level='INFO' if resume else 'ERROR',
        load_from=str(folder / 'iter_10.pth') if resume else None,
        resume=resume,
    )
    runner.train()
    return hook.rates, runner


@pytest.mark.parametrize('name', SCHEDULES)
def test_they_are_those_of_a_run(name, tmp_path):
    by_epoch, schedule = SCHEDULES[name]
    own, _ = train(tmp_path, schedule, by_epoch=by_epoch)
    rates = follow_schedule(schedule, 0.1, 20, 5, by_epoch)
    assert len(own) == 20
    assert (rates.first, rates.highest, rates.last) == (own[0], max(own), own[-1])
    assert rates.mean == pytest.approx(sum(own) / 20)


CHANGES = {
    'longer': (dict(end=10), dict(end=20), {}, 'end of PolyLR 20 instead of 10'),
    'another rate': (dict(end=20), dict(end=20), dict(lr=0.01), 'initial_lr 0.01 instead of 0.1'),
    'another setting': (dict(end=20), dict(end=20), dict(weight_decay=0.5), 'weight_decay 0.5 instead of 0'),
    'another schedule': (dict(end=20), dict(type='StepLR', step_size=12), {}, 'StepLR instead of another'),
    'one more': (dict(end=20), [WARMUP, dict(type='PolyLR', end=20)], {}, '2 schedules instead of 1'),
}


@pytest.mark.parametrize('name', CHANGES)
def test_those_of_the_config_hold_for_a_run_that_is_resumed(name, tmp_path, capsys):
    before, after, settings, said = CHANGES[name]
    poly = dict(type='PolyLR', eta_min=0.0, by_epoch=False, begin=0)
    after = after if isinstance(after, list) else [{**(poly if 'end' in after else {}), **after}]
    after = [{'by_epoch': False, **schedule} for schedule in after]
    train(tmp_path, [{**poly, **before}], 10)
    capsys.readouterr()
    resumed, runner = train(tmp_path, after, 20, resume=True, **settings)
    whole, other = train(tmp_path / 'whole', after, 20, **settings)
    assert resumed == whole[10:]
    (group,), (expected,) = (one.optim_wrapper.param_groups for one in (runner, other))
    assert {**group, 'params': 0} == {**expected, 'params': 0}
    out = capsys.readouterr().out
    (line,) = (line for line in out.splitlines() if 'resuming with settings of the config: ' in line)
    assert said in line


def test_the_same_schedule_is_resumed_without_a_word(tmp_path, capsys):
    schedule = [dict(type='PolyLR', eta_min=0.0, by_epoch=False, begin=0, end=20)]
    whole, _ = train(tmp_path, schedule, 20)
    resumed, _ = train(tmp_path, schedule, 20, resume=True)
    assert resumed == whole[10:]
    assert 'settings of the config' not in capsys.readouterr().out


def test_a_warm_up_of_one_iteration_never_ends():
    assert follow_schedule([dict(WARMUP, end=1)], 0.1, 20, 5).highest == pytest.approx(1e-3)
