"""The kernels for GPUs compute what the operations define, in Triton's interpreter where there is no GPU."""

import pytest
import torch
import torch.nn.functional as F
from test_windows import RULES, brute_force
from timm_peer import randomise

from mmmeta import models
from mmmeta.models.layers import activations, kernels, norms, windows
from mmmeta.models.layers.activations import scaled_square_relu
from mmmeta.models.layers.kernels import has_kernels

pytest.importorskip('triton', reason='the kernels are written in Triton')

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
TINY = dict(depths=(1, 1, 1, 1), dims=(16, 32, 32, 64))


@pytest.fixture
def everywhere(monkeypatch):
    """Choose the kernels on every device and for maps of every size."""
    for module in (activations, norms, windows):
        monkeypatch.setattr(module, 'has_kernels', lambda x: x.dtype in kernels.DTYPES)
    monkeypatch.setattr(norms, 'MIN_ELEMENTS', 0)


@pytest.mark.parametrize(('mode', 'border'), RULES)
@pytest.mark.parametrize(
    ('size', 'window'), [((1, 1), (13, 13)), ((2, 19), (7, 7)), ((9, 17), (6, 4)), ((16, 21), (13, 5))]
)
def test_windows(size, window, mode, border):
    from mmmeta.models.layers.kernels.windows import attend_in_windows

    head_dim, batch = 12, 2  # no power of two: lanes are left over
    rows = batch * size[0] * size[1]
    qkv = torch.randn(rows, 3 * 2 * head_dim, device=DEVICE, requires_grad=True)
    exact = qkv.detach().cpu().double().requires_grad_()
    out = attend_in_windows(qkv, size, window, mode, border, head_dim)
    expected = brute_force(exact, size, window, mode, border, head_dim, batch)
    grad = torch.randn(out.shape)
    out.backward(grad.to(DEVICE))
    expected.backward(grad.double())
    torch.testing.assert_close(out.cpu().double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(qkv.grad.cpu().double(), exact.grad, rtol=0, atol=1e-5)


def test_a_masked_key_does_not_matter_however_large_it_is():
    from mmmeta.models.layers.kernels.windows import attend_in_windows

    qkv = torch.randn(9 * 17, 3 * 16, device=DEVICE)
    rule = (9, 17), (3, 3), 'slide', 'shift', 16
    before = attend_in_windows(qkv, *rule)
    qkv[-1, 16:] = 1e6  # in the tile of keys of most queries
    changed = (attend_in_windows(qkv, *rule) != before).any(1).view(9, 17)
    assert changed[-3:, -3:].any() and not changed[:-3].any() and not changed[:, :-3].any()


@pytest.mark.parametrize('size', [1, 5000])
@pytest.mark.parametrize('constant', [True, False])
def test_scaled_square_relu(size, constant, everywhere):
    x = torch.randn(size, device=DEVICE, requires_grad=True)
    scale, bias = (torch.full((1,), value, device=DEVICE, requires_grad=True) for value in (0.9, -0.4))
    grad = torch.randn(size, device=DEVICE)
    y = scaled_square_relu(x, *((0.9, -0.4) if constant else (scale, bias)))
    y.backward(grad)
    found = [tensor.grad for tensor in ((x,) if constant else (x, scale, bias))]
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, scale, bias)]
    expected = exact[1] * exact[0].relu() ** 2 + exact[2]
    expected.backward(grad.double())
    torch.testing.assert_close(y.double(), expected, rtol=1e-6, atol=1e-6)
    for gradient, tensor in zip(found, exact, strict=False):
        torch.testing.assert_close(gradient.double(), tensor.grad, rtol=1e-5, atol=1e-4)


def test_scaled_square_relu_of_odd_layouts_and_values(everywhere):
    x = torch.randn(2, 6, 5, 3, device=DEVICE)
    for given in (x, x.to(memory_format=torch.channels_last), x[:, ::2], x.transpose(1, 3)):
        assert torch.equal(scaled_square_relu(given, 0.5, 1.0), given.relu() * 0.5 * given.relu() + 1)
    assert scaled_square_relu(torch.tensor([float('nan'), -1.0, 2.0], device=DEVICE)).isnan().tolist() == [
        True,
        False,
        False,
    ]
    assert scaled_square_relu(x[:0]).shape == (0, 6, 5, 3)


@pytest.mark.parametrize('shape', [(2, 5, 3, 4), (1, 64, 17, 19), (3, 40, 30, 31)])
@pytest.mark.parametrize('bias', [True, False])
def test_group_norm(shape, bias, everywhere, monkeypatch):
    from mmmeta.models.layers.kernels import norms as norm_kernels

    monkeypatch.setattr(norm_kernels, 'MAX_CHUNKS', 3)  # several blocks for each program
    norm = norms.GroupNorm1(shape[1], bias=bias).to(DEVICE)
    randomise(norm)
    # Far from zero: sums of squares would cancel.
    x = (torch.randn(shape, device=DEVICE) + 100).requires_grad_()
    grad = torch.randn(shape, device=DEVICE)
    y = norm(x)
    y.backward(grad)
    exact = [None if t is None else t.detach().double().requires_grad_() for t in (x, norm.weight, norm.bias)]
    expected = F.group_norm(exact[0], 1, *exact[1:], norm.eps)
    expected.backward(grad.double())
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-4)
    for tensor, double in zip((x, norm.weight, norm.bias), exact, strict=True):
        if tensor is not None:
            torch.testing.assert_close(tensor.grad.double(), double.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ('family', 'arguments'),
    [
        ('PoolFormer', {}),
        ('PoolFormerV2', dict(with_cp=True)),
        ('CAFormer', dict(window=3)),
        ('ConvFormer', {}),
    ],
)
def test_networks(family, arguments, everywhere, monkeypatch):
    """Recomputed by kernels, too, as without them."""
    model = getattr(models, family)(
        dict(TINY, base='s12' if family.startswith('Pool') else 's18'), **arguments
    )
    randomise(model)
    model.to(DEVICE).train()
    image = torch.randn(2, 3, 48, 64, device=DEVICE)

    def run():
        model.zero_grad()
        outs = model(image)
        sum(out.square().mean() for out in outs).backward()
        return [*outs, *(p.grad for p in model.parameters() if p.requires_grad)]

    found = run()
    monkeypatch.undo()
    for tensor, expected in zip(found, run(), strict=True):
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-4)


def test_where_there_are_kernels():
    from torch._subclasses.fake_tensor import FakeTensorMode

    assert not has_kernels(torch.ones(1))
    with FakeTensorMode():  # without memory
        assert not has_kernels(torch.empty(1, device='cuda'))
