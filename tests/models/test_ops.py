"""Which form of an operation runs, the switch to the references, and what describes both."""

import importlib.util
from contextlib import ExitStack

import pytest
import torch
from timm_peer import FAMILIES, randomise
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from mmmeta import models
from mmmeta.models import CAFormer, MetaFormer
from mmmeta.models.layers import (
    Attention,
    GroupNorm1,
    LayerNorm2d,
    Mlp,
    Pooling,
    StarReLU,
    build_activation,
)
from mmmeta.models.ops import describe, dispatch, recomputable, state, use_reference, windows
from mmmeta.utils.errors import UsageError

TINY = dict(depths=(1, 1, 2, 1), dims=(32, 32, 64, 64))
IMAGE = torch.randn(2, 3, 72, 64, generator=torch.Generator().manual_seed(0))
HALF, FLOAT, DOUBLE = torch.bfloat16, torch.float32, torch.float64
# What PyTorch says where it records.
STATES = {
    'eager': (),
    'no grad': (),
    'traced': ('torch.jit.is_tracing',),
    'compiled': ('torch.compiler.is_compiling', 'torch.compiler.is_dynamo_compiling'),
    'exported': ('torch.compiler.is_compiling', 'torch.compiler.is_exporting'),
}


def tiny(family, **arguments):
    base = 's18' if family in ('CAFormer', 'ConvFormer') else 's12'
    model = getattr(models, family)(dict(TINY, base=base), **arguments)
    randomise(model)
    return model.train()


def attention(x, window=(3, 3), backend='sdpa', head_dim=32, dtype=None):
    decision = dispatch.attention(x, dtype or x.dtype, x.shape[2:], window, backend, head_dim)
    return dispatch.choose('attention', *decision)


CHOICES = dict(
    layer_norm=lambda x: dispatch.layer_norm(),
    group_norm=dispatch.group_norm,
    scaled_square=dispatch.scaled_square,
    pooling=lambda x: dispatch.pooling(),
    attention=attention,
    recompute=dispatch.recompute,
)
SMALL, LARGE = (1, 64, 8, 8), (2, 64, 512, 512)
CPU, GPU, OLD, META = ('cpu', True), ('cuda', True), ('cuda', False), ('meta', True)


