"""UperNet's head, with convolutions before resizing, is MMSegmentation's."""

import copy

import pytest
import torch

pytest.importorskip('mmseg', reason='the head is its own')

from mmengine.registry import init_default_scope
from mmseg.models.decode_heads import UPerHead

from mmmeta.deploy.uper_head import MergedUPerHead

MAPS = tuple(torch.randn(2, c, -(-60 // s), -(-84 // s)) for c, s in ((8, 4), (16, 8), (24, 16), (32, 32)))


def build(**arguments):
    init_default_scope('mmseg')
    defaults = dict(norm_cfg=dict(type='BN'), in_channels=[8, 16, 24, 32], in_index=[0, 1, 2, 3], channels=12)
    head = UPerHead(num_classes=5, dropout_ratio=0.1, **defaults | arguments).eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in head.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1 - (tensor.ndim > 1) * 0.6)
    return head


def pair(**arguments):
    plain = build(**arguments)
    merged = copy.deepcopy(plain)
    merged.__class__ = MergedUPerHead
    return plain, merged


@pytest.mark.parametrize(
    'arguments',
    [{}, dict(align_corners=True), dict(norm_cfg=None), dict(pool_scales=(1, 2)), dict(act_cfg=None)],
)
@torch.no_grad()
def test_the_same(arguments, monkeypatch):
    plain, merged = pair(**arguments)
    expected = plain(MAPS)
    monkeypatch.setattr(UPerHead, '_forward_feature', None)
    out = merged(MAPS)
    assert 0 < (out - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
def test_another_order_of_layers_is_computed_as_it_was():
    plain, merged = pair()
    for head in (plain, merged):
        head.fpn_bottleneck.order = ('conv', 'act', 'norm')
    assert torch.equal(merged(MAPS), plain(MAPS))
