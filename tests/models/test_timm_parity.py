"""With the same weights our stages compute what timm's compute."""

import pytest
import torch
from conftest import nightly_but
from timm_peer import TIMM_MODELS, build, is_small, load_from_timm, ours_from_timm, randomise, relative_error

from mmmeta.config.backbones import build_backbone

timm = pytest.importorskip('timm', reason='timm is the peer that these tests compare with')

TOLERANCE = 1e-4


def pair(name):
    with torch.device('meta'):  # no initial values, which take longer to draw than these tests to run
        peer, model = timm.create_model(name), build(name)
    peer, model = peer.to_empty(device='cpu'), model.to_empty(device='cpu')
    randomise(peer)
    load_from_timm(model, peer)
    return model, peer


@pytest.mark.parametrize('name', nightly_but(TIMM_MODELS, is_small))
def test_stage_outputs_and_gradients_equal_timm(name):
    model, peer = pair(name)
    model.eval(), peer.eval()
    # Odd sizes for all; the papers' for the smallest of each family.
    for height, width in ((224, 224), (122, 91)) if sum(model.depths) <= 18 else ((122, 91),):
        image = torch.randn(1, 3, height, width)
        with torch.no_grad():
            outs = model(image)
            expected = peer.forward_intermediates(image, intermediates_only=True)
        assert len(outs) == 4
        for out, reference in zip(outs, expected, strict=True):
            assert out.shape == reference.shape
            assert relative_error(out, reference) <= TOLERANCE

    for key, error in gradient_errors(model, peer, torch.randn(2, 3, 96, 64)).items():
        assert error <= TOLERANCE, key


@pytest.mark.parametrize('name', ['poolformer_s12', 'poolformerv2_s12', 'convformer_s18', 'caformer_s18'])
def test_gradients_equal_timm_to_more_digits_in_float64(name):
    """What is left of the difference in float32 is rounding."""
    model, peer = (network.double() for network in pair(name))
    errors = gradient_errors(model, peer, torch.randn(2, 3, 96, 64, dtype=torch.float64))
    assert max(errors.values()) <= 1e-11


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    'name',
    [
        'poolformer_s12',
        'poolformerv2_s12',
        'identityformer_s12',
        'randformer_s12',
        'convformer_s18',
        'caformer_s18',
    ],
)
def test_mixed_precision_is_as_exact_as_timms(name, dtype):
    """Both differ from float32 by rounding, which grows with the root of the number of roundings."""
    peer = build_backbone(f'timm/{name}')  # its block around our mixers where it has no such model
    randomise(peer)
    model = build(name)
    load_from_timm(model, peer)
    image = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    upper = [torch.randn(2, dim, 16 // 2**i, 8 // 2**i) for i, dim in enumerate(model.dims)]

    def run(network, enabled):
        network.train().zero_grad()
        with torch.autocast('cpu', dtype, enabled=enabled):
            outs = network(image)
        sum((out.float() * weight).mean() for out, weight in zip(outs, upper, strict=True)).backward()
        grads = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
        return [out.float() for out in outs], grads

    def distance(a, b):
        return ((a - b).norm() / b.norm()).item()

    exact, exact_grads = run(model, enabled=False)
    outs, grads = run(model, enabled=True)
    theirs, their_grads = run(peer, enabled=True)
    # Four linear maps, norms and sums in each block round what they return.
    bound = torch.finfo(dtype).eps * (4 * sum(model.depths)) ** 0.5
    for out, reference, expected in zip(outs, theirs, exact, strict=True):
        assert out.isfinite().all()
        assert distance(out, expected) <= bound
        assert distance(out, reference) <= 2 * bound
    for key, gradient in their_grads.items():
        own = ours_from_timm(key)
        if exact_grads[own].numel() == 1:
            continue  # sums that nearly cancel
        gradient = gradient.reshape(grads[own].shape)
        size = max(exact_grads[own].norm(), 1e-2 * max(g.norm() for g in exact_grads.values()))
        assert (grads[own] - exact_grads[own]).norm() <= 4 * bound * size, key
        assert (grads[own] - gradient).norm() <= 8 * bound * size, key


def gradient_errors(model, peer, image):
    """Largest difference of each parameter's gradient, over the largest magnitude expected."""
    model.train(), peer.train()
    outs, expected = model(image), peer.forward_intermediates(image, intermediates_only=True)
    weights = [torch.randn_like(out) / out.numel() for out in outs]
    for features in (outs, expected):
        sum((feature * weight).sum() for feature, weight in zip(features, weights, strict=True)).backward()
    own = dict(model.named_parameters())
    gradients = {
        key: (own[ours_from_timm(key)].grad.reshape(parameter.shape), parameter.grad)
        for key, parameter in peer.named_parameters()
        if not key.startswith('head.')
    }
    assert len(gradients) == len(own)
    # Some gradients are zero but for rounding, such as that of a bias in front of a pooling mixer.
    smallest = max(reference.abs().max() for _, reference in gradients.values()) / 100
    # Those of StarReLU's scalars are sums over all entries of a map, which nearly cancel in some layers and
    # not in others: rounding goes with what is summed, not with the sum.
    scalars = [reference.abs().max() for _, reference in gradients.values() if reference.numel() == 1]
    errors = {}
    for key, (gradient, reference) in gradients.items():
        scale = max(scalars) if reference.numel() == 1 else max(reference.abs().max(), smallest)
        errors[key] = ((gradient - reference).abs().max() / scale).item()
    return errors


def test_the_comparison_notices_a_change():
    model, peer = pair('caformer_s18')
    with torch.no_grad():
        model.stages[2].blocks[4].res_scale2[7] += 0.01
        image = torch.randn(1, 3, 64, 64)
        out = model.eval()(image)[2]
        expected = peer.eval().forward_intermediates(image, intermediates_only=True)[2]
    assert relative_error(out, expected) > TOLERANCE