@pytest.mark.parametrize(
    ('operation', 'device', 'state', 'shape', 'dtype', 'arguments', 'expected'),
    [
        ('layer_norm', CPU, 'eager', SMALL, FLOAT, {}, 'reference'),
        ('layer_norm', GPU, 'eager', LARGE, HALF, {}, 'reference'),
        ('layer_norm', CPU, 'compiled', SMALL, FLOAT, {}, 'decomposed'),
        ('layer_norm', CPU, 'exported', SMALL, FLOAT, {}, 'reference'),
        ('group_norm', CPU, 'eager', LARGE, FLOAT, {}, 'joint'),
        ('group_norm', CPU, 'no grad', LARGE, FLOAT, {}, 'fused'),
        ('group_norm', CPU, 'traced', SMALL, FLOAT, {}, 'reference'),
        ('group_norm', CPU, 'exported', SMALL, FLOAT, {}, 'reference'),
        ('group_norm', CPU, 'compiled', SMALL, FLOAT, {}, 'joint'),
        ('group_norm', GPU, 'eager', LARGE, HALF, {}, 'kernel'),
        ('group_norm', GPU, 'eager', LARGE, DOUBLE, {}, 'fused'),
        ('group_norm', GPU, 'eager', SMALL, HALF, {}, 'fused'),
        ('group_norm', GPU, 'compiled', LARGE, HALF, {}, 'fused'),
        ('group_norm', OLD, 'eager', LARGE, HALF, {}, 'fused'),
        ('group_norm', META, 'eager', LARGE, HALF, {}, 'fused'),
        ('scaled_square', CPU, 'eager', SMALL, FLOAT, {}, 'function'),
        ('scaled_square', CPU, 'compiled', SMALL, FLOAT, {}, 'reference'),
        ('scaled_square', CPU, 'traced', SMALL, FLOAT, {}, 'reference'),
        ('scaled_square', GPU, 'eager', SMALL, HALF, {}, 'kernel'),
        ('scaled_square', GPU, 'no grad', SMALL, HALF, {}, 'kernel'),
        ('scaled_square', GPU, 'eager', SMALL, DOUBLE, {}, 'function'),
        ('scaled_square', GPU, 'compiled', SMALL, HALF, {}, 'reference'),
        ('scaled_square', OLD, 'eager', SMALL, HALF, {}, 'function'),
        ('pooling', GPU, 'eager', SMALL, FLOAT, {}, 'transposed'),
        ('attention', CPU, 'eager', SMALL, FLOAT, {}, 'tiles'),
        ('attention', CPU, 'compiled', SMALL, FLOAT, {}, 'reference'),
        ('attention', CPU, 'eager', SMALL, FLOAT, dict(window=None), 'global'),
        ('attention', GPU, 'eager', SMALL, FLOAT, dict(window=(8, 9)), 'global'),
        ('attention', GPU, 'eager', SMALL, FLOAT, dict(window=(7, 9)), 'kernel'),
        ('attention', GPU, 'eager', SMALL, FLOAT, dict(backend='natten'), 'natten'),
        ('attention', GPU, 'compiled', SMALL, HALF, {}, 'kernel'),
        ('attention', GPU, 'exported', SMALL, HALF, {}, 'reference'),
        ('attention', GPU, 'traced', SMALL, HALF, {}, 'reference'),
        ('attention', GPU, 'eager', SMALL, FLOAT, dict(head_dim=128), 'tiles'),
        ('attention', GPU, 'eager', SMALL, FLOAT, dict(head_dim=128, dtype=HALF), 'kernel'),
        ('attention', GPU, 'eager', SMALL, DOUBLE, {}, 'tiles'),
        ('attention', OLD, 'eager', SMALL, HALF, {}, 'tiles'),
        ('attention', OLD, 'compiled', SMALL, HALF, {}, 'reference'),
        ('recompute', CPU, 'eager', SMALL, FLOAT, {}, True),
        ('recompute', CPU, 'no grad', SMALL, FLOAT, {}, False),
        ('recompute', CPU, 'compiled', SMALL, FLOAT, {}, False),
        ('recompute', GPU, 'eager', SMALL, HALF, {}, False),
        ('recompute', GPU, 'eager', LARGE, HALF, {}, True),
        ('recompute', META, 'eager', LARGE, HALF, {}, True),
        ('recompute', GPU, 'traced', LARGE, HALF, {}, False),
    ],
)
def test_what_decides(operation, device, state, shape, dtype, arguments, expected, monkeypatch):
    device, compiles = device
    for name in STATES[state]:
        monkeypatch.setattr(name, lambda: True)
    # Stand-ins for tensors of a GPU, which is not there, pass for such tensors.
    monkeypatch.setattr(dispatch, 'Tensor', FakeTensor)
    monkeypatch.setattr(dispatch, '_compiles_for', lambda device: compiles)
    monkeypatch.setattr(dispatch, '_compiles_for_current', lambda: compiles)
    decided = []
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        stack.enter_context(torch.set_grad_enabled(state != 'no grad'))
        stack.enter_context(dispatch.logging_to(lambda *decision: decided.append(decision)))
        x = torch.empty(shape, dtype=dtype, device=device, requires_grad=True)
        assert CHOICES[operation](x, **arguments) == expected
        with use_reference():
            switched = CHOICES[operation](x, **arguments)
    assert switched == (
        expected if expected == 'global' else False if operation == 'recompute' else 'reference'
    )
    (name, form, reason), (_, _, reason_of_reference) = decided
    assert name == operation
    assert form == {True: 'recomputed', False: 'kept'}.get(expected, expected)
    assert reason
    assert form == 'global' or reason_of_reference == dispatch.SWITCHED


def test_a_stand_in_has_no_kernel(monkeypatch):
    monkeypatch.setattr(dispatch, '_compiles_for', lambda device: True)
    with FakeTensorMode():
        x = torch.empty(3, device='cuda')
        assert 'stand-in' in dispatch.kernel_obstacle(x)
        monkeypatch.setattr(dispatch, 'Tensor', FakeTensor)
        assert dispatch.kernel_obstacle(x) == ''
    found = []
    torch.vmap(lambda y: found.append(dispatch.kernel_obstacle(x)) or y)(torch.ones(2))
    assert 'torch.func' in found[0]


def outputs_and_gradients(model):
    model.zero_grad()
    outs = model(IMAGE)
    sum(out.square().mean() for out in outs).backward()
    return [*outs, *(p.grad for p in model.parameters() if p.requires_grad)]


def functions_of_ours(outs):
    """Names of the autograd functions that outputs were computed by and PyTorch does not have."""
    nodes, names = [out.grad_fn for out in outs], set()
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        names.add(node.name())
        following = {inner for inner, _ in node.next_functions if inner is not None} - seen
        seen |= following
        nodes.extend(following)
    return {name.removesuffix('Backward') for name in names if name.startswith('_')}


