"""Configs whose types are classes are read as those whose types are names."""

import pytest
import torch
from mmengine.config import Config

from mmmeta.apis import check, load_config
from mmmeta.config import read
from mmmeta.config.inspection import our_backbone

PURE = """
from mmengine.dataset import DefaultSampler
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.datasets import CustomDataset, LoadImageFromFile, PackInputs, ResizeEdge
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead
from torch.optim import AdamW

from mmmeta.models import PoolFormer

model = dict(
    type=ImageClassifier,
    data_preprocessor=dict(num_classes=3, mean=[0.0] * 3, std=[1.0] * 3, to_rgb=True),
    backbone=dict(type=PoolFormer, arch='s12', out_indices=(3,)),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=3, in_channels=512, topk=(1,)),
)
pipeline = [dict(type=LoadImageFromFile), dict(type=ResizeEdge, scale=64), dict(type=PackInputs)]
train_dataloader = dict(
    batch_size=12,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(type=CustomDataset, data_root='data', pipeline=pipeline),
)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-4))
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / 'pure.py').write_text(PURE)
    return str(tmp_path / 'pure.py')


def test_types_are_names(path):
    cfg = read(path)
    assert cfg.default_scope == 'mmpretrain'
    assert (cfg.model.type, cfg.model.backbone.type) == ('ImageClassifier', 'mmmeta.PoolFormer')
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.optimizer.type) == ('OptimWrapper', 'AdamW')
    assert [transform.type for transform in cfg.pipeline] == ['LoadImageFromFile', 'ResizeEdge', 'PackInputs']
    assert not {'PoolFormer', 'AdamW', 'DefaultSampler'} & {*cfg}
    assert our_backbone(cfg) == dict(type='mmmeta.PoolFormer', arch='s12', out_indices=(3,))
    assert Config.fromstring(cfg.pretty_text, '.py').model == cfg.model


def test_a_mistake_is_found(path, tmp_path):
    """As in a config of names."""
    options = {'model.head.in_channels': 64}
    for part in 'abc':
        (tmp_path / 'data' / part).mkdir(parents=True)
        (tmp_path / 'data' / part / '0.jpg').touch()
    options['train_dataloader.dataset.data_root'] = str(tmp_path / 'data')
    findings = check(load_config(path, options))
    assert 'model.head.in_channels' in [finding.key for finding in findings]


def test_inherited_and_with_a_class_that_nobody_registered(path, tmp_path):
    (tmp_path / 'child.py').write_text(
        'from mmengine.config import read_base\n'
        'from torch.nn import Identity\n'
        'with read_base():\n'
        '    from .pure import *\n'
        'default_scope = "mmseg"\n'
        'model.update(neck=dict(type=Identity))\n'
    )
    cfg = read(str(tmp_path / 'child.py'))
    assert cfg.default_scope == 'mmseg'
    assert cfg.model.type == 'mmpretrain.ImageClassifier'
    assert cfg.model.neck.type is torch.nn.Identity
