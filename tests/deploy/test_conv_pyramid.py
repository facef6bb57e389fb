"""Convolutions over resized maps."""

import pytest
import torch
import torch.nn.functional as F

from mmmeta.deploy.conv_pyramid import conv_pyramid, conv_resized


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('kernel', [1, 3, 5])
@pytest.mark.parametrize(
    ('given', 'size'),
    [
        ((5, 7), (20, 28)),
        ((4, 4), (9, 15)),
        ((1, 1), (8, 8)),
        ((6, 6), (3, 4)),
        ((1, 6), (2, 6)),
        ((2, 3), (1, 1)),
    ],
)
def test_the_same_as_resizing_first(given, size, kernel, align_corners):
    x, weight = torch.randn(2, 6, *given), torch.randn(5, 6, kernel, kernel)
    resized = F.interpolate(x, size=size, mode='bilinear', align_corners=align_corners)
    expected = F.conv2d(resized, weight, padding=kernel // 2)
    out = conv_resized(x, weight, size, align_corners)
    assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_pyramid():
    maps = [torch.randn(2, c, s, s + 1) for c, s in ((4, 16), (3, 16), (6, 8), (2, 3))]
    weight, bias = torch.randn(7, 15, 3, 3), torch.randn(7)
    resized = [F.interpolate(x, size=(16, 17), mode='bilinear', align_corners=False) for x in maps]
    expected = F.conv2d(torch.cat(resized, 1), weight, bias, padding=1)
    assert (conv_pyramid(maps, weight, bias) - expected).abs().max() <= 1e-5 * expected.abs().max()
