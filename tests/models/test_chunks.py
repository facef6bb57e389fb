"""At inference on a CPU parts of a block work in pieces; nothing but the time changes."""

import pytest
import torch
from timm_peer import randomise

from mmmeta.models import CAFormer, ConvFormer, PoolFormerV2, RandFormer
from mmmeta.models.layers import (
    ACTIVATIONS,
    MetaFormerBlock,
    Pointwise,
    SepConv,
    StarReLU,
    build_activation,
    chunks,
)

TINY = dict(base='s18', depths=(2, 1, 2, 1), dims=(8, 16, 32, 64))


@pytest.mark.parametrize('size', [(96, 64), (131, 85), (32, 300)])
@pytest.mark.parametrize('family', [CAFormer, ConvFormer, PoolFormerV2])
def test_pieces_make_the_whole(family, size, monkeypatch):
    base = 's12' if family is PoolFormerV2 else 's18'
    arch = dict(TINY, base=base, layer_scale_init=(None, 0.5, 0.7, None), res_scale=(False, True, True, True))
    model = family(arch)
    randomise(model)
    model.eval()
    image = torch.randn(2, 3, *size)
    expected = [out.detach() for out in model(image)]  # with gradients, nothing is in pieces
    for limit in (1 << 10, 1 << 14, 1 << 30):
        monkeypatch.setattr(chunks, 'CHUNK_BYTES', limit)
        with torch.no_grad():
            outs = model(image)
        for out, reference in zip(outs, expected, strict=True):
            assert (out - reference).abs().max() < 1e-5


@pytest.mark.parametrize('family', [CAFormer, ConvFormer, PoolFormerV2, RandFormer])
def test_linear_maps_see_channels_last(family):
    """With channels first the kernel takes up to four times as long, and the input is copied."""
    model = family(dict(TINY, base='s12' if family in (PoolFormerV2, RandFormer) else 's18')).eval()
    strides = []
    for module in model.modules():
        if isinstance(module, Pointwise):
            module.register_forward_hook(lambda module, args, out: strides.append(out.stride(1)))
    with torch.no_grad():
        model(torch.randn(1, 3, 96, 64))
    assert len(strides) >= 12
    assert set(strides) == {1}


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_pieces_under_autocast(dtype, monkeypatch):
    model = CAFormer(TINY).eval()
    randomise(model)
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad(), torch.autocast('cpu', dtype):
        expected = model(image)
        monkeypatch.setattr(chunks, 'CHUNK_BYTES', 1 << 10)
        outs = model(image)
    for out, reference in zip(outs, expected, strict=True):
        assert out.dtype == reference.dtype
        assert (out - reference).abs().max() < 0.02 * reference.abs().max()


def test_strips_are_really_taken(monkeypatch):
    block = MetaFormerBlock(8, SepConv(8), norm='LN').eval()
    mixer, strips = block.token_mixer, []
    mix_rows = mixer.mix_rows
    monkeypatch.setattr(
        mixer, 'mix_rows', lambda x, *outside: strips.append((x.shape[2], *outside)) or mix_rows(x, *outside)
    )
    monkeypatch.setattr(chunks, 'CHUNK_BYTES', 1)
    x = torch.randn(1, 8, 40, 20)
    original = x.clone()
    expected = block(x)
    assert strips == []
    with torch.no_grad():
        assert (block(x) - expected).abs().max() < 1e-6
    assert strips == [(19, 3, 0), (22, 0, 0), (11, 0, 3)]
    assert torch.equal(x, original)


def test_stochastic_depth_drops_whole_images_without_gradients_too(monkeypatch):
    monkeypatch.setattr(chunks, 'CHUNK_BYTES', 1)
    block = MetaFormerBlock(8, SepConv(8), norm='LN', drop_path=0.5).train()
    x = torch.randn(8, 8, 40, 20).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    expected = block(x).detach()
    torch.manual_seed(0)
    with torch.no_grad():
        assert (block(x) - expected).abs().max() < 1e-5


@pytest.mark.parametrize('name', ACTIVATIONS)
def test_activations_write_over_their_input_at_inference_alone(name):
    act, x = build_activation(name), torch.randn(5, 7)
    expected, original = act(x.clone().requires_grad_()).detach(), x.clone()
    with torch.no_grad():
        assert torch.equal(act(x), expected)
    if name in ('StarReLU', 'SquaredReLU'):
        assert torch.equal(x, expected)
    else:
        assert torch.equal(x, original)


def test_an_activation_of_ones_own_leaves_its_input_alone():
    x = torch.randn(5, 7)
    original = x.clone()
    with torch.no_grad():
        StarReLU()(x)
    assert torch.equal(x, original)
