"""Layers against their formulas."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmmeta.models.layers import (
    NORMS,
    Attention,
    DropPath,
    GroupNorm1,
    LayerNorm2d,
    Pooling,
    RandomMixing,
    SepConv,
    SquaredReLU,
    StarReLU,
    build_activation,
    build_norm,
)
from mmmeta.models.ops import call_linear
from mmmeta.utils.errors import UsageError


def test_star_relu_formula_and_learnable_scalars():
    x = torch.tensor([-2.0, 0.0, 0.5, 3.0])
    act = StarReLU(scale=0.8944, bias=-0.4472)
    expected = torch.tensor([-0.4472, -0.4472, 0.8944 * 0.25 - 0.4472, 0.8944 * 9 - 0.4472])
    assert torch.allclose(act(x), expected)
    assert sorted(dict(act.named_parameters())) == ['bias', 'scale']
    frozen = StarReLU(scale=0.5, scale_learnable=False, bias_learnable=False)
    assert not list(frozen.parameters()) and not frozen.state_dict()
    assert torch.equal(frozen(x), torch.tensor([0.0, 0.0, 0.125, 4.5]))


SHAPES = {
    'a line': lambda: torch.randn(1077),
    'channels first': lambda: torch.randn(2, 64, 33, 35),
    'channels last': lambda: torch.randn(2, 64, 33, 35).contiguous(memory_format=torch.channels_last),
    'a part of a map': lambda: torch.randn(2, 64, 33, 70)[..., ::2],
    'transposed': lambda: torch.randn(300, 500).t(),
    'nothing': lambda: torch.randn(0, 8, 4, 4),
}


@pytest.mark.parametrize('name', SHAPES)
def test_star_relu_of_tensors_laid_out_in_any_way(name):
    act, x = StarReLU(0.7, -0.3), SHAPES[name]()
    expected, original = 0.7 * x.clamp(min=0) ** 2 - 0.3, x.clone()
    with torch.no_grad():
        out = act(x)
    assert torch.allclose(out, expected, atol=1e-6)
    assert torch.equal(x, original)

    x.requires_grad_()
    out = act(x)
    assert torch.allclose(out, expected, atol=1e-6)
    upper = torch.randn_like(out)
    grads = torch.autograd.grad(out, (x, act.scale, act.bias), upper)
    plain = act.scale * x.relu() ** 2 + act.bias
    for grad, reference in zip(
        grads, torch.autograd.grad(plain, (x, act.scale, act.bias), upper), strict=True
    ):
        assert torch.allclose(grad, reference, rtol=1e-4, atol=1e-3 * reference.abs().mean().nan_to_num())


@pytest.mark.parametrize('scale', [0.0, 1e-4, -0.5])
def test_star_relu_with_a_scale_that_nothing_can_be_divided_by(scale):
    act = StarReLU(scale, 0.1)
    x = torch.randn(1000, requires_grad=True)
    upper = torch.randn(1000)
    inputs = (x, act.scale, act.bias)
    grads = torch.autograd.grad(act(x), inputs, upper)
    plain = act.scale * x.relu() ** 2 + act.bias
    for grad, reference in zip(grads, torch.autograd.grad(plain, inputs, upper), strict=True):
        assert torch.allclose(grad, reference, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize('grad', [False, True])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_star_relu_rounds_once(dtype, grad):
    """It computes in at least float32 and returns the dtype that it got."""
    act = StarReLU(0.7, -0.3)
    x = torch.linspace(-4, 4, 1001).to(dtype).requires_grad_(grad)
    out = act(x)
    exact = act.scale.double() * x.double().clamp(min=0) ** 2 + act.bias.double()
    assert out.dtype == dtype
    # Half a unit in the last place, and that of the arithmetic inside, where numbers of one size are added.
    inside = max(torch.finfo(torch.float32).eps * (dtype != torch.float64), torch.finfo(dtype).tiny)
    assert ((out.double() - exact).abs() <= torch.finfo(dtype).eps / 2 * exact.abs() + 12 * inside).all()
    if grad:
        upper = torch.randn(1001).to(dtype)
        of_x, of_scale, of_bias = torch.autograd.grad(out, (x, act.scale, act.bias), upper)
        exact = 2 * act.scale.double() * x.double().clamp(min=0) * upper.double()
        assert of_x.dtype == dtype
        assert of_scale.dtype == of_bias.dtype == torch.float32
        assert ((of_x.double() - exact).abs() <= torch.finfo(dtype).eps / 2 * exact.abs() + 40 * inside).all()


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('grad', [False, True])
def test_star_relu_at_the_edge_of_float16(grad, autocast):
    """300 squared is not representable, half of it is; 65504 is the largest number."""
    act = StarReLU(0.5, 0.0)
    x = torch.tensor([300.0, 361.0, 362.0, 400.0]).half().requires_grad_(grad)
    with torch.autocast('cpu', torch.float16, enabled=autocast):
        out = act(x)
    assert out.dtype == torch.float16
    assert out.tolist() == [44992.0, 65152.0, float('inf'), float('inf')]  # 362 squared is 131044
    if grad:
        assert torch.autograd.grad(out[:2].sum(), x)[0].tolist()[:2] == [300.0, 361.0]
    squared = SquaredReLU()(torch.tensor([255.0, 256.0]).half())
    assert squared.tolist() == [65024.0, float('inf')]


def test_star_relu_keeps_the_distribution_of_a_standard_normal():
    out = StarReLU(scale=0.8944, bias=-0.4472)(
        torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    )
    assert abs(out.mean()) < 5e-3 and abs(out.std() - 1) < 1e-2


@pytest.mark.parametrize('build', [build_activation, lambda name: build_norm(name, 8)])
def test_unknown_names_are_refused(build):
    with pytest.raises(UsageError, match="unknown (act|norm) 'Relu6': choose one of"):
        build('Relu6')


def test_norms_without_bias_have_none():
    for norm in (LayerNorm2d(8, bias=False), GroupNorm1(8, bias=False)):
        assert [name for name, _ in norm.named_parameters()] == ['weight']


def test_layer_norm_normalises_channels_and_group_norm_the_image():
    x = torch.randn(2, 8, 5, 7) * 3 + 1
    assert torch.allclose(LayerNorm2d(8)(x).mean(1), torch.zeros(2, 5, 7), atol=1e-5)
    out = GroupNorm1(8)(x)
    assert torch.allclose(out.mean((1, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(out.var((1, 2, 3), unbiased=False), torch.ones(2), atol=1e-4)


@pytest.mark.parametrize('name', NORMS)
def test_eps_is_added_to_the_variance(name):
    # The variance is 0.01 over images, over channels, and over both.
    x = 0.1 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).reshape(2, 2, 1, 1)
    for eps in (1e-2, 3e-2):
        out = build_norm(dict(type=name, eps=eps), 2)(x)
        torch.testing.assert_close(out, x / (0.01 + eps) ** 0.5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('bias', [True, False])
def test_layer_norm_is_the_same_when_compiled(bias, dtype):
    norm, x = LayerNorm2d(8, bias=bias), torch.randn(2, 8, 5, 7, dtype=dtype)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype != torch.float32):
        out, expected = torch.compile(norm, fullgraph=True, backend='aot_eager')(x), norm(x)
    assert out.dtype == expected.dtype
    assert torch.allclose(out, expected, rtol=torch.finfo(dtype).eps * 4, atol=torch.finfo(dtype).eps * 4)
    assert out.stride() == expected.stride()


def test_pooling_leaves_the_border_out_of_the_mean():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    out = Pooling(1, pool_size=3)(x)
    assert out[0, 0, 0, 0] == (0 + 1 + 3 + 4) / 4 - 0
    assert out[0, 0, 1, 1] == x.mean() - 4
    with pytest.raises(UsageError, match='pool_size=4 would change the size of the map'):
        Pooling(1, pool_size=4)


def test_attention_equals_its_definition():
    layer = Attention(64)
    x = torch.randn(2, 64, 5, 3)
    tokens = x.flatten(2).transpose(1, 2)
    q, k, v = (tokens @ layer.qkv.weight.T).chunk(3, dim=-1)
    heads = []
    for h in (slice(0, 32), slice(32, 64)):
        weights = (q[..., h] @ k[..., h].transpose(1, 2) / 32**0.5).softmax(-1)
        heads.append(weights @ v[..., h])
    expected = torch.cat(heads, -1) @ layer.proj.weight.T
    assert torch.allclose(layer(x), expected.transpose(1, 2).reshape(x.shape), atol=1e-5)
    with pytest.raises(UsageError, match='head_dim=30 does not divide the 64 channels'):
        Attention(64, head_dim=30)


def test_sep_conv_parameters_and_odd_kernels():
    layer = SepConv(16, bias=True)
    assert sum(p.numel() for p in layer.parameters()) == (16 * 32 + 32) + (32 * 49 + 32) + (32 * 16 + 16) + 2
    with pytest.raises(UsageError, match='kernel_size=4 would change the size of the map'):
        SepConv(16, kernel_size=4)


class TestRandomMixing:
    def test_the_matrix_is_a_frozen_softmax(self):
        layer = RandomMixing(8, 196)
        matrix = layer.random_matrix
        assert matrix.shape == (196, 196) and not matrix.requires_grad
        assert torch.allclose(matrix.sum(-1), torch.ones(196)) and (matrix > 0).all()
        # softmax of uniform noise in [0, 1): no entry of a row is more than e times another
        assert (matrix.max(-1).values / matrix.min(-1).values < torch.e * 1.01).all()
        assert list(layer.state_dict()) == ['random_matrix']
        assert not torch.equal(matrix, RandomMixing(8, 196).random_matrix)

    def test_equals_the_paper_on_its_own_grid(self):
        layer = RandomMixing(8, 49)
        x = torch.randn(2, 8, 7, 7)
        expected = torch.einsum('mn,bcn->bcm', layer.random_matrix, x.flatten(2)).reshape(x.shape)
        assert torch.allclose(layer(x), expected, atol=1e-6)

    @pytest.mark.parametrize('size', [(7, 9), (13, 5), (2, 2), (1, 1), (16, 32), (50, 84)])
    def test_pools_mixes_and_interpolates_on_any_other_map(self, size):
        layer = RandomMixing(3, 49)
        height, width = size
        # The rule, written as matrices: the columns of each are its effect on a single token.
        identity = torch.eye(height * width).reshape(-1, 1, height, width)
        pool = F.adaptive_avg_pool2d(identity, 7).flatten(1).T
        up = F.interpolate(torch.eye(49).reshape(-1, 1, 7, 7), size, mode='bilinear').flatten(1).T
        mixing = up @ layer.random_matrix @ pool
        assert (mixing >= 0).all() and torch.allclose(mixing.sum(-1), torch.ones(height * width), atol=1e-5)
        x = torch.randn(2, 3, height, width)
        expected = torch.einsum('mn,bcn->bcm', mixing, x.flatten(2)).reshape(x.shape)
        assert torch.allclose(layer(x), expected, atol=1e-5)

    def test_a_grid_that_is_no_square_is_refused(self):
        with pytest.raises(UsageError, match='num_tokens=200 is no square grid'):
            RandomMixing(3, 200)


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    layer = DropPath(0.25).train()
    out = layer(torch.ones(4000, 2, 1, 1))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(out[:, 0], out[:, 1])
    assert abs(out.mean() - 1) < 0.05
    assert torch.equal(layer.eval()(torch.ones(2, 2, 1, 1)), torch.ones(2, 2, 1, 1))


def test_the_layers_room_imports_no_openmmlab_package():
    import subprocess
    import sys

    code = (
        'import sys, importlib.util, pathlib, types\n'
        'sys.modules["mmmeta"] = m = types.ModuleType("mmmeta"); m.__path__ = ["mmmeta"]\n'
        'n = sys.modules["mmmeta.models"] = types.ModuleType("mmmeta.models")\n'
        'n.__path__ = ["mmmeta/models"]\n'
        'import mmmeta.models.layers\n'
        'print([k for k in sys.modules if k.startswith(("mmengine", "mmcv", "mmdet", "mmseg"))])'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == '[]'


@pytest.mark.parametrize(
    'arguments', [dict(padding=1), dict(padding=1, padding_mode='reflect'), dict(padding='same')]
)
def test_a_convolution_pads_as_pytorchs(arguments):
    norm, layer = LayerNorm2d(3), nn.Conv2d(3, 5, 3, **arguments)
    x = torch.randn(2, 3, 6, 7)
    outs = [call(norm(x)) for call in (partial(call_linear, layer), layer)]
    assert torch.equal(*outs)
    found, expected = (torch.autograd.grad(out.sin().sum(), layer.weight)[0] for out in outs)
    torch.testing.assert_close(found, expected)
