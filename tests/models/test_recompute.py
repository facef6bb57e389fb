"""What backward recomputes is what it would have found; and it finds less kept."""

from functools import cache, partial

import pytest
import torch
import torch.nn.functional as F
from timm_peer import FAMILIES, build, randomise
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmmeta import models
from mmmeta.analysis import benchmark
from mmmeta.analysis.benchmark import bytes_kept, bytes_per_image
from mmmeta.models.layers import LayerNorm2d, MetaFormerBlock, SepConv, StarReLU
from mmmeta.models.ops import call_linear, channels_first, channels_last, dispatch, recompute

TINY = dict(depths=(1, 1, 2, 1), dims=(32, 32, 64, 64))
SIZES = dict(CAFormer='s18', ConvFormer='s18')
timm = pytest.importorskip('timm', reason='timm is the peer that memory is compared with')

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


class _Nothing(dict):
    """No tensor is known to be recomputable."""

    def get(self, tensor):
        return None


def gradients(model, image, dtype):
    model.zero_grad()
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        outs = model(image)
    sum(out.float().square().mean() for out in outs).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('family', sorted(FAMILIES.values()))
def test_gradients_are_those_of_keeping_everything(family, dtype, monkeypatch):
    model = getattr(models, family)(dict(TINY, base=SIZES.get(family, 's12'))).train()
    randomise(model)
    image = torch.randn(2, 3, 72, 64)
    found = gradients(model, image, dtype)
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        size = bytes_kept(model, image)
        monkeypatch.setattr(recompute, '_recipes', _Nothing())
        assert bytes_kept(model, image) > 1.3 * size  # it is another path that is compared with
    for name, gradient in gradients(model, image, dtype).items():
        assert torch.equal(found[name], gradient), name


@pytest.mark.parametrize('dtype', DTYPES)
def test_bytes_that_a_block_keeps(dtype):
    """Counted by hand: the maps between linear maps, the sums, and mean and deviation of two norms."""
    dim, positions = 8, 6 * 4
    block = MetaFormerBlock(dim, SepConv(dim), norm='LN')
    inner, wide = 2 * dim + 2 * dim + 4 * dim, dim + dim
    width = 4 if dtype == torch.float32 else 2
    sizes = []
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        for batch in (1, 2):
            x = torch.randn(batch, dim, 6, 4, requires_grad=True).contiguous(
                memory_format=torch.channels_last
            )
            sizes.append(bytes_kept(block, x))
    assert sizes[1] - sizes[0] == positions * (inner * width + wide * 4 + 2 * 2 * 4)


def without_weights(build, *args, **kwargs):
    """Build a model on the meta device; only shapes are looked at."""
    with torch.device('meta'):
        return build(*args, **kwargs)


@cache
def kept_by_timm(name, dtype, device='cpu', size=(128, 128)):
    create = partial(without_weights, timm.create_model, name, features_only=True)
    return bytes_per_image(create, size, dtype, device)


def kept(name, dtype, device='cpu', size=(128, 128), **arguments):
    return bytes_per_image(partial(without_weights, build, name, **arguments), size, dtype, device)


LIMITS = dict(convformer_s18=0.5, caformer_s18=0.52, poolformerv2_s12=0.5, poolformer_s12=0.66)


@pytest.mark.parametrize(
    ('name', 'dtype'), [*((name, torch.bfloat16) for name in LIMITS), ('convformer_s18', torch.float32)]
)
def test_half_of_what_timm_keeps(name, dtype):
    assert kept(name, dtype) <= LIMITS[name] * kept_by_timm(name, dtype)


@pytest.mark.parametrize('name', ['convformer_s18', 'caformer_s18'])
def test_two_fifths_of_what_timm_keeps_on_a_gpu(name):
    """There autocast has other rules: norms and powers are computed in float32."""
    case = name, torch.bfloat16, 'cuda', (512, 512)
    assert kept(*case) <= 0.4 * kept_by_timm(*case)


def test_a_gpu_keeps_small_maps():
    """To launch a kernel again takes longer than a small one runs."""
    model = build('convformer_s18', arch=dict(TINY, base='s18'))
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = model.to_empty(device='cuda')
        image = torch.empty(16, 3, 128, 128, device='cuda')
        sizes = []
        for bound in (0, 2**20, dispatch.MIN_BYTES):
            with dispatch.keeping_below(bound):
                sizes.append(bytes_kept(model, image))
        assert sizes[0] < sizes[1] < sizes[2] == bytes_kept(model, image)


def test_bytes_of_an_image_do_not_depend_on_how_close_a_map_is_to_the_bound(monkeypatch):
    """Just above it with 17 images, and just below it with 16."""
    count = partial(kept, 'convformer_s18', torch.bfloat16, 'cuda', arch=dict(TINY, base='s18'))
    # The widest map of the first stage.
    size = 128 * 32 * 32 * 2
    counts = []
    for bound in (15.5, 16.5, 17.5):
        monkeypatch.setattr(benchmark, 'MIN_BYTES', bound * size)
        counts.append(count())
    assert counts[0] < counts[1] == counts[2]


def test_float16_keeps_what_bfloat16_keeps():
    sizes = {kept('convformer_s18', dtype, arch=dict(TINY, base='s18')) for dtype in DTYPES[1:]}
    assert len(sizes) == 1


