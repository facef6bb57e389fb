"""Schedules: those of new configs reach the rate of the optimizer, and others are warned of."""

import re

import pytest
from mmengine.config import Config

from mmmeta.apis import load_config, new
from mmmeta.validation.schedule import check_learning_rates, learning_rates


@pytest.mark.parametrize('epochs', [1, 2, 3, 5, 40])
@pytest.mark.parametrize('task', ['seg', 'det', 'cls'])
def test_new_configs_reach_the_rate_of_the_optimizer(
    ade_root, coco_root, imagenet_root, tmp_path, task, epochs
):
    images, labels, count = {
        'seg': (ade_root / 'images', ade_root / 'annotations', 10),
        'det': (coco_root / 'train2017', coco_root / 'annotations/instances_train2017.json', 9),
        'cls': (imagenet_root / 'train', None, 324),
    }[task]
    ignore = ['0'] if task == 'seg' else None
    options = dict(weights='none', epochs=epochs, batch_size=2, ignore=ignore)
    new(task, images, labels, tmp_path / 'my.py', **options)
    cfg = load_config(str(tmp_path / 'my.py'))
    rates = learning_rates(cfg, count)
    assert rates.highest == pytest.approx(rates.base, rel=0.1)
    assert rates.mean > 0.1 * rates.base
    facts = []
    assert not list(check_learning_rates(cfg, count, facts))
    assert re.match('learning rate: .* at first, .* at most, .* at the end$', facts[0])


def config(*schedule, **loop):
    return Config(
        dict(
            train_dataloader=dict(batch_size=4),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=100) | loop,
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            param_scheduler=list(schedule),
        )
    )


def warmup(end):
    return dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=end)


@pytest.mark.parametrize(
    ('cfg', 'highest'),
    [
        (config(warmup(1)), '0.0001'),
        (config(warmup(1500)), '0.0067'),
        (config(dict(type='MultiStepLR', by_epoch=False, milestones=[0], gamma=0.1)), '0.01'),
    ],
)
def test_a_rate_that_is_never_reached(cfg, highest):
    (finding,) = check_learning_rates(cfg, 40, [])
    assert finding.is_warning
    assert finding.text.startswith(
        f'the learning rate is {highest} at most, and optim_wrapper.optimizer.lr=0.1: shorten the warm-up'
    )


@pytest.mark.parametrize(
    'cfg',
    [
        config(warmup(50)),
        config(),
        config(dict(type='OneCycleLR', eta_max=1.0, total_steps=100, by_epoch=False)),
        config(warmup(20), type='EpochBasedTrainLoop', max_epochs=10),
    ],
)
def test_those_that_are_right(cfg):
    facts = []
    assert not list(check_learning_rates(cfg, 40, facts))
    assert len(facts) == 1
