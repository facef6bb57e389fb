"""With the same weights our stages compute what timm's compute."""

import pytest
import torch
from timm_peer import TIMM_MODELS, build, load_from_timm, ours_from_timm, randomise, relative_error

timm = pytest.importorskip('timm', reason='timm is the peer that these tests compare with')

TOLERANCE = 1e-4


def pair(name):
    peer = timm.create_model(name)
    randomise(peer)
    model = build(name)
    load_from_timm(model, peer)
    return model, peer


@pytest.mark.parametrize('name', TIMM_MODELS)
def test_stage_outputs_and_gradients_equal_timm(name):
    model, peer = pair(name)
    model.eval(), peer.eval()
    for height, width in ((224, 224), (250, 187)):
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