@pytest.mark.parametrize('dtype', [torch.bfloat16])
@pytest.mark.parametrize('name', LIMITS)
def test_checkpointed_blocks_keep_their_inputs(name, dtype):
    # Mixed precision adds PoolFormer's branches up in float32, and keeps the casts in front of convolutions.
    limit = 0.16 if name == 'poolformer_s12' else 0.15
    assert kept(name, dtype, with_cp=True) <= limit * kept_by_timm(name, dtype)


def test_windows_keep_half_of_timms_global_attention():
    case = 'caformer_s18', torch.bfloat16, 'cuda', (400, 672)
    assert kept(*case, window=13) <= 0.5 * kept_by_timm(*case)


@pytest.mark.parametrize('dtype', DTYPES[:2])
def test_counting_without_computing_is_counting(dtype):
    """Fake tensors keep what real ones do."""
    model = build('caformer_s18', arch=dict(TINY, base='s18'), window=3).train()
    real = []
    for batch in (1, 2):
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            real.append(bytes_kept(model, torch.randn(batch, 3, 128, 96)))
    counted = kept('caformer_s18', dtype, size=(128, 96), arch=dict(TINY, base='s18'), window=3)
    # Mean and deviation of a norm are in float32, and fake ones in the dtype of the map.
    assert counted == pytest.approx(real[1] - real[0], rel=0.02)


def test_a_star_relu_keeps_its_input_alone():
    x = torch.randn(4, 8, 16, 16, requires_grad=True)
    hidden = x * 2
    assert bytes_kept(StarReLU(), hidden) == hidden.nbytes  # its output


def test_gradients_of_star_relu():
    act = StarReLU(0.9, -0.4).double()
    x = torch.randn(3, 4, 5, 2, dtype=torch.float64, requires_grad=True)

    def run(x, scale, bias):
        return torch.func.functional_call(act, dict(scale=scale, bias=bias), (x,))

    assert torch.autograd.gradcheck(run, (x, act.scale, act.bias))
    assert torch.autograd.gradgradcheck(run, (x, act.scale, act.bias))
    fixed = StarReLU(0.9, -0.4, scale_learnable=False, bias_learnable=False)
    assert torch.autograd.gradcheck(fixed, (x,))


def test_second_derivatives(monkeypatch):
    block = MetaFormerBlock(4, SepConv(4, kernel_size=3), norm='LN').double()
    randomise(block)
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    results = []
    for _ in range(2):
        out = block(x * 1)
        first = torch.autograd.grad(out.sin().sum(), list(block.parameters()), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (x, *block.parameters()))
        results.append(second)
        monkeypatch.setattr(recompute, '_recipes', _Nothing())
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


def over_channels(layer, x):
    """Map the channels of ``(B, C, H, W)``, as the layers of a block do."""
    return channels_first(call_linear(layer, channels_last(x)))


def test_linear_maps():
    """With gradients in closed form."""
    layer, norm = nn.Linear(3, 5).double(), LayerNorm2d(3).double()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)

    def run(x, weight, bias):
        return torch.func.functional_call(_Over(layer), {'0.weight': weight, '0.bias': bias}, (norm(x),))

    out = run(x, layer.weight, layer.bias)
    assert 'RecomputingMap' in str(out.grad_fn.next_functions)
    expected = F.linear(norm(x).permute(0, 2, 3, 1), layer.weight, layer.bias).permute(0, 3, 1, 2)
    assert torch.equal(out, expected)
    assert torch.autograd.gradcheck(run, (x, layer.weight, layer.bias))
    assert torch.autograd.gradgradcheck(run, (x, layer.weight, layer.bias))


class _Over(nn.Sequential):
    def forward(self, x):
        return over_channels(self[0], x)


def test_frozen_weights_keep_nothing_and_pass_gradients_on():
    norm, layer = LayerNorm2d(3), nn.Linear(3, 5).requires_grad_(False)
    x = torch.randn(2, 3, 4, 6, requires_grad=True)
    over_channels(layer, norm(x)).square().sum().backward()
    reference = x.detach().clone().requires_grad_()
    F.conv2d(norm(reference), layer.weight[:, :, None, None], layer.bias).square().sum().backward()
    assert torch.allclose(x.grad, reference.grad, rtol=1e-5, atol=1e-6)


def test_a_weight_that_two_layers_share_gets_both_gradients():
    """Under autocast the cast of one layer must not be found, without its gradient, by the other."""
    norm, layer = LayerNorm2d(8), nn.Linear(8, 8)
    x = torch.randn(2, 8, 4, 6)
    with torch.autocast('cpu', torch.bfloat16):
        (over_channels(layer, norm(x)).sum() + F.linear(x.mean((2, 3)), layer.weight).sum()).backward()
    both, layer.weight.grad = layer.weight.grad, None
    with torch.autocast('cpu', torch.bfloat16):
        over_channels(layer, norm(x)).sum().backward()
    with torch.autocast('cpu', torch.bfloat16):
        F.linear(x.mean((2, 3)), layer.weight).sum().backward()
    assert torch.equal(both, layer.weight.grad)


def test_an_input_that_was_written_over_is_noticed():
    x = torch.randn(5, 3, 2, 2, requires_grad=True) * 1
    out = over_channels(nn.Linear(3, 2), LayerNorm2d(3)(x))
    with torch.no_grad():
        x.zero_()
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        out.sum().backward()
