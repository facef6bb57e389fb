"""What mmmeta.Runner adds to a config."""

import copy

import pytest
from mmengine.config import Config

from mmmeta.engine.runner import add_hook, add_runtime

HOOKS = ['mmmeta.MeanLossHook', 'mmmeta.CompleteWeightsHook', 'mmmeta.RunRecordHook']


def config(**keys):
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=7), logger=dict(type='LoggerHook'))
    return Config(dict(default_hooks=hooks, **keys))


def test_what_is_missing_is_added_and_once_only():
    cfg = config(train_cfg=dict(type='IterBasedTrainLoop', max_iters=2))
    added = ['mmmeta.CheckpointHook', 'mmmeta.LoggerHook', 'mmmeta.IterBasedTrainLoop', *HOOKS]
    assert add_runtime(cfg) == added
    assert cfg.default_hooks.checkpoint == dict(type='mmmeta.CheckpointHook', interval=7)
    assert cfg.train_cfg == dict(type='mmmeta.IterBasedTrainLoop', max_iters=2)
    before = copy.deepcopy(cfg.to_dict())
    assert add_runtime(cfg) == []
    assert cfg.to_dict() == before


@pytest.mark.parametrize(('scope', 'more'), [('mmdet', ['mmmeta.CocoCheckHook']), ('mmseg', [])])
def test_epochs_keep_their_loop_and_detectors_are_checked(scope, more):
    cfg = config(train_cfg=dict(by_epoch=True, max_epochs=2), default_scope=scope)
    assert add_runtime(cfg)[2:] == [*HOOKS, *more]
    assert cfg.train_cfg == dict(by_epoch=True, max_epochs=2)


def test_hooks_and_loops_of_other_types_are_left_as_they_are():
    cfg = config(train_cfg=dict(type='MyLoop'), custom_hooks=[dict(type='MyHook')])
    cfg.default_hooks = dict(checkpoint=dict(type='MyCheckpointHook'), logger=None)
    assert add_runtime(cfg) == HOOKS
    assert cfg.default_hooks == dict(checkpoint=dict(type='MyCheckpointHook'), logger=None)
    assert [hook['type'] for hook in cfg.custom_hooks] == ['MyHook', *HOOKS]


def test_a_hook_with_arguments_is_kept():
    cfg = config(custom_hooks=[dict(type='mmmeta.RunRecordHook', tta=True)])
    assert not add_hook(cfg, 'mmmeta.RunRecordHook')
    assert add_hook(cfg, 'EMAHook', momentum=0.1)
    assert cfg.custom_hooks == [
        dict(type='mmmeta.RunRecordHook', tta=True),
        dict(type='EMAHook', momentum=0.1),
    ]
