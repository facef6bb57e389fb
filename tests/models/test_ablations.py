"""Every ablation of the two papers is an `arch` away."""

import pytest
import torch
from torch import nn

from mmmeta.models import CAFormer, ConvFormer, IdentityFormer, MetaFormer, PoolFormer

CLASSIFIER = 2 * 512 + 512 * 1000 + 1000


def star(**arguments):
    return dict(type='StarReLU', **arguments)


# arXiv:2210.13452, Table VIII: the activation, then the scaling of branches, then the biases.
TABLE_VIII = {
    'ReLU': dict(act='ReLU'),
    'Squared ReLU': dict(act='SquaredReLU'),
    'GELU': dict(act='GELU'),
    'StarReLU s*relu^2': dict(act=star(bias_learnable=False)),
    'StarReLU relu^2 + b': dict(act=star(scale_learnable=False)),
    'StarReLU frozen': dict(act=star(scale=0.8, bias=-0.4, scale_learnable=False, bias_learnable=False)),
    'StarReLU frozen scale': dict(act=star(scale=0.8, scale_learnable=False, bias_learnable=False)),
    'StarReLU frozen bias': dict(act=star(bias=-0.5, scale_learnable=False, bias_learnable=False)),
    'no branch scaling': dict(res_scale=False),
    'LayerScale': dict(res_scale=False, layer_scale_init=1e-5),
    'BranchScale': dict(res_scale=True, layer_scale_init=1e-5),
    'biases': dict(bias=True),
}
# arXiv:2111.11418, the ablation of PoolFormer-S12.
POOLFORMER_S12 = {
    'ReLU': dict(act='ReLU'),
    'SiLU': dict(act='SiLU'),
    'identity': dict(token_mixers='identity'),
    'pool 5': dict(pool_size=5),
    'pool 7': dict(pool_size=7),
    'pool 9': dict(pool_size=9),
    'LayerNorm': dict(norm=dict(type='LN', eps=1e-5)),
    'BatchNorm': dict(norm='BN'),
    'no LayerScale': dict(layer_scale_init=None),
}


def check_forward_and_backward(model):
    model.train()
    outs = model(torch.randn(2, 3, 64, 64))
    assert all(torch.isfinite(out).all() for out in outs)
    sum(out.square().mean() for out in outs).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize('family', [ConvFormer, CAFormer])
@pytest.mark.parametrize('ablation', TABLE_VIII)
def test_table_viii(family, ablation):
    change = TABLE_VIII[ablation]
    with torch.device('meta'):
        baseline, model = family('s18'), family(dict(base='s18', **change))
    blocks, dims = sum(model.depths), model.dims
    conv_blocks = {ConvFormer: 18, CAFormer: 6}[family]
    scalars = 2 * (blocks + conv_blocks)  # s and b of each StarReLU: one in each MLP and in each SepConv
    scales = 2 * (9 * 320 + 3 * 512)  # ResScale of stages 3 and 4
    all_scales = 2 * sum(d * c for d, c in zip(model.depths, dims, strict=True))
    expected = {
        'StarReLU s*relu^2': -scalars // 2,
        'StarReLU relu^2 + b': -scalars // 2,
        'no branch scaling': -scales,
        'LayerScale': all_scales - scales,
        'BranchScale': 2 * all_scales - scales,
    }
    difference = parameters(model) - parameters(baseline)
    if ablation == 'biases':
        mlp = sum(d * 5 * c for d, c in zip(model.depths, dims, strict=True))
        conv = sum(d * 5 * c for d, c in zip(model.depths, dims, strict=True))
        if family is CAFormer:
            conv = 3 * 5 * (64 + 128) + 4 * (9 * 320 + 3 * 512)
        assert difference == mlp + conv
    else:
        assert difference == expected.get(ablation, -scalars)
    check_forward_and_backward(family(dict(base='s18', depths=(1, 1, 1, 1), **change)))


@pytest.mark.parametrize('ablation', POOLFORMER_S12)
def test_poolformer_s12(ablation):
    model = PoolFormer(dict(base='s12', **POOLFORMER_S12[ablation]))
    # The paper's Table 5 prints 11.9 M for all of these.
    assert f'{(parameters(model) - 2 * sum(model.dims[:3]) + CLASSIFIER - 2 * 512) / 1e6:.1f}' == '11.9'
    check_forward_and_backward(model)


@pytest.mark.parametrize(
    ('token_mixers', 'printed'),
    [
        (('pooling', 'pooling', 'pooling', 'attention'), '14.0'),
        (('pooling', 'pooling', 'attention', 'attention'), '16.5'),
    ],
)
def test_hybrid_poolformer_s12(token_mixers, printed):
    arch = dict(
        base='s12',
        token_mixers=[
            dict(type='attention', bias=False) if mixer == 'attention' else mixer for mixer in token_mixers
        ],
    )
    model = PoolFormer(arch, out_indices=(3,))
    assert f'{(parameters(model) + CLASSIFIER - 2 * 512) / 1e6:.1f}' == printed
    check_forward_and_backward(model)


# arXiv:2210.13452, Table IV: as wide as ViT-S. The printed 22 M need an MLP ratio of 6 where nothing but the
# MLPs has parameters (12 blocks of 384 channels with ratio 4 have 15 M).
ISOTROPIC = dict(depths=(12,), dims=(384,), token_mixers='identity', mlp_ratio=6)
PATCH_STEM = dict(kernel_sizes=(16,), strides=(16,), paddings=(0,))
CONV_STEM = dict(kernel_sizes=(7, 3, 3, 3), strides=(2, 2, 2, 2), paddings=(3, 1, 1, 1), dims=(48, 96, 192))


@pytest.mark.parametrize(('stem', 'printed'), [(PATCH_STEM, '22'), (CONV_STEM, '23')])
def test_isotropic_identityformer(stem, printed):
    model = IdentityFormer(dict(ISOTROPIC, stem=stem))
    assert f'{(parameters(model) + 384 * 1000 + 1000) / 1e6:.0f}' == printed
    outs = model(torch.randn(1, 3, 224, 224))
    assert [tuple(out.shape) for out in outs] == [(1, 384, 14, 14)]
    check_forward_and_backward(model)


def test_metaformer_takes_any_mixture():
    model = MetaFormer(
        dict(
            depths=(1, 2, 1),
            dims=(32, 48, 64),
            token_mixers=('identity', dict(type='pooling', pool_size=5), dict(type='attention', head_dim=16)),
            norm=('LN', 'GN1', 'BN'),
            res_scale=(True, False, False),
            layer_scale_init=(None, 1e-5, None),
            mlp_ratio=2,
        )
    )
    assert isinstance(model.stages[2].blocks[0].norm1, nn.BatchNorm2d)
    assert model.stages[1].blocks[1].token_mixer.pool_size == 5
    check_forward_and_backward(model)
    assert [out.shape[-1] for out in model(torch.randn(1, 3, 64, 64))] == [16, 8, 4]
