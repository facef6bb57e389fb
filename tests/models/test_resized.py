"""Convolutions over resized maps, and the head that is made of them."""

import pytest
import torch
import torch.nn.functional as F

from mmmeta.models.layers.resized import conv_pyramid, conv_resized


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


MAPS = [torch.randn(2, c, -(-60 // s), -(-84 // s)) for c, s in ((8, 4), (16, 8), (24, 16), (32, 32))]


class TestHead:
    @staticmethod
    def build(kind, **arguments):
        pytest.importorskip('mmseg', reason='the head is on top of its own')
        from mmmeta.registry import MODELS

        arguments = (
            dict(
                norm_cfg=dict(type='BN'),
                in_channels=[8, 16, 24, 32],
                in_index=[0, 1, 2, 3],
                channels=12,
                num_classes=5,
            )
            | arguments
        )
        head = MODELS.build(dict(type=kind, dropout_ratio=0.1, **arguments))
        generator = torch.Generator().manual_seed(0)
        for tensor in head.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1 - (tensor.ndim > 1) * 0.6)
        return head

    @pytest.mark.parametrize(
        'arguments',
        [{}, dict(align_corners=True), dict(norm_cfg=None), dict(pool_scales=(1, 2)), dict(act_cfg=None)],
    )
    def test_inference_is_that_of_mmsegmentation(self, arguments):
        ours, stock = (self.build(kind, **arguments).eval() for kind in ('mmmeta.UPerHead', 'mmseg.UPerHead'))
        stock.load_state_dict(ours.state_dict())
        with torch.no_grad():
            out, expected = ours(MAPS), stock(MAPS)
        assert not torch.equal(out, expected)  # another order of sums
        assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()

    @pytest.mark.parametrize('case', ['training', 'gradients', 'autocast'])
    def test_elsewhere_it_is_mmsegmentations_own(self, case):
        ours, stock = (self.build(kind).eval() for kind in ('mmmeta.UPerHead', 'mmseg.UPerHead'))
        for head in (ours, stock):
            head.train(case == 'training')
        outs = []
        for head in (ours, stock):
            torch.manual_seed(0)
            with (
                torch.set_grad_enabled(case == 'gradients'),
                torch.autocast('cpu', enabled=case == 'autocast'),
            ):
                outs.append(head(MAPS))
        assert torch.equal(*outs)

    def test_it_notices_new_weights(self):
        head = self.build('mmmeta.UPerHead').eval()
        with torch.no_grad():
            before = head(MAPS)
            head.fpn_bottleneck.conv.weight.mul_(2)
            assert not torch.allclose(head(MAPS), before)

    def test_an_argument_that_nobody_knows(self):
        with pytest.raises(TypeError, match="unexpected keyword argument 'chanels'"):
            self.build('mmmeta.UPerHead', chanels=12)