STAR = {'_ScaledSquareReLU', '_RecomputingMap'}
FUNCTIONS = dict(
    PoolFormer={'_JointGradients', '_PoolingDifference', '_RecomputingMap'},
    PoolFormerV2={'_JointGradients', '_PoolingDifference', *STAR},
    IdentityFormer={'_JointGradients', *STAR},
    RandFormer={'_JointGradients', *STAR},
    ConvFormer=STAR,
    CAFormer={'_WindowedAttention', *STAR},
)


@pytest.mark.parametrize('family', sorted(FAMILIES.values()))
def test_references_compute_the_same(family):
    model = tiny(family, window=3) if family == 'CAFormer' else tiny(family)
    expected = outputs_and_gradients(model)
    assert functions_of_ours(model(IMAGE)) == FUNCTIONS[family]
    with use_reference():
        found = outputs_and_gradients(model)
        assert not functions_of_ours(model(IMAGE))
    # Some gradients are zero but for rounding, such as that of a bias in front of a pooling mixer.
    smallest = max(tensor.abs().max() for tensor in expected) / 100
    for tensor, other in zip(found, expected, strict=True):
        assert (tensor - other).abs().max() <= 1e-4 * max(other.abs().max(), smallest)


def test_references_of_dilated_pooling_and_natten(monkeypatch):
    pooling = Pooling(3, pool_size=5, dilation=2)
    x = torch.randn(2, 3, 9, 8, dtype=DOUBLE, requires_grad=True)
    layer, other = Attention(32, window=3), Attention(32, window=3)
    other.load_state_dict(layer.state_dict())
    other.backend = 'natten'  # which runs on no CPU
    map = torch.randn(1, 32, 9, 8)
    out = pooling(x)
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, x, grad)
    with use_reference():
        torch.testing.assert_close(pooling(x), out)
        torch.testing.assert_close(torch.autograd.grad(pooling(x), x, grad)[0], expected)
        found = other(map)
    torch.testing.assert_close(found, layer(map))


@pytest.mark.parametrize(('value', 'switched'), [('', False), ('reference', True), ('Reference', None)])
def test_the_switch_in_the_environment(value, switched, monkeypatch):
    monkeypatch.setenv('MMMETA_OPS', value)
    spec = importlib.util.spec_from_file_location('mmmeta.models.ops.fresh', dispatch.__file__)
    fresh = importlib.util.module_from_spec(spec)
    if switched is None:
        with pytest.raises(UsageError, match="MMMETA_OPS='Reference' in the environment: give reference, or"):
            spec.loader.exec_module(fresh)
        return
    spec.loader.exec_module(fresh)
    assert fresh.pooling() == ('reference' if switched else 'transposed')
    with fresh.use_reference(False):
        assert fresh.pooling() == 'transposed'
    assert fresh.pooling() == ('reference' if switched else 'transposed')


