"""What backward computes again is what it would have found; and it finds less kept."""

import pytest
import timm
import torch
from timm_peer import FAMILIES, build, randomise
from torch import nn

from mmmeta import models
from mmmeta.analysis.benchmark import bytes_kept
from mmmeta.models.layers import StarReLU, keep_everything
from mmmeta.models.layers.recompute import through

TINY = dict(depths=(1, 1, 2, 1), dims=(32, 32, 64, 64))
SIZES = dict(CAFormer='s18', ConvFormer='s18')


def gradients(model, image, keep=False, **autocast):
    model.zero_grad()
    with torch.autocast('cpu', enabled=bool(autocast), **autocast):
        if keep:
            with keep_everything():
                outs = model(image)
        else:
            outs = model(image)
    sum(out.float().square().mean() for out in outs).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize('autocast', [{}, dict(dtype=torch.bfloat16), dict(dtype=torch.float16)])
@pytest.mark.parametrize('family', sorted(FAMILIES.values()))
def test_gradients_are_those_of_keeping_everything(family, autocast):
    model = getattr(models, family)(dict(TINY, base=SIZES.get(family, 's12'))).train()
    randomise(model)
    image = torch.randn(2, 3, 72, 64)
    expected = gradients(model, image, keep=True, **autocast)
    for name, gradient in gradients(model, image, **autocast).items():
        assert torch.equal(gradient, expected[name]), name


@pytest.mark.parametrize(
    ('name', 'limit'),
    [('convformer_s18', 0.5), ('caformer_s18', 0.5), ('poolformer_s12', 0.7), ('poolformerv2_s12', 0.7)],
)
def test_half_of_what_timm_keeps(name, limit):
    image = torch.randn(1, 3, 256, 256)
    ours, theirs = build(name).train(), timm.create_model(name, features_only=True).train()
    assert bytes_kept(ours, image) < limit * bytes_kept(theirs, image)
    checkpointed = build(name, with_cp=True).train()
    assert bytes_kept(checkpointed, image) < 0.15 * bytes_kept(theirs, image)


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


def test_second_derivatives_pass_through():
    layer, act = nn.Linear(3, 4).double(), nn.GELU()
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)

    def plain(x, weight):
        return torch.nn.functional.linear(act(x), weight)

    def recomputing(x, weight):
        return through(act, lambda y: torch.nn.functional.linear(y, weight), x)

    for order in (plain, recomputing):
        out = order(x * 1, layer.weight)
        (first,) = torch.autograd.grad(out.sin().sum(), layer.weight, create_graph=True)
        second = torch.autograd.grad(first.square().sum(), (x, layer.weight))
        if order is plain:
            expected = second
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(second, expected, strict=True))


def test_a_consumer_that_writes_over_what_it_gets_is_not_given_another():
    """What was kept is what it has written, not what it was given."""
    x = torch.randn(5, 3, requires_grad=True)
    weight = torch.randn(4, 3, requires_grad=True)

    def consume(y):
        return torch.nn.functional.linear(y.mul_(2), weight)

    through(torch.sin, consume, x * 1).sum().backward()
    assert torch.allclose(weight.grad, 2 * x.sin().sum(0).expand(4, 3).detach())


def test_an_input_that_was_written_over_is_noticed():
    x = torch.randn(5, 3, requires_grad=True) * 1
    out = through(torch.sin, nn.Linear(3, 2), x)
    with torch.no_grad():
        x.zero_()
    with pytest.raises(
        RuntimeError, match='a tensor that backward needs has been written over|modified by an inplace'
    ):
        out.sum().backward()
