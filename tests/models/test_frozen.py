"""Gradients behind and through parts that are not trained, on a CPU, where PyTorch may crash."""

import itertools
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from timm_peer import FAMILIES, randomise

from mmmeta import models
from mmmeta.models.layers import GroupNorm1

TINY = dict(depths=(1, 1, 1, 1), dims=(32, 32, 64, 64))
SIZES = ((64, 64), (128, 192), (320, 320))
SAMPLE = (*((family, frozen, 0, 0) for family in FAMILIES for frozen in (0, 4)), ('poolformer', 2, 1, 1))
EVERYTHING = tuple(itertools.product(FAMILIES, range(-1, 5), (0, 1), range(3)))


def build(family, **arguments):
    base = 's18' if family in ('convformer', 'caformer') else 's12'
    model = getattr(models, FAMILIES[family])(dict(TINY, base=base), **arguments).train()
    randomise(model)
    return model


def gradients(loss, tensors):
    """Gradients by one backward pass."""
    loss.backward()
    return {name: tensor.grad for name, tensor in tensors.items() if tensor.requires_grad}


def assert_subset(actual, expected, case):
    """Those that are computed are what is computed when nothing is frozen."""
    assert actual, case
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in actual.items():
        # Sums of float32 in another order; some gradients are zero but for rounding.
        error = (gradient - expected[name]).abs().max()
        assert error <= 1e-4 * max(expected[name].abs().max(), largest / 100), (case, name, error)


def check_frozen_stages(family, frozen, with_cp, size):
    """Training, input gradients as of saliency, and distillation from a frozen teacher."""
    case = family, frozen, with_cp, size
    image = torch.randn(1, 3, *SIZES[size], generator=torch.Generator().manual_seed(0))

    def loss(model, x):
        return sum(out.square().mean() for out in model(x))

    whole = build(family)
    model = build(family, frozen_stages=frozen, with_cp=bool(with_cp))
    expected_x = image.clone().requires_grad_()
    parameters = dict(whole.named_parameters())
    expected = gradients(loss(whole, expected_x), dict(parameters, image=expected_x))
    assert_subset(gradients(loss(model, image), dict(model.named_parameters())), expected, case)
    model.zero_grad()
    x = image.clone().requires_grad_()
    assert_subset(gradients(loss(model, x), dict(model.named_parameters(), image=x)), expected, case)
    x.grad = None
    assert_subset(gradients(loss(model.requires_grad_(False), x), dict(image=x)), expected, case)

    student = build(family, frozen_stages=frozen, with_cp=bool(with_cp))
    pairs = zip(student(image), model(image + 1), strict=True)
    found = gradients(sum(F.mse_loss(*pair) for pair in pairs), dict(student.named_parameters()))
    assert all(gradient.isfinite().all() for gradient in found.values()), case


def explicit(x, weight, bias):
    """Group norm with one group, by its formula."""
    centred = x - x.mean((1, 2, 3), keepdim=True)
    x = centred / (centred.square().mean((1, 2, 3), keepdim=True) + 1e-6).sqrt()
    return x * weight[:, None, None] + bias[:, None, None]


def check_norm(dtype, layout, size, needed, backend):
    """Those gradients that are needed, beside the formula in float64."""
    case = dtype, layout, size, needed, backend
    generator = torch.Generator().manual_seed(0)
    norm = GroupNorm1(16).to(torch.promote_types(dtype, torch.float32))
    randomise(norm)
    x = torch.randn(2, 16, *size, generator=generator).to(dtype).to(memory_format=layout)
    upper = torch.randn(2, 16, *size, generator=generator).to(dtype)
    tensors = [x.clone(memory_format=torch.preserve_format), norm.weight, norm.bias]
    for tensor, need in zip(tensors, needed, strict=True):
        tensor.requires_grad_(need)
    run = norm if backend is None else torch.compile(norm, backend=backend, fullgraph=True)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    expected = torch.autograd.grad(explicit(*exact), exact, upper.double())
    # Rounded to the dtype a few times; sums over all positions are taken in at least float32.
    inner = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    bound = 8 * torch.finfo(dtype).eps + inner * len(x) * size[0] * size[1] / 10
    wanted = [i for i in range(3) if needed[i]]

    def check(found):
        for i, gradient in zip(wanted, found, strict=True):
            error = (gradient.double() - expected[i]).norm() / expected[i].norm()
            assert error <= bound, (*case, i, error.item())

    check(torch.autograd.grad(run(tensors[0]), [tensors[i] for i in wanted], upper))
    if backend is None:
        # All require gradients; some are asked for.
        for tensor in tensors:
            tensor.requires_grad_()
        check(torch.autograd.grad(norm(tensors[0]), [tensors[i] for i in wanted], upper))


def check_recorded():
    """Graphs recorded with gradients enabled are as safe: frozen input, trained weights."""
    x = torch.randn(2, 16, 8, 8).to(memory_format=torch.channels_last)
    norm = GroupNorm1(16)
    norm(x).square().mean().backward()
    for recorded in (torch.export.export(norm, (x,)).module(), torch.jit.trace(norm, x)):
        recorded.zero_grad()
        recorded(x).square().mean().backward()
        gradient = dict(recorded.named_parameters())['weight'].grad
        assert torch.allclose(gradient, norm.weight.grad, atol=1e-6)


NEEDED = [needed for needed in itertools.product((False, True), repeat=3) if any(needed)]
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def norm_cases(nightly):
    dtypes = (torch.float32, torch.bfloat16, torch.float64) if nightly else (torch.float32, torch.bfloat16)
    sizes = ((1, 5), (16, 16), (40, 40), (31, 66), (45, 46), (80, 80)) if nightly else ((16, 16), (45, 46))
    backends = (None, 'aot_eager') if nightly else (None,)
    return itertools.product(dtypes, LAYOUTS, sizes, NEEDED, backends)


def run_in_subprocess(nightly):
    """Run this file: a crash of the process fails the test and not pytest."""
    command = [sys.executable, '-X', 'faulthandler', __file__, *(['nightly'] if nightly else [])]
    paths = [str(ROOT), str(ROOT / 'tests'), str(ROOT / 'tests/models')]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
    process = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout.split()


def test_gradients_around_frozen_parts():
    assert run_in_subprocess(False) == ['56', 'norms', '13', 'networks']


@pytest.mark.nightly
def test_gradients_around_all_frozen_parts():
    assert run_in_subprocess(True) == ['504', 'norms', '216', 'networks']


def main(nightly):
    torch.set_num_threads(1)
    norms = 0
    for case in norm_cases(nightly):
        torch.compiler.reset()
        check_norm(*case)
        torch.compiler.reset()
        norms += 1
    check_recorded()
    cases = EVERYTHING if nightly else SAMPLE
    for case in cases:
        check_frozen_stages(*case)
    print(norms, 'norms', len(cases), 'networks')


if __name__ == '__main__':
    main(sys.argv[1:] == ['nightly'])
