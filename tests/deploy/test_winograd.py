"""3x3 convolutions with fewer products, and where they are used."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmmeta.deploy.winograd import OF_INPUTS, OF_KERNELS, OF_PRODUCTS, WinogradConv2d, conv3x3


def rounding(terms: int, growth: float = 1.0) -> float:
    """What float32 loses of a sum in any order, three standard deviations of it, relative to its terms."""
    return 3 * growth * torch.finfo(torch.float32).eps * terms**0.5


def test_one_tile_in_exact_arithmetic():
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(side, side, dtype=torch.float64, generator=generator) for side in (6, 3))
    products = (OF_INPUTS.double() @ x.flatten()) * (OF_KERNELS.double() @ weight.flatten())
    expected = F.conv2d(x[None, None], weight[None, None])
    # The matrices are stored in float32.
    assert torch.allclose(OF_PRODUCTS.double() @ products, expected.flatten(), atol=rounding(36, growth=30))


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize(
    ('batch', 'channels', 'out_channels', 'size'),
    [(2, 3, 5, (8, 12)), (1, 4, 2, (7, 9)), (2, 1, 1, (1, 1)), (1, 2, 3, (30, 5)), (1, 96, 64, (130, 37))],
)
def test_the_same_as_a_convolution(batch, channels, out_channels, size, bias, channels_last):
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(batch, channels, *size).contiguous(memory_format=memory_format)
    weight, offset = torch.randn(out_channels, channels, 3, 3), torch.randn(out_channels) if bias else None
    expected = F.conv2d(x.double(), weight.double(), None if offset is None else offset.double(), padding=1)
    out = conv3x3(x, weight, offset)
    assert (out - expected).abs().max() <= 1e-5 * max(expected.abs().max(), 1)
    assert out.is_contiguous(memory_format=memory_format)


def test_no_images():
    assert conv3x3(torch.randn(0, 3, 8, 12), torch.randn(5, 3, 3, 3)).shape == (0, 5, 8, 12)


def test_errors_are_those_of_rounding():
    """Transforms make intermediate values larger than outputs, by less than 30 with these points."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 256, 64, 64, generator=generator)
    weight = torch.randn(256, 256, 3, 3, generator=generator)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    # Products are of the order of one; sums of outputs of the root of their number.
    assert (conv3x3(x, weight) - exact).abs().max() < rounding(9 * 256, growth=30) * 6


class TestWinogradConv2d:
    x = torch.randn(1, 128, 64, 64, generator=torch.Generator().manual_seed(0))

    @staticmethod
    def pair():
        stock = nn.Conv2d(128, 128, 3, padding=1)
        ours = nn.Conv2d(128, 128, 3, padding=1)
        ours.load_state_dict(stock.state_dict())
        ours.__class__ = WinogradConv2d
        return ours, stock

    def test_the_same_at_inference(self, monkeypatch):
        ours, stock = self.pair()
        calls = []
        monkeypatch.setattr(
            'mmmeta.deploy.winograd.conv3x3', lambda *given: calls.append(1) or conv3x3(*given)
        )
        with torch.no_grad():
            assert torch.allclose(ours(self.x), stock(self.x), atol=rounding(9 * 128, growth=30))
        assert calls == [1]

    @pytest.mark.parametrize(
        'arguments',
        [
            dict(kernel_size=1, padding=0),
            dict(stride=2),
            dict(padding=0),
            dict(padding='same'),
            dict(dilation=2, padding=2),
            dict(groups=2),
            dict(padding_mode='reflect'),
            dict(out_channels=64),
        ],
    )
    def test_other_kernels_are_left_alone(self, arguments):
        known = dict(in_channels=128, out_channels=128, kernel_size=3, padding=1)
        assert WinogradConv2d.replaces(nn.Conv2d(**known))
        assert not WinogradConv2d.replaces(nn.Conv2d(**{**known, **arguments}))

    def test_elsewhere_it_is_pytorchs(self):
        ours, stock = self.pair()
        assert torch.equal(ours(self.x), stock(self.x))  # gradients
        with torch.no_grad():
            assert torch.equal(ours(self.x[..., :32, :]), stock(self.x[..., :32, :]))  # a small map
            assert torch.equal(ours(self.x[0]), stock(self.x[0]))  # no batch
            with torch.autocast('cpu', torch.bfloat16):
                assert torch.equal(ours(self.x), stock(self.x))
            assert torch.equal(ours.bfloat16()(self.x.bfloat16()), stock.bfloat16()(self.x.bfloat16()))

    def test_it_notices_new_weights(self):
        ours, stock = self.pair()
        with torch.no_grad():
            ours(self.x)
            for conv in (ours, stock):
                conv.weight.mul_(2)
            assert torch.allclose(ours(self.x), stock(self.x), atol=2 * rounding(9 * 128, growth=30))
