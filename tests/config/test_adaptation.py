"""Configs for GPUs on a machine without one."""

import pytest
from mmengine.config import Config

from mmmeta.config import adaptation
from mmmeta.config.adaptation import adapt, adapt_to_device, enable_amp
from mmmeta.utils.errors import UsageError


@pytest.fixture
def cfg(monkeypatch):
    """A config that only a GPU can run as it is."""
    monkeypatch.setattr(adaptation, 'get_device', lambda: 'cpu')
    norm = dict(type='SyncBN', requires_grad=True)
    optimizer = dict(type='AdamW', lr=1e-4)
    return Config(
        dict(
            model=dict(backbone=dict(norm_cfg=norm), heads=[dict(norm_cfg=norm)]),
            optim_wrapper=dict(
                type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic', optimizer=optimizer
            ),
            sync_bn='torch',
            default_scope='mmseg',
        )
    )


@pytest.mark.parametrize(
    ('scope', 'wrapper'), [('mmseg', 'mmmeta.Bf16OptimWrapper'), ('mmdet', 'OptimWrapper')]
)
def test_nothing_is_left_that_needs_a_gpu(scope, wrapper, cfg):
    cfg.default_scope = scope
    adapt_to_device(cfg)
    assert 'sync_bn' not in cfg
    assert [part.norm_cfg.type for part in (cfg.model.backbone, *cfg.model.heads)] == ['BN', 'BN']
    # What chooses types and scales of float16 is no argument of these wrappers.
    assert cfg.optim_wrapper == dict(type=wrapper, optimizer=dict(type='AdamW', lr=1e-4, fused=True))


def test_nothing_changes_where_there_is_one(cfg, monkeypatch):
    monkeypatch.setattr(adaptation, 'get_device', lambda: 'cuda')
    before = cfg.to_dict()
    adapt_to_device(cfg)
    assert cfg.to_dict() == before


def test_amp_of_a_config_that_has_it(cfg):
    enable_amp(cfg)
    assert cfg.optim_wrapper == dict(type='mmmeta.Bf16OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4))


def test_weights_of_a_backbone(cfg):
    """One option adds them to a config without any, or takes them out."""
    with pytest.raises(UsageError, match='--weights none: the backbone of this config is none of ours'):
        adapt(cfg, weights='none')
    cfg.model.backbone = dict(type='mmmeta.CAFormer', arch='s18', init_cfg=None)
    adapt(cfg, weights='mmmeta://caformer_s18')
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='mmmeta://caformer_s18')
    adapt(cfg, weights='none')
    assert cfg.model.backbone.init_cfg is None


def test_test_time_augmentation_normalises_as_the_model_does():
    """MMEngine gives the wrapper, and that the model inside, the preprocessor at the top of a config."""
    own, inherited = dict(mean=[9.0] * 4), dict(mean=[1.0] * 3)
    cfg = Config(
        dict(
            model=dict(backbone=dict(type='ResNet'), data_preprocessor=own),
            data_preprocessor=inherited,
            tta_model=dict(type='SegTTAModel'),
            tta_pipeline=[],
            test_dataloader=dict(dataset=dict(pipeline=[])),
        )
    )
    assert adapt(cfg, tta=True).model.data_preprocessor == own
