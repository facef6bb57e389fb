"""Windowed attention against a brute-force definition, and everything that it has to work under."""

import re
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch
from timm_peer import randomise
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmmeta.models import CAFormer, ConvFormer, MetaFormer
from mmmeta.models.layers import Attention
from mmmeta.models.ops import windows
from mmmeta.models.ops.windows import plan_windows, windowed_attention
from mmmeta.utils.errors import UsageError

SIZES = [(1, 1), (2, 19), (7, 7), (8, 8), (9, 17), (13, 13), (14, 12), (16, 21), (20, 27), (25, 42)]
WINDOWS = [(13, 13), (7, 7), (1, 1), (6, 4), (13, 5)]
RULES = [('slide', 'shift'), ('slide', 'truncate'), ('block', 'shift')]
TINY = dict(depths=(1, 1, 2, 1), dims=(8, 16, 32, 64))


def sees(i: int, j: int, length: int, window: int, mode: str, border: str) -> bool:
    """Whether query i sees key j along an axis, straight from the definition."""
    left, right = window // 2, window - 1 - window // 2
    if mode == 'block':
        return i // window == j // window
    if border == 'truncate':
        return i - left <= j <= i + right
    start = min(max(i - left, 0), max(length - window, 0))
    return start <= j < start + window


def brute_force(qkv, size, window, mode, border, head_dim, batch):
    """Explicit softmax over the whole map with a mask made by loops."""
    axes = [
        torch.tensor([[sees(i, j, n, k, mode, border) for j in range(n)] for i in range(n)])
        for n, k in zip(size, window, strict=True)
    ]
    mask = axes[0][:, None, :, None] & axes[1][None, :, None, :]
    tokens = size[0] * size[1]
    mask = mask.reshape(tokens, tokens)
    q, k, v = qkv.view(batch, tokens, 3, -1, head_dim).permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(-1, -2) / head_dim**0.5).masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch * tokens, -1)


