"""In files linear maps are convolutions: the same function, without maps that are transposed."""

import pytest
import torch
from torch import nn

from mmmeta.deploy.linear_maps import ConvMlp, ConvSepConv
from mmmeta.models.layers import Mlp, SepConv


@pytest.mark.parametrize('adapted', [False, True])
@pytest.mark.parametrize(
    ('kind', 'exported', 'name'), [(Mlp, ConvMlp, 'fc1'), (SepConv, ConvSepConv, 'pwconv2')]
)
def test_convolutions_compute_the_same(kind, exported, name, adapted):
    module, x = kind(6, bias=True).eval(), torch.randn(2, 6, 5, 7)
    if adapted:  # by something that is no longer an nn.Linear, and has to be called
        setattr(module, name, nn.Sequential(getattr(module, name), nn.Tanh()))
    with torch.no_grad():
        expected = module(x)
        module.__class__ = exported
        torch.testing.assert_close(module(x), expected)
        graph = torch.export.export(module, (x,)).graph
    assert any('permute' in str(node.target) for node in graph.nodes) == adapted
