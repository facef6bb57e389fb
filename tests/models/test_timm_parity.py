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

    model.train(), peer.train()
    image = torch.randn(2, 3, 96, 64)
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
    largest = max(reference.abs().max() for _, reference in gradients.values())
    for key, (gradient, reference) in gradients.items():
        # Some gradients are zero but for rounding, such as that of a bias in front of a pooling mixer.
        scale = max(reference.abs().max(), largest / 100)
        assert (gradient - reference).abs().max() / scale <= TOLERANCE, key


def test_the_comparison_notices_a_change():
    model, peer = pair('caformer_s18')
    with torch.no_grad():
        model.stages[2].blocks[4].res_scale2[7] += 0.01
        image = torch.randn(1, 3, 64, 64)
        out = model.eval()(image)[2]
        expected = peer.eval().forward_intermediates(image, intermediates_only=True)[2]
    assert relative_error(out, expected) > TOLERANCE
