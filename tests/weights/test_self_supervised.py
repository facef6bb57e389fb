"""Weights of learning without labels: SurgeNet's, with ReLU and DINO's wrappers, and MMPretrain's."""

from argparse import Namespace

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import init_default_scope
from peers import sail_metaformer
from timm.models import metaformer
from torch import nn

from mmmeta.config.backbones import backbone_config
from mmmeta.models import CAFormer, ConvFormer
from mmmeta.utils.errors import UsageError
from mmmeta.weights import ZOO, get_weights
from mmmeta.weights.fetch import fetch

RELU = dict(base='s18', act='ReLU')


class ReluConv(metaformer.SepConv):
    """timm's separable convolution with ReLU; timm wants a class."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{**kwargs, 'act1_layer': nn.ReLU})


@pytest.fixture(scope='module')
def peer():
    """timm's CAFormer-S18 with ReLU in MLPs and separable convolutions, and no zero among its tensors."""
    torch.manual_seed(0)
    model = metaformer.MetaFormer(
        depths=(3, 3, 9, 3),
        dims=(64, 128, 320, 512),
        token_mixers=[ReluConv, ReluConv, metaformer.Attention, metaformer.Attention],
        norm_layers=[metaformer.LayerNorm2dNoBias] * 2 + [metaformer.LayerNormNoBias] * 2,
        mlp_act=nn.ReLU,
        num_classes=0,
        use_mlp_head=False,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model.eval()


def surgenet(peer):
    """The names of its files: those of sail-sg/metaformer, without scalars of activations."""
    state_dict = sail_metaformer(peer.state_dict())
    assert not any('.act' in name for name in state_dict)
    return state_dict


def dino(state_dict):
    """A training file of DINO: two networks with heads, an optimiser, and the command line's arguments."""
    head = {'head.mlp.0.weight': torch.zeros(4, 512), 'head.last_layer.weight_g': torch.zeros(4, 1)}
    teacher = {**{f'backbone.{name}': tensor for name, tensor in state_dict.items()}, **head}
    student = {f'module.{name}': torch.zeros_like(tensor) for name, tensor in teacher.items()}
    return dict(
        student=student, teacher=teacher, optimizer={}, epoch=50, args=Namespace(arch='caformer', lr=1e-3)
    )


@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: dino(s)['teacher'], dino])
def test_surgenet_with_and_without_its_wrappers(wrap, peer, tmp_path):
    torch.save(wrap(surgenet(peer)), tmp_path / 'weights.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    model = CAFormer(RELU, output_norm=False, init_cfg=init).eval()
    model.init_weights()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = peer.stem(image)
        for stage, out in zip(peer.stages, model(image), strict=True):
            x = stage(x)
            torch.testing.assert_close(out, x, rtol=1e-4, atol=1e-4)


def test_the_student_where_there_is_no_teacher(peer, tmp_path):
    torch.save(dict(student=dino(surgenet(peer))['teacher']), tmp_path / 'weights.pth')
    model = CAFormer(RELU, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))
    model.init_weights()
    assert torch.equal(model.stem[0].conv.weight, peer.stem.conv.weight)


def test_relu_in_a_network_with_starrelu_is_refused_with_the_line_to_write(peer, tmp_path):
    torch.save(surgenet(peer), tmp_path / 'weights.pth')
    model = CAFormer('s18', init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))
    with pytest.raises(UsageError, match=r"StarReLU: write arch=dict\(base='s18', act='ReLU'\)$"):
        model.init_weights()


def test_starrelu_in_a_network_with_relu_is_refused_with_the_line_to_write(tmp_path):
    torch.save(CAFormer('s18').state_dict(), tmp_path / 'weights.pth')
    model = CAFormer(RELU, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))
    with pytest.raises(UsageError, match="without its scalars: write arch='s18', without act$"):
        model.init_weights()


def test_the_names_bring_their_arch_along():
    names = [name for name in ZOO if 'surgenet' in name]
    assert len(names) == 7
    assert all(get_weights(name).arch == RELU for name in names)
    (place,) = get_weights('caformer_s18_surgenet_cholec').places
    assert place.endswith('TimJaspersTue/SurgeNetModels/resolve/main/CHOLEC_checkpoint_epoch0050_teacher.pth')
    config = backbone_config('mmmeta://caformer_s18_surgenet_xl,window=13')
    assert config == dict(
        type='mmmeta.CAFormer',
        arch=RELU,
        init_cfg=dict(type='Pretrained', checkpoint='mmmeta://caformer_s18_surgenet_xl'),
        window=13,
    )


def test_what_they_may_be_used_for_is_said(monkeypatch, capsys):
    monkeypatch.setattr('mmmeta.weights.fetch._first_of', lambda places: places[0])
    said = []
    monkeypatch.setattr('mmmeta.weights.fetch.print_log', lambda text, logger: said.append(text))
    fetch('mmmeta://caformer_s18_surgenet')
    fetch('mmmeta://caformer_s18')
    assert said == [
        'mmmeta://caformer_s18_surgenet is published under CC-BY-NC-SA 4.0: not for commercial use'
    ]


@pytest.mark.parametrize(
    ('method', 'neck', 'head'),
    [
        (
            dict(type='BYOL', base_momentum=0.01),
            dict(in_channels=64, num_layers=2, with_avg_pool=True),
            dict(
                type='LatentPredictHead',
                loss=dict(type='CosineSimilarityLoss'),
                predictor=dict(
                    type='NonLinearNeck',
                    in_channels=8,
                    hid_channels=8,
                    out_channels=8,
                    num_layers=2,
                    with_avg_pool=False,
                ),
            ),
        ),
        (
            dict(type='SimCLR'),
            dict(in_channels=64, num_layers=2, with_avg_pool=True),
            dict(type='ContrastiveHead', loss=dict(type='CrossEntropyLoss'), temperature=0.1),
        ),
    ],
)
def test_what_mmpretrain_learns_without_labels_loads(method, neck, head, tmp_path):
    init_default_scope('mmpretrain')
    arch = dict(base='s18', depths=(1, 1, 1, 1), dims=(32, 32, 64, 64))
    learner = MMENGINE_MODELS.build(
        ConfigDict(
            **method,
            backbone=dict(type='mmmeta.ConvFormer', arch=arch, out_indices=(3,)),
            neck=dict(type='NonLinearNeck', hid_channels=8, out_channels=8, **neck),
            head=head,
        )
    )
    with torch.no_grad():
        for parameter in learner.backbone.parameters():
            parameter.uniform_()
    torch.save(dict(state_dict=learner.state_dict()), tmp_path / 'weights.pth')
    model = ConvFormer(arch, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))
    model.init_weights()
    own, learnt = model.state_dict(), learner.backbone.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in learnt.items())
