"""What a run adds to its config, in one place."""

import copy

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.runner import IterBasedTrainLoop

from mmmeta.engine.prepare import RUN_HOOKS, prepare

NAMES = ('Agreement', 'MeanLoss', 'CompleteWeights', 'Divergence', 'RunRecord', 'Stop')
HOOKS = [f'mmmeta.{name}Hook' for name in NAMES]
RECORD, LIFE, LABELS = (dict(type=name) for name in RUN_HOOKS)


def config(**keys):
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=7), logger=dict(type='LoggerHook'))
    return Config(dict(default_hooks=hooks, **keys))


def test_what_is_missing_is_added_and_once_only():
    cfg = config(train_cfg=dict(type='IterBasedTrainLoop', max_iters=2))
    added = ['mmmeta.CheckpointHook', 'mmmeta.LoggerHook', 'mmmeta.IterBasedTrainLoop', *HOOKS]
    assert prepare(cfg) == added
    assert cfg.default_hooks.checkpoint == dict(type='mmmeta.CheckpointHook', interval=7)
    assert cfg.train_cfg == dict(type='mmmeta.IterBasedTrainLoop', max_iters=2)
    before = copy.deepcopy(cfg.to_dict())
    assert prepare(cfg) == []
    assert cfg.to_dict() == before


@pytest.mark.parametrize(
    ('scope', 'more'), [('mmdet', ['mmmeta.CocoCheckHook', 'mmmeta.NothingDetectedHook']), ('mmseg', [])]
)
def test_epochs_have_a_loop_too_and_detectors_are_checked(scope, more):
    cfg = config(train_cfg=dict(by_epoch=True, max_epochs=2), default_scope=scope)
    assert prepare(cfg)[2:] == ['mmmeta.EpochBasedTrainLoop', *HOOKS, *more]
    assert cfg.train_cfg == dict(type='mmmeta.EpochBasedTrainLoop', max_epochs=2)


def test_hooks_and_loops_of_other_types_are_left_as_they_are():
    cfg = config(train_cfg=dict(type='MyLoop'), custom_hooks=[dict(type='MyHook')])
    cfg.default_hooks = dict(checkpoint=dict(type='MyCheckpointHook'), logger=None)
    assert prepare(cfg) == HOOKS
    assert cfg.default_hooks == dict(checkpoint=dict(type='MyCheckpointHook'), logger=None)
    assert [hook['type'] for hook in cfg.custom_hooks] == ['MyHook', *HOOKS]


@pytest.mark.parametrize('given', [{}, dict(default_hooks=None), dict(default_hooks=dict(timer=None))])
def test_default_hooks_that_are_not_in_the_config(given):
    cfg = Config(dict(given))
    assert prepare(cfg)[:2] == ['mmmeta.CheckpointHook', 'mmmeta.LoggerHook']
    assert cfg.default_hooks.checkpoint == dict(type='mmmeta.CheckpointHook', interval=1)
    assert cfg.default_hooks.logger == dict(type='mmmeta.LoggerHook')


def test_types_that_are_classes_and_hooks_that_are_built():
    cfg = config(custom_hooks=[EMAHook()], train_cfg=dict(type=IterBasedTrainLoop, max_iters=1))
    cfg.default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=2))
    assert prepare(cfg)[:3] == [f'mmmeta.{t}' for t in ('CheckpointHook', 'LoggerHook', 'IterBasedTrainLoop')]
    assert cfg.default_hooks.checkpoint.interval == 2
    assert isinstance(cfg.custom_hooks[0], EMAHook)


def test_a_hook_with_arguments_is_kept():
    own = dict(RECORD, tta=True)
    cfg = config(custom_hooks=[own])
    assert prepare(cfg)[2:] == [name for name in HOOKS if name != RECORD['type']]
    assert cfg.custom_hooks[0] == own


@pytest.mark.parametrize('more', [[], [LABELS]])
def test_hooks_of_a_run_take_the_place_of_those_of_another_run(more):
    """The config that a run writes into its work directory has its hooks."""
    written = [dict(RECORD, tta=True), dict(LIFE, path='/other/.lock'), dict(type='EMAHook'), LABELS]
    cfg = config(custom_hooks=written)
    own = dict(RECORD, config='mine.py')
    assert prepare(cfg, [own, *more])[2:] == [*HOOKS, *(hook['type'] for hook in more)]
    expected = [dict(type='EMAHook'), *(own if name == RECORD['type'] else dict(type=name) for name in HOOKS)]
    assert cfg.custom_hooks == [*expected, *more]