def test_describe(capsys):
    mixers = ('pooling', 'sep_conv', 'attention', dict(type='random_mixing', num_tokens=4))
    norms = ('GN1', 'LN', 'LN', 'BN')
    model = MetaFormer(dict(TINY, token_mixers=mixers, norm=norms), window=(None, None, 3, None)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    decisions = describe(model, IMAGE)
    printed = capsys.readouterr().out.splitlines()
    leaves = [name for name, module in model.named_modules() if not list(module.children())]
    assert {decision.module for decision in decisions} == {*leaves, 'stages.2.blocks.0.token_mixer'} | {
        'stages.2.blocks.1.token_mixer'
    }
    assert all(decision.reason for decision in decisions)
    assert len(printed) == len(decisions) == len(set(decisions))
    forms = {(decision.module, decision.operation): decision.form for decision in decisions}
    for (module, operation), form in {
        ('stages.0.blocks.0.norm1', 'group_norm'): 'joint',
        ('stages.0.blocks.0.token_mixer', 'pooling'): 'transposed',
        ('stages.1.blocks.0.token_mixer.pwconv1', '-'): 'Linear',
        ('stages.1.blocks.0.token_mixer.act', 'scaled_square'): 'function',
        ('stages.1.blocks.0.token_mixer.act', 'recompute'): 'recomputed',
        ('stages.1.blocks.0.token_mixer.dwconv', '-'): 'Conv2d',
        ('stages.2.blocks.0.token_mixer', 'attention'): 'tiles',
        ('stages.3.blocks.0.norm1', '-'): 'BatchNorm2d',
    }.items():
        assert forms[module, operation] == form
    assert any(
        line.split()[:3] == ['stages.2.blocks.0.token_mixer', 'attention', 'tiles'] for line in printed
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with use_reference():
        assert {decision.reason for decision in describe(model, IMAGE) if decision.form == 'reference'} == {
            dispatch.SWITCHED
        }


def test_one_graph_for_several_sizes_where_there_is_no_cpu():
    """Sizes are symbolic from the second one on, and nothing may ask how many bytes that is."""
    parts = (
        LayerNorm2d(4),
        Mlp(4),
        StarReLU(),
        GroupNorm1(4),
        nn.Conv2d(4, 4, 3),
        build_activation('GELU'),
    )
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(nn.Sequential(*parts).to('meta'), fullgraph=True, backend=counter)
    for size in ((6, 9), (9, 6), (12, 15)):
        out = compiled(torch.empty(2, 4, *size, device='meta'))
        assert out.shape == (2, 4, size[0] - 2, size[1] - 2)
        out.sum().backward()
    assert counter.frame_count == 2
    torch.compiler.reset()


def test_nothing_is_assumed_of_a_symbolic_size():
    def run(x):
        return recomputable(x * 2, torch.mul, x, 2)

    x = torch.empty(3, 4, device='meta', requires_grad=True)
    graph = make_fx(run, tracing_mode='symbolic')(x)
    assert not graph.shape_env.guards


def test_private_parts_are_there_and_can_be_missed(monkeypatch):
    assert state._are_transforms_active is not None
    assert state._HAS_PLAIN_APPLY
    model = tiny('PoolFormer')
    expected = outputs_and_gradients(model)
    monkeypatch.setattr(state, '_are_transforms_active', None)
    x = torch.randn(2, 3)
    assert torch.equal(torch.func.vmap(torch.func.grad(lambda x: StarReLU()(x).sum()))(x), 2 * x.relu())
    for tensor, other in zip(outputs_and_gradients(model), expected, strict=True):
        assert torch.equal(tensor, other)
    monkeypatch.setattr(state, '_are_transforms_active', lambda: False)
    monkeypatch.setattr(state, '_HAS_PLAIN_APPLY', False)
    for tensor, other in zip(outputs_and_gradients(model), expected, strict=True):
        assert torch.equal(tensor, other)


@pytest.mark.parametrize('first', [StarReLU, lambda: GroupNorm1(4), lambda: LayerNorm2d(4)])
def test_second_derivatives_with_kernels(first, monkeypatch):
    """What is recomputed for a graph of the gradients has a graph itself."""
    pytest.importorskip('triton', reason='the kernels are written in Triton')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    network = nn.Sequential(first(), Mlp(4)).to(device)
    randomise(network)
    x = torch.randn(2, 4, 3, 5, device=device)

    def second():
        (gradient,) = torch.autograd.grad(network(x).sin().sum(), network[1].fc1.weight, create_graph=True)
        # Of the first layer, through what the second one read.
        return torch.autograd.grad((gradient * weight).sum(), network[0].parameters(), allow_unused=True)

    weight = torch.randn_like(network[1].fc1.weight)
    with use_reference():
        expected = second()
    monkeypatch.setattr(dispatch, 'kernel_obstacle', lambda x, dtype=None: '')
    monkeypatch.setattr(dispatch, 'MIN_ELEMENTS', 0)
    with dispatch.keeping_below(0):
        for found, other in zip(second(), expected, strict=True):
            torch.testing.assert_close(found, other, rtol=1e-4, atol=1e-5)


class OwnForward(Attention):
    def forward(self, x):
        return super().forward(x)


@pytest.mark.parametrize(
    ('kind', 'plans'), [(Attention, 1), (type('Plain', (Attention,), {}), 1), (OwnForward, 2)]
)
def test_windows_of_subclasses_are_planned_where_they_are_used(kind, plans, monkeypatch):
    model = CAFormer(dict(TINY, base='s18'), window=(None, None, 3, None)).eval()
    for block in model.stages[2].blocks:
        block.token_mixer.__class__ = kind
    planned, plan_windows = [], windows.plan_windows
    monkeypatch.setattr(
        windows, 'plan_windows', lambda *args, **kwargs: planned.append(args) or plan_windows(*args, **kwargs)
    )
    model(IMAGE)
    assert len(planned) == plans


def test_a_pruned_block_may_be_an_identity():
    model = tiny('CAFormer', window=3)
    model.stages[2].blocks[0] = nn.Identity()
    assert model(IMAGE)[2].shape == (2, 64, 5, 4)
