"""What mmmeta.Runner adds to a config."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.model import BaseModel
from mmengine.runner import IterBasedTrainLoop

from mmmeta.engine.runner import Runner, add_hook, add_runtime

HOOKS = [f'mmmeta.{name}Hook' for name in ('MeanLoss', 'CompleteWeights', 'Divergence', 'RunRecord', 'Stop')]


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
def test_epochs_have_a_loop_too_and_detectors_are_checked(scope, more):
    cfg = config(train_cfg=dict(by_epoch=True, max_epochs=2), default_scope=scope)
    assert add_runtime(cfg)[2:] == ['mmmeta.EpochBasedTrainLoop', *HOOKS, *more]
    assert cfg.train_cfg == dict(type='mmmeta.EpochBasedTrainLoop', max_epochs=2)


def test_hooks_and_loops_of_other_types_are_left_as_they_are():
    cfg = config(train_cfg=dict(type='MyLoop'), custom_hooks=[dict(type='MyHook')])
    cfg.default_hooks = dict(checkpoint=dict(type='MyCheckpointHook'), logger=None)
    assert add_runtime(cfg) == HOOKS
    assert cfg.default_hooks == dict(checkpoint=dict(type='MyCheckpointHook'), logger=None)
    assert [hook['type'] for hook in cfg.custom_hooks] == ['MyHook', *HOOKS]


@pytest.mark.parametrize('given', [{}, dict(default_hooks=None), dict(default_hooks=dict(timer=None))])
def test_default_hooks_that_are_not_in_the_config(given):
    cfg = Config(dict(given))
    assert add_runtime(cfg)[:2] == ['mmmeta.CheckpointHook', 'mmmeta.LoggerHook']
    assert cfg.default_hooks.checkpoint == dict(type='mmmeta.CheckpointHook', interval=1)
    assert cfg.default_hooks.logger == dict(type='mmmeta.LoggerHook')


def test_types_that_are_classes_and_hooks_that_are_built():
    cfg = config(custom_hooks=[EMAHook()], train_cfg=dict(type=IterBasedTrainLoop, max_iters=1))
    cfg.default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=2))
    assert add_runtime(cfg)[:3] == [
        f'mmmeta.{t}' for t in ('CheckpointHook', 'LoggerHook', 'IterBasedTrainLoop')
    ]
    assert cfg.default_hooks.checkpoint.interval == 2
    assert isinstance(cfg.custom_hooks[0], EMAHook)


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(1, 2)

    def forward(self, inputs, mode):
        return dict(loss=self.backbone(inputs).sum())


def test_a_runner_of_a_dict_writes_checkpoints_without_code(tmp_path):
    data = dict(dataset=[torch.ones(1)] * 4, sampler=dict(type='DefaultSampler', shuffle=False), batch_size=2)
    data.update(collate_fn=lambda batch: dict(inputs=torch.stack(batch)))
    cfg = dict(model=Line(), work_dir=str(tmp_path), train_dataloader=data, runner_type='mmmeta.Runner')
    optimizer = dict(type='AdamW', lr=0.1)
    cfg.update(optim_wrapper=dict(optimizer=optimizer, paramwise_cfg=dict(flat_decay_mult=0.0)))
    cfg.update(train_cfg=dict(by_epoch=False, max_iters=2))
    runner = Runner.from_cfg(cfg)
    # Read by hand before a training, a checkpoint is the caller's business.
    torch.save(dict(state_dict={'backbone.bias': torch.zeros(2)}), tmp_path / 'part.pth')
    runner.load_checkpoint(str(tmp_path / 'part.pth'))
    runner.train()
    assert torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['meta']['iter'] == 2
    # PyTorch compiles the step of an optimiser whose groups are dicts and nothing else.
    assert [type(group) for group in runner.optim_wrapper.optimizer.param_groups] == [dict, dict]


def test_a_hook_with_arguments_is_kept():
    cfg = config(custom_hooks=[dict(type='mmmeta.RunRecordHook', tta=True)])
    assert not add_hook(cfg, 'mmmeta.RunRecordHook')
    assert add_hook(cfg, 'EMAHook', momentum=0.1)
    assert cfg.custom_hooks == [
        dict(type='mmmeta.RunRecordHook', tta=True),
        dict(type='EMAHook', momentum=0.1),
    ]
