"""3x3 convolutions with fewer products, and where they are used."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmmeta.models.layers import Conv2d, accelerate
from mmmeta.models.layers.winograd import OF_INPUTS, OF_KERNELS, OF_PRODUCTS, conv3x3


def test_one_tile_in_exact_arithmetic():
    x, weight = (torch.randn(side, side, dtype=torch.float64) for side in (6, 3))
    products = (OF_INPUTS.double() @ x.flatten()) * (OF_KERNELS.double() @ weight.flatten())
    expected = F.conv2d(x[None, None], weight[None, None])
    # The matrices are stored in float32.
    assert torch.allclose(OF_PRODUCTS.double() @ products, expected.flatten(), atol=1e-6)


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


def test_errors_are_small():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 256, 64, 64), torch.randn(256, 256, 3, 3)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    # With the points 1/2 and -1/2, or 2 and -2, errors are larger than that.
    assert (conv3x3(x, weight) - exact).abs().max() < 5e-6 * exact.abs().max()


def _pair(**arguments):
    ours = Conv2d(**{**dict(in_channels=128, out_channels=128, kernel_size=3, padding=1), **arguments})
    stock = nn.Conv2d(**{**dict(in_channels=128, out_channels=128, kernel_size=3, padding=1), **arguments})
    stock.load_state_dict(ours.state_dict())
    return ours, stock


class TestConv2d:
    x = torch.randn(1, 128, 64, 64)

    def test_fewer_products_at_inference(self):
        ours, stock = _pair()
        with torch.no_grad():
            out, expected = ours(self.x), stock(self.x)
            exact = stock.double()(self.x.double())
        assert not torch.equal(out, expected)  # another order of sums
        assert (out - exact).abs().max() < 5e-6 * exact.abs().max()

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
    def test_other_kernels_are_pytorchs(self, arguments):
        ours, stock = _pair(**arguments)
        with torch.no_grad():
            assert torch.equal(ours(self.x), stock(self.x))

    def test_elsewhere_it_is_pytorchs(self):
        ours, stock = _pair()
        assert torch.equal(ours(self.x), stock(self.x))  # gradients
        with torch.no_grad():
            assert torch.equal(ours(self.x[..., :32, :]), stock(self.x[..., :32, :]))  # a small map
            assert torch.equal(ours(self.x[0]), stock(self.x[0]))  # no batch
            with torch.autocast('cpu', torch.bfloat16):
                assert torch.equal(ours(self.x), stock(self.x))
            assert torch.equal(ours.bfloat16()(self.x.bfloat16()), stock.bfloat16()(self.x.bfloat16()))

    def test_it_notices_new_weights(self):
        ours, _ = _pair(bias=False)
        with torch.no_grad():
            before = ours(self.x)
            ours.weight.mul_(2)
            assert torch.allclose(ours(self.x), 2 * before, rtol=1e-5, atol=1e-5)

    def test_a_config_names_it(self):
        from mmcv.cnn import ConvModule

        module = ConvModule(4, 4, 3, conv_cfg=dict(type='mmmeta.Conv2d'))
        assert type(module.conv) is Conv2d


def test_accelerated_modules_keep_their_parameters():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Linear(2, 2), nn.Conv2d(4, 4, 1)))
    before = {name: parameter.data_ptr() for name, parameter in module.named_parameters()}
    accelerate(module)
    assert {name: parameter.data_ptr() for name, parameter in module.named_parameters()} == before
    assert [type(child) for child in (module[0], module[1][1])] == [Conv2d, Conv2d]