def random_qkv(size, batch=1, dim=8, dtype=torch.float64):
    return torch.randn(batch * size[0] * size[1], 3 * dim, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize(('mode', 'border'), RULES)
@pytest.mark.parametrize('window', WINDOWS)
def test_outputs_and_gradients_are_those_of_brute_force(window, mode, border):
    for size in SIZES:
        qkv = random_qkv(size, batch=2)
        plan = plan_windows(size, window, mode, border, batch=2)
        out = windowed_attention(qkv, plan, head_dim=4)
        expected = brute_force(qkv, size, window, mode, border, 4, batch=2)
        assert (out - expected).abs().max() < 1e-12
        weight = torch.randn_like(out)
        (gradient,) = torch.autograd.grad((out * weight).sum(), qkv)
        (reference,) = torch.autograd.grad((expected * weight).sum(), qkv)
        assert (gradient - reference).abs().max() < 1e-12


@pytest.mark.parametrize(('mode', 'border'), RULES)
def test_float32_on_a_large_map(mode, border):
    size = (84, 50)
    qkv = random_qkv(size, dtype=torch.float32)
    out = windowed_attention(qkv, plan_windows(size, (13, 13), mode, border), head_dim=8)
    expected = brute_force(qkv, size, (13, 13), mode, border, 8, batch=1)
    assert (out - expected).abs().max() <= 1e-5
    (gradient,) = torch.autograd.grad(out.square().sum(), qkv)
    (reference,) = torch.autograd.grad(expected.square().sum(), qkv)
    assert (gradient - reference).abs().max() <= 1e-5


def test_shifted_windows_are_the_valid_windows_repeated_at_the_border():
    # A second definition: cut out all windows that fit, and let queries at the border take the nearest.
    (height, width), (rows, columns) = size, window = (20, 27), (13, 5)
    qkv = random_qkv(size).detach()
    q, k, v = qkv.view(height, width, 3, 1, 8).unbind(2)
    valid = [t.unfold(0, rows, 1).unfold(1, columns, 1).flatten(-2) for t in (k, v)]  # (y, x, 1, 8, keys)
    y = (torch.arange(height) - rows // 2).clamp(0, height - rows)
    x = (torch.arange(width) - columns // 2).clamp(0, width - columns)
    keys, values = (t[y][:, x] for t in valid)
    weights = (q[..., None, :] @ keys / 8**0.5).softmax(-1)
    expected = (weights @ values.transpose(-1, -2)).reshape(height * width, 8)
    out = windowed_attention(qkv, plan_windows(size, window), head_dim=8)
    assert (out - expected).abs().max() < 1e-12


@pytest.mark.parametrize(
    'query', [(0, 0), (0, 26), (19, 0), (19, 26), (0, 12), (10, 26), (7, 7), (8, 8), (15, 16)]
)
def test_a_query_has_exactly_its_neighbours(query):
    size = (20, 27)
    qkv = random_qkv(size)
    out = windowed_attention(qkv, plan_windows(size, (7, 5)), head_dim=8)
    (gradient,) = torch.autograd.grad(out[query[0] * 27 + query[1]].sum(), qkv)
    seen = (gradient[:, 16:].abs().sum(1) > 0).view(size)
    top, left = min(max(query[0] - 3, 0), 13), min(max(query[1] - 2, 0), 22)
    expected = torch.zeros(size, dtype=torch.bool)
    expected[top : top + 7, left : left + 5] = True
    assert torch.equal(seen, expected)


def test_gradcheck():
    plan = plan_windows((9, 6), (3, 5), batch=2)
    qkv = random_qkv((9, 6), batch=2, dim=2)
    assert torch.autograd.gradcheck(lambda qkv: windowed_attention(qkv, plan, 2), (qkv,))


@pytest.mark.parametrize('tile', [1, 3, 5, 8, 14, 40])
def test_the_tile_size_changes_nothing(tile):
    for border in ('shift', 'truncate'):
        qkv = random_qkv((16, 21))
        out = windowed_attention(qkv, plan_windows((16, 21), (7, 5), border=border, tile=tile), 8)
        expected = brute_force(qkv, (16, 21), (7, 5), 'slide', border, 8, batch=1)
        assert (out - expected).abs().max() < 1e-12


GROUP_SIZE = windows._group_size
GROUP_SIZES = {
    'one': lambda tiles, device: 1,
    'CPU': GROUP_SIZE,
    'GPU': lambda tiles, device: GROUP_SIZE(tiles, torch.device('cuda')),
    'all': lambda tiles, device: tiles,
}


def test_groups_of_tiles_of_any_size_are_the_same(monkeypatch):
    qkv, plan = random_qkv((25, 42), batch=2), plan_windows((25, 42), (13, 13), batch=2)
    results = []
    for size in GROUP_SIZES.values():
        monkeypatch.setattr(windows, '_group_size', size)
        out = windowed_attention(qkv, plan, 8)
        results.append((out, *torch.autograd.grad(out.square().sum(), qkv)))
    whole = windows._attend(*windows._gather(qkv, plan.queries, plan.keys), plan.mask, 8)[plan.places]
    expected = (whole, *torch.autograd.grad(whole.square().sum(), qkv))
    for result in results:
        assert all((a - b).abs().max() < 1e-12 for a, b in zip(result, expected, strict=True))


def test_groups_of_a_gpu_are_few_and_bounded():
    for tiles in (1, 5, 77, 154, 10_000):
        size = windows._group_size(tiles, torch.device('cuda'))
        assert -(-tiles // size) <= windows.GROUPS


def test_a_token_far_away_changes_nothing_not_even_a_bit():
    qkv, plan = random_qkv((25, 42), dtype=torch.float32).detach(), plan_windows((25, 42), (13, 13))
    out = windowed_attention(qkv, plan, 8)
    changed = qkv.clone()
    changed[20 * 42 + 30] = 1e30
    difference = (windowed_attention(changed, plan, 8) != out).any(1).view(25, 42)
    # Queries whose window holds (20, 30): the last rows share one, (12..24), and so on.
    expected = torch.tensor(
        [
            [
                sees(i, 20, 25, 13, 'slide', 'shift') and sees(j, 30, 42, 13, 'slide', 'shift')
                for j in range(42)
            ]
            for i in range(25)
        ]
    )
    assert torch.equal(difference, expected)


def test_only_the_fused_kernel_is_needed():
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        qkv, plan = random_qkv((25, 42), dtype=torch.float32), plan_windows((25, 42), (13, 13))
        windowed_attention(qkv, plan, 8).sum().backward()


class Memory(TorchDispatchMode):
    """Bytes of the storages that operations make: how many there are, and how many there have been."""

    def __init__(self, *given):
        super().__init__()
        self.live = {tensor.untyped_storage()._cdata: None for tensor in given}
        self.now = self.height = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.live:
                    self.live[storage._cdata] = weakref.finalize(
                        storage, self._freed, storage._cdata, storage.nbytes()
                    )
                    self.now += storage.nbytes()
                    self.height = max(self.height, self.now)
        return results

    def _freed(self, key, size):
        del self.live[key]
        self.now -= size


@pytest.mark.parametrize('group', ['CPU', 'GPU'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_memory(monkeypatch, group, dtype):
    """The input is kept; while it runs at most twice the bytes of queries, keys and values are taken."""
    monkeypatch.setattr(windows, '_group_size', GROUP_SIZES[group])
    qkv = random_qkv((50, 84), dim=64, dtype=dtype)
    plan = plan_windows((50, 84), (13, 13))
    with Memory(qkv, *plan) as memory:
        out = windowed_attention(qkv, plan, 32)
        assert memory.now == out.nbytes == qkv.nbytes // 3  # besides qkv itself, and the plan of all layers
        assert memory.height <= 2 * qkv.nbytes
        grad = torch.ones_like(out)
        before = memory.height = memory.now
        (grad_qkv,) = torch.autograd.grad(out, qkv, grad)
        assert memory.height - before <= 2 * qkv.nbytes
    assert grad_qkv.shape == qkv.shape


@pytest.mark.parametrize(('height', 'width'), [(1, 1), (2, 19), (7, 13), (25, 42), (13, 14)])
def test_layers_with_and_without_a_window_share_weights(height, width):
    plain, windowed = Attention(64), Attention(64, window=13)
    randomise(plain)
    windowed.load_state_dict(plain.state_dict())
    x = torch.randn(2, 64, height, width).contiguous(memory_format=torch.channels_last)
    difference = (windowed(x) - plain(x)).abs().max()
    if height <= 13 and width <= 13:
        assert difference == 0
    else:
        assert (difference < 1e-5) == (height <= 13 and width <= 13)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    layer = Attention(64, window=7)
    randomise(layer)
    x = torch.randn(2, 64, 20, 27, requires_grad=True)
    expected = layer(x)
    (reference,) = torch.autograd.grad(expected.square().sum(), x)
    with torch.autocast('cpu', dtype):
        out = layer(x)
    assert out.dtype == dtype
    (gradient,) = torch.autograd.grad(out.float().square().sum(), x)
    tolerance = 0.02 if dtype == torch.bfloat16 else 0.003
    assert (out - expected).abs().max() < tolerance * expected.abs().max()
    assert (gradient - reference).abs().max() < tolerance * reference.abs().max()


def test_compiled():
    layer = Attention(32, window=5)
    randomise(layer)
    x = torch.randn(2, 32, 13, 21)
    # Lowered to single operations; Inductor takes minutes for the index arithmetic on a CPU.
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager_decomp_partition')
    with torch.no_grad():
        assert (compiled(x) - layer(x)).abs().max() < 1e-5
    torch.compiler.reset()


def test_one_graph_for_all_sizes():
    # Captured and differentiated as a compiler sees it, for sizes that are not known.
    layer = Attention(32, window=5)
    randomise(layer)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend='aot_eager')
    for size in ((13, 21), (20, 9), (11, 30)):
        x = torch.randn(2, 32, *size, requires_grad=True)
        (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
        (found,) = torch.autograd.grad(compiled(x).square().sum(), x)
        assert (found - expected).abs().max() < 1e-5
    torch.compiler.reset()


class TestNatten:
    """NATTEN runs on GPUs only; what stands for it here computes its definition."""

    @pytest.fixture
    def natten(self, monkeypatch):
        calls = []

        def na2d(query, key, value, kernel_size):
            batch, *size, _, head_dim = query.shape
            assert all(k <= n for k, n in zip(kernel_size, size, strict=True))
            calls.append(kernel_size)
            qkv = torch.stack([query, key, value], 3).reshape(batch * size[0] * size[1], -1)
            out = brute_force(qkv, size, kernel_size, 'slide', 'shift', head_dim, batch)
            return out.view(query.shape)

        module = SimpleNamespace(__version__='0.21.7', HAS_LIBNATTEN=True, na2d=na2d, calls=calls)
        monkeypatch.setitem(sys.modules, 'natten', module)
        return module

    @pytest.mark.parametrize('size', [(20, 27), (9, 27)])
    def test_is_asked_for_what_our_own_windows_are(self, natten, size, monkeypatch):
        layer, other = Attention(64, window=13, backend='natten'), Attention(64, window=13)
        randomise(layer)
        other.load_state_dict(layer.state_dict())
        x = torch.randn(2, 64, *size)
        with pytest.raises(UsageError, match="backend='natten' runs on CUDA, not on cpu: leave it out there"):
            layer(x)
        monkeypatch.setattr(windows, 'NATTEN_DEVICE', 'cpu')
        assert (layer(x) - other(x)).abs().max() < 1e-5
        assert natten.calls == [(min(13, size[0]), 13)]

    def test_cannot_be_used(self, natten, monkeypatch):
        def build(**arguments):
            return CAFormer('s18', backend='natten', **arguments)

        with pytest.raises(UsageError, match='NATTEN has shifted sliding windows of 3 and more'):
            build(window=13, border='truncate')
        with pytest.raises(UsageError, match='NATTEN has shifted sliding windows of 3 and more'):
            build(window=12, window_mode='block')
        natten.HAS_LIBNATTEN = False
        with pytest.raises(UsageError, match=r'NATTEN 0\.21\.7 is installed without kernels for torch 2'):
            build(window=13)
        natten.__version__ = '0.20.1'
        with pytest.raises(UsageError, match=r'needs NATTEN 0\.21\.7 or newer, .* and this is 0\.20\.1'):
            build(window=13)
        monkeypatch.setitem(sys.modules, 'natten', None)
        with pytest.raises(UsageError, match="backend='natten' needs NATTEN, which is not installed"):
            build(window=13)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(window=12), 'window=12: a sliding window has a token in its middle, give odd numbers'),
        (dict(window=0), 'window=0: give a positive integer, or two for height and width'),
        (dict(window=-3), 'window=-3: give a positive integer, or two for height and width'),
        (dict(window='13'), "window='13': give a positive integer, or two for height and width"),
        (dict(window=13.0), 'window=13.0: give a positive integer, or two for height and width'),
        (dict(window=float('nan')), 'window=nan: give a positive integer, or two for height and width'),
        (dict(window=True), 'window=True: give a positive integer, or two for height and width'),
        (
            dict(window=(None, None, (13, 12), 13)),
            'window=(13, 12): a sliding window has a token in its middle',
        ),
        (dict(window=(None, None, (3, 3, 3), 13)), 'window=(3, 3, 3): give a positive integer, or two'),
        (dict(window=(13, 13)), 'window=(13, 13) has 2 entries for 4 stages: give one for each stage'),
        (dict(window=(7, None, 7, 7)), "stage 0 has no attention, its token mixer is 'sep_conv'; give None"),
        (dict(window=13, border='wrap'), "border='wrap': choose one of shift, truncate"),
        (dict(window=13, window_mode='grid'), "window_mode='grid': choose one of slide, block"),
        (dict(window=13, backend='flex'), "backend='flex': choose one of sdpa, natten"),
        (dict(window=13, window_mode='block', border='wrap'), "border='wrap': choose one of shift, truncate"),
    ],
)
def test_a_window_that_is_none(arguments, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        CAFormer('s18', **arguments)


def test_a_window_without_attention():
    with pytest.raises(UsageError, match='window=13 without an attention mixer in any stage: leave it out'):
        ConvFormer('s18', window=13)


def test_an_attention_mixer_may_have_its_own_window():
    arch = dict(TINY, token_mixers=('identity', 'identity', dict(type='attention', window=3), 'attention'))
    model = MetaFormer(arch)
    assert [stage.blocks[0].token_mixer.window for stage in model.stages[2:]] == [(3, 3), None]
    assert 'head_dim=32, window=3x3, shift, sdpa' in repr(model)


@pytest.fixture(scope='module')
def model():
    model = CAFormer(arch=dict(base='s18', **TINY), window=5)
    randomise(model)
    return model


def gradients(model, image):
    model.zero_grad()
    outs = model(image)
    sum(out.square().mean() for out in outs).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


class TestBackbone:
    image = torch.randn(2, 3, 200, 328)

    def test_every_mode_has_the_same_parameters(self, model):
        names = model.state_dict().keys()
        for arguments in (
            {},
            dict(window=7, border='truncate'),
            dict(window=4, window_mode='block'),
            dict(window=(None, None, (5, 7), None)),
        ):
            other = CAFormer(arch=dict(base='s18', **TINY), **arguments)
            assert other.state_dict().keys() == names
            other.load_state_dict(model.state_dict())
            outs, expected = other(self.image), model(self.image)
            assert torch.equal(outs[1], expected[1])
            assert not torch.allclose(outs[2], expected[2], rtol=1e-3)

    def test_one_window_for_all_is_a_window_for_each(self, model):
        other = CAFormer(arch=dict(base='s18', **TINY), window=(None, None, 5, (5, 5)))
        other.load_state_dict(model.state_dict())
        for out, expected in zip(other(self.image), model(self.image), strict=True):
            assert torch.equal(out, expected)

    def test_indices_and_mask_are_made_once_for_a_stage(self, model, monkeypatch):
        sizes = []
        monkeypatch.setattr(
            windows,
            'plan_windows',
            lambda size, *args, **kw: sizes.append(tuple(size)) or plan_windows(size, *args, **kw),
        )
        outs = model(self.image)
        assert sizes == [tuple(out.shape[2:]) for out in outs[2:]] == [(13, 21), (7, 11)]

    def test_checkpointing_changes_no_gradient(self, model):
        expected = gradients(model, self.image)
        model.with_cp = True
        try:
            found = gradients(model, self.image)
        finally:
            model.with_cp = False
        for name in expected:
            assert torch.equal(found[name], expected[name]), name

    def test_inference_mode(self, model):
        expected = [out.detach() for out in model(self.image)]
        with torch.inference_mode():
            outs = model(self.image)
        for out, reference in zip(outs, expected, strict=True):
            assert (out - reference).abs().max() < 1e-5

    def test_ddp(self, model, process_group):
        expected = gradients(model, self.image)
        found = gradients(nn.parallel.DistributedDataParallel(model), self.image)
        for name in expected:
            assert (found[f'module.{name}'] - expected[name]).abs().max() < 1e-6, name

    def test_is_captured_whole(self, model):
        compiled = torch.compile(model, fullgraph=True, dynamic=True, backend='eager')
        for size in ((200, 328), (232, 264)):
            image = torch.randn(1, 3, *size)
            for out, expected in zip(compiled(image), model(image), strict=True):
                assert (out - expected).abs().max() < 1e-5
        torch.compiler.reset()
