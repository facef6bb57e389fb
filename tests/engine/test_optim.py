"""Layer-wise learning-rate decay and bfloat16."""

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmmeta.models import CAFormer
from mmmeta.utils.errors import UsageError

ARCH = dict(depths=(1, 1, 1, 1), dims=(32, 32, 64, 64))


class Segmentor(BaseModel):
    def __init__(self, prefix='backbone'):
        super().__init__()
        parent = self
        *path, name = prefix.split('.')
        for part in path:
            parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(name, CAFormer(ARCH))
        self.decode_head = nn.Conv2d(64, 2, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.decode_head(self.backbone(inputs)[-1])


def learning_rates(model, **paramwise):
    cfg = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
        constructor='mmmeta.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=paramwise,
    )
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    return {names[group['params'][0]]: (group['lr'], group['weight_decay']) for group in groups}


@pytest.mark.parametrize('prefix', ['backbone', 'student.trunk'])
def test_each_layer_has_its_learning_rate_under_any_prefix(prefix):
    rates = learning_rates(Segmentor(prefix), layer_decay_rate=0.5, flat_decay_mult=0.0)
    expected = {
        f'{prefix}.stem.0.conv.weight': (0.5**5, 0.1),
        f'{prefix}.stages.0.blocks.0.norm1.weight': (0.5**4, 0.0),
        f'{prefix}.stages.2.downsample.conv.weight': (0.5**2, 0.1),
        f'{prefix}.stages.3.blocks.0.mlp.fc2.weight': (0.5, 0.1),
        f'{prefix}.norms.0.weight': (1.0, 0.0),
        'decode_head.weight': (1.0, 0.1),
    }
    assert {name: rates[name] for name in expected} == expected


def test_custom_keys_apply_too():
    rates = learning_rates(
        Segmentor(),
        layer_decay_rate=0.5,
        custom_keys={'decode_head': dict(lr_mult=10.0), 'stem': dict(lr_mult=2.0)},
    )
    assert rates['decode_head.weight'][0] == 10.0
    assert rates['backbone.stem.0.conv.weight'][0] == 2 * 0.5**5


def test_works_with_any_backbone_of_mmpretrain():
    backbones = pytest.importorskip('mmpretrain.models', reason='mmpretrain is not installed')
    model = Segmentor()
    model.backbone = backbones.ConvNeXt('atto')
    rates = learning_rates(model, layer_decay_rate=0.5)
    depth, layers = model.backbone.get_layer_depth('backbone.stages.1.0.norm.weight', 'backbone.')
    assert rates['backbone.stages.1.0.norm.weight'][0] == 0.5 ** (layers - 1 - depth)


def test_mistakes():
    with pytest.raises(UsageError, match='no module of Linear has get_layer_depth'):
        learning_rates(nn.Linear(2, 2), layer_decay_rate=0.5)
    with pytest.raises(UsageError, match=r'paramwise_cfg.layer_decay_rate=1.5: give a number in \(0, 1\]'):
        learning_rates(Segmentor(), layer_decay_rate=1.5)


def test_bf16_wrapper_computes_in_bfloat16_and_keeps_float32_weights():
    model = Segmentor()
    wrapper = build_optim_wrapper(
        model, dict(type='mmmeta.Bf16OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    )
    with wrapper.optim_context(model):
        out = model(torch.randn(1, 3, 32, 32))
    assert out.dtype is torch.bfloat16
    before = model.decode_head.weight.clone()
    wrapper.update_params(out.float().square().mean())
    assert model.decode_head.weight.dtype is torch.float32
    assert not torch.equal(before, model.decode_head.weight)


def test_flat_parameters_do_not_decay_below_custom_keys_either():
    model = Segmentor()
    keys = dict(backbone=dict(lr_mult=0.1))
    cfg = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
        paramwise_cfg=dict(flat_decay_mult=0.0, custom_keys=keys),
    )

    def decays(cfg):
        names = {parameter: name for name, parameter in model.named_parameters()}
        groups = build_optim_wrapper(model, cfg).optimizer.param_groups
        return {names[group['params'][0]]: (group['lr'], group['weight_decay']) for group in groups}

    found = decays(dict(cfg, constructor='mmmeta.FlatDecayOptimWrapperConstructor'))
    for name, parameter in model.named_parameters():
        rate = 0.1 if name.startswith('backbone.') else 1.0
        assert found[name] == (pytest.approx(rate), 0.0 if parameter.ndim == 1 else 0.1)
    # MMEngine's own leaves it to custom_keys.
    assert decays(cfg)['backbone.stages.0.blocks.0.norm1.weight'] == (pytest.approx(0.1), 0.1)
