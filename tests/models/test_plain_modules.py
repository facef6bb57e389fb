"""A model is plain PyTorch: modules are called as modules; hooks, subclasses, copies and tracers work."""

import copy
import pickle
import warnings

import pytest
import torch
from timm_peer import FAMILIES, randomise
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torchvision.models.feature_extraction import create_feature_extractor

from mmmeta import models
from mmmeta.models import CAFormer, ConvFormer, MetaFormer
from mmmeta.models.layers import Attention, SepConv, StarReLU
from mmmeta.registry import MODELS
from mmmeta.utils.errors import UsageError

TINY = dict(depths=(1, 1, 2, 1), dims=(32, 32, 64, 64))
IMAGE = torch.randn(2, 3, 72, 64, generator=torch.Generator().manual_seed(0))


def tiny(family='CAFormer', **arguments):
    """A small member of a family, with weights that matter."""
    base = 's18' if family in ('CAFormer', 'ConvFormer') else 's12'
    model = getattr(models, family)(dict(TINY, base=base), **arguments)
    randomise(model)
    return model


def gradients(model, run=None):
    """Gradients of all parameters, by name."""
    model.zero_grad()
    sum(out.float().square().mean() for out in (model if run is None else run)(IMAGE)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def assert_same(actual, expected, tolerance=0.0):
    assert actual.keys() == expected.keys()
    # Some are zero but for rounding, such as that of a bias in front of a pooling mixer.
    smallest = max(gradient.abs().max() for gradient in expected.values()) / 100
    for name, gradient in actual.items():
        error = (gradient - expected[name]).abs().max() / max(expected[name].abs().max(), smallest)
        assert error <= tolerance, (name, error)


AUTOCASTS = [None, torch.bfloat16, torch.float16]


@pytest.mark.parametrize('dtype', AUTOCASTS)
@pytest.mark.parametrize('family', sorted(FAMILIES.values()))
def test_evaluation_computes_what_training_computes(family, dtype):
    """Without stochastic depth every value is the same to the last bit, with gradients and without."""
    model = tiny(family, window=3) if family == 'CAFormer' else tiny(family)
    outs = []
    for training, with_grad in ((True, True), (True, False), (False, True), (False, False)):
        model.train(training)
        enabled = dtype is not None
        with torch.set_grad_enabled(with_grad), torch.autocast('cpu', dtype, enabled=enabled):
            outs.append(model(IMAGE))
    for features in outs[1:]:
        for out, expected in zip(features, outs[0], strict=True):
            assert out.dtype == expected.dtype
            assert torch.equal(out, expected)


@pytest.mark.parametrize('family', sorted(FAMILIES.values()))
def test_hooks_see_each_module_once_and_whole(family):
    model = tiny(family)
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda module, args, out, name=name: seen.setdefault(name, []).append(out)
        )
    model.train()(IMAGE)
    training, seen = dict(seen), seen.clear() or seen
    with torch.no_grad():
        model.eval()(IMAGE)
    called = {name for name, module in model.named_modules() if not isinstance(module, nn.ModuleList)}
    assert training.keys() == seen.keys() == called - {'norms'}
    for name in seen:
        # Stochastic depth follows the token mixer and the MLP.
        calls = 2 if name.endswith('drop_path') else 1
        assert len(seen[name]) == len(training[name]) == calls, name
        for out, expected in zip(seen[name], training[name], strict=True):
            if isinstance(out, torch.Tensor):
                assert len(out) == len(IMAGE)
                assert torch.equal(out, expected), name
    assert seen['stages.0.blocks.0.mlp.fc1'][0].shape == (2, 18, 16, 128)


@pytest.mark.parametrize('grad', [False, True])
def test_captured_features_are_not_written_over(grad):
    model = tiny().train(grad)
    captured = []
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda m, args, out: captured.append((out, out.detach().clone())))
    with torch.set_grad_enabled(grad):
        outs = model(IMAGE)
    if grad:
        sum(out.sum() for out in outs).backward()
    assert len(captured) > 40
    assert all(torch.equal(out, copied) for out, copied in captured)


HOOKED = ['norm1', 'token_mixer', 'token_mixer.act', 'norm2', 'mlp.fc1', 'mlp.act', 'mlp']


@pytest.mark.parametrize('name', HOOKED)
def test_a_hook_that_replaces_an_output(name):
    """Outputs and gradients are those of a model in which a module does that."""
    hooked, reference = tiny('ConvFormer'), tiny('ConvFormer')
    path = f'stages.2.blocks.0.{name}'
    hooked.get_submodule(path).register_forward_hook(lambda module, args, out: out.tanh() * 2)
    parent, _, attribute = path.rpartition('.')
    inner = reference.get_submodule(path)
    setattr(reference.get_submodule(parent), attribute, _Then(inner))
    expected = {key.replace('.inner.', '.'): value for key, value in gradients(reference).items()}
    assert_same(gradients(hooked), expected, 1e-6)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(hooked(IMAGE), reference(IMAGE), strict=True))


class _Then(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args):
        return self.inner(*args).tanh() * 2


def test_a_hook_that_writes_into_an_output():
    """What was noted of how it was computed is no longer true, and not used."""
    model, reference = tiny('ConvFormer'), tiny('ConvFormer')
    model.stages[1].blocks[0].norm2.register_forward_hook(lambda module, args, out: out.mul_(2))
    reference.stages[1].blocks[0].norm2.register_forward_hook(lambda module, args, out: out * 2)
    assert_same(gradients(model), gradients(reference))


def test_backward_hooks_see_the_gradients():
    model, seen = tiny(), []
    for module in (model.stages[0].blocks[0].mlp.act, model.stages[2].blocks[0].norm1):
        module.register_full_backward_hook(lambda module, given, got: seen.append((given[0], got[0])))
    expected = gradients(tiny())
    assert_same(gradients(model), expected, 1e-6)
    assert len(seen) == 2
    assert all(part is not None for pair in seen for part in pair)


def test_subclasses_are_called():
    class Mixer(SepConv):
        def forward(self, x):
            return -super().forward(x)

    class Heads(Attention):
        def forward(self, x):  # an attention that takes no plan
            return -super().forward(x)

    class Activation(StarReLU):
        def forward(self, x):
            return -super().forward(x)

    for name, kind, window in (
        ('stages.0.blocks.0.token_mixer', Mixer, None),
        ('stages.2.blocks.1.token_mixer', Heads, 3),
        ('stages.3.blocks.0.mlp.act', Activation, None),
    ):
        model, reference = tiny(window=window), tiny(window=window)
        model.get_submodule(name).__class__ = kind
        reference.get_submodule(name).register_forward_hook(lambda module, args, out: -out)
        assert_same(gradients(model), gradients(reference), 1e-6)
        with torch.no_grad():
            outs, expected = model(IMAGE), reference(IMAGE)
        assert all(torch.equal(out, other) for out, other in zip(outs, expected, strict=True))


def test_an_activation_over_the_whole_map():
    """Softmax over positions: wrong wherever a map is computed in pieces."""
    model = tiny('ConvFormer').eval()
    mlp = model.stages[0].blocks[0].mlp
    mlp.act = nn.Softmax(dim=2)
    with torch.no_grad():
        x = torch.randn(1, 32, 96, 80)
        expected = mlp.fc2(mlp.fc1(x.permute(0, 2, 3, 1)).softmax(2)).permute(0, 3, 1, 2)
        assert torch.equal(mlp(x), expected)


def test_blocks_with_different_windows_in_one_stage():
    model, reference = tiny(window=5).eval(), tiny(window=5).eval()
    for network in (model, reference):
        network.stages[2].blocks[1].token_mixer.window = (3, 3)
    model_outs = model(torch.cat([IMAGE] * 2, 3).repeat(1, 1, 2, 1))
    mixer = reference.stages[2].blocks[1].token_mixer
    mixer.__class__ = type('Alone', (Attention,), {})  # lays out its windows itself
    reference_outs = reference(torch.cat([IMAGE] * 2, 3).repeat(1, 1, 2, 1))
    for out, expected in zip(model_outs, reference_outs, strict=True):
        assert torch.equal(out, expected)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies(copied):
    model = tiny(window=3)
    model(IMAGE)
    assert_same(gradients(copied(model)), gradients(model))


def test_a_captured_feature_is_saved_as_a_tensor(tmp_path):
    model, captured = tiny(), []
    model.stages[0].blocks[0].norm2.register_forward_hook(lambda module, args, out: captured.append(out))
    model(IMAGE)
    torch.save(captured[0], tmp_path / 'feature.pth')
    assert torch.equal(torch.load(tmp_path / 'feature.pth', weights_only=True), captured[0])


@pytest.mark.parametrize('family', sorted(FAMILIES.values()))
def test_functional_gradients(family):
    model = tiny(family, window=3) if family == 'CAFormer' else tiny(family)
    expected = gradients(model)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters):
        outs = torch.func.functional_call(model, parameters, (IMAGE,))
        return sum(out.square().mean() for out in outs)

    found = torch.func.grad(loss)(parameters)
    assert_same({name: found[name] for name in expected}, expected, 1e-4)


@pytest.mark.parametrize('family', sorted(FAMILIES.values()))
def test_a_batch_without_images(family):
    model = tiny(family, window=3) if family == 'CAFormer' else tiny(family)
    outs = model(IMAGE[:0])
    assert [out.shape for out in outs] == [(0, *out.shape[1:]) for out in model(IMAGE)]
    sum(out.sum() for out in outs).backward()
    assert all(not p.grad.any() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize('stage', [0, 2])
def test_gradients_of_each_image(stage):
    block = tiny(window=3).stages[stage].blocks[0]
    x = torch.randn(3, block.mlp.fc1.in_features, 9, 8)
    parameters = {name: p.detach() for name, p in block.named_parameters()}

    def loss(parameters, x):
        return torch.func.functional_call(block, parameters, (x[None],)).square().mean()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for i, image in enumerate(x):
        block.zero_grad()
        block(image[None]).square().mean().backward()
        alone = {name: p.grad for name, p in block.named_parameters()}
        assert_same({name: found[name][i] for name in alone}, alone, 1e-4)


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_fake_tensors(device):
    """Shapes and strides of a device that need not be there; for backward PyTorch asks for it."""
    model = tiny(window=3)
    expected = model(IMAGE)
    model = tiny(window=3)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = model.to_empty(device=device)
        outs = model(torch.empty(2, 3, 72, 64, device=device))
        if device == 'cpu':
            sum(out.sum() for out in outs).backward()
            assert all(p.grad.shape == p.shape for p in model.parameters())
    for out, real in zip(outs, expected, strict=True):
        assert (out.shape, out.stride(), out.device.type) == (real.shape, real.stride(), device)


def test_export():
    model = tiny(window=3).eval()
    program = torch.export.export(model, (IMAGE,))
    with torch.no_grad():
        for out, expected in zip(program.module()(IMAGE), model(IMAGE), strict=True):
            assert torch.allclose(out, expected, atol=1e-5)


def test_compiled_whole_in_training():
    """A stage of each kind of mixer."""
    mixers = ('pooling', 'sep_conv', 'attention', dict(type='random_mixing', num_tokens=4))
    model = MetaFormer(dict(TINY, depths=(1, 1, 1, 1), token_mixers=mixers), window=(None, None, 3, None))
    randomise(model)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    assert_same(gradients(model, compiled), gradients(model), 1e-4)


@pytest.mark.parametrize('reentrant', [False, True])
def test_a_block_checkpointed_by_its_user(reentrant):
    model = tiny(window=3, drop_path_rate=0.3).train()
    block = model.stages[2].blocks[1]
    x = torch.randn(2, 64, 20, 16)
    results = []
    for run in (block, lambda x: checkpoint(block, x, use_reentrant=reentrant)):
        torch.manual_seed(0)
        block.zero_grad()
        given = x.clone().requires_grad_()
        out = run(given)
        out.square().sum().backward()
        results.append([out, given.grad, *(p.grad.clone() for p in block.parameters())])
    for tensor, expected in zip(*results, strict=True):
        assert torch.equal(tensor, expected)


@pytest.mark.parametrize('family', sorted(FAMILIES.values()))
def test_gradients_have_the_strides_of_their_parameters(family):
    """Where they do not, DistributedDataParallel warns, and copies each in every step."""
    model = tiny(family)
    gradients(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.stride() == parameter.stride(), name


def test_no_warning_of_strides_from_several_processes(process_group):
    model = nn.parallel.DistributedDataParallel(tiny())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        for _ in range(2):
            sum(out.square().mean() for out in model(IMAGE)).backward()
    assert not [str(w.message) for w in caught if 'strides' in str(w.message)]


@pytest.mark.parametrize('family', sorted(FAMILIES.values()))
def test_linear_maps_and_convolutions_are_pytorchs(family):
    """Tools go by the exact type: what quantizes, counts, prunes or adapts layers."""
    model = tiny(family)
    matrices = {name for name, p in model.named_parameters() if p.ndim > 1 and 'random_matrix' not in name}
    layers = {name: m for name, m in model.named_modules() if type(m) in (nn.Linear, nn.Conv2d)}
    assert matrices == {f'{name}.weight' for name in layers}
    block = model.stages[0].blocks[0]
    assert isinstance(block.norm1, (nn.LayerNorm, nn.GroupNorm))
    assert MODELS.get('mmmeta.ConvFormer') is ConvFormer
    assert MODELS.get('mmmeta.CAFormer') is CAFormer


class LowRank(nn.Module):
    """An adapter (LoRA, arXiv:2106.09685) around a layer, called as that."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.layer(x) + self.up(self.down(x))


def test_adapters_around_linear_maps():
    """At first they change nothing; their gradients are those of the merged weight."""
    model = tiny(window=3)
    expected, outs = gradients(model), model(IMAGE)
    model.requires_grad_(False)
    adapted = {}
    for name, module in list(model.named_modules()):
        if name.rpartition('.')[2] in ('fc1', 'fc2', 'qkv', 'proj'):
            adapted[name] = LowRank(module)
            model.set_submodule(name, adapted[name])
    assert len(adapted) == 16
    for out, plain in zip(model(IMAGE), outs, strict=True):
        assert torch.equal(out, plain)
    gradients(model)
    for name, adapter in adapted.items():
        of_merged = expected[f'{name}.weight'] @ adapter.down.weight.T
        torch.testing.assert_close(adapter.up.weight.grad, of_merged, rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings('ignore:.*torch.ao.quantization')
def test_quantized_linear_maps():
    model = tiny().eval()
    linear = sum(type(module) is nn.Linear for module in model.modules())
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, torch.qint8)
    assert linear == 20
    assert sum(type(module) is nn.Linear for module in quantized.modules()) == 0
    with torch.no_grad():
        for out, expected in zip(quantized(IMAGE), model(IMAGE), strict=True):
            assert (out - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize('family', sorted(FAMILIES.values()))
@pytest.mark.parametrize('training', [False, True])
def test_symbolic_traces(family, training):
    """One graph for images of all sizes."""
    model = tiny(family, window=3) if family == 'CAFormer' else tiny(family)
    traced = torch.fx.symbolic_trace(model.train(training))
    for image in (IMAGE, torch.randn(1, 3, 100, 129)):
        for out, expected in zip(traced(image), model(image), strict=True):
            assert torch.equal(out, expected)
    assert_same(gradients(traced), gradients(model))
    with pytest.raises(UsageError, match='an image of 16x64 pixels is smaller than the stride 32'):
        traced(IMAGE[:, :, :16])


def test_features_by_torchvision():
    model = tiny().eval()
    name = 'stages.2.blocks.1.mlp.fc1'
    extract = create_feature_extractor(model, [name, 'stages.3'])
    found = extract(IMAGE)
    assert found[name].shape == (2, 5, 4, 256)
    torch.testing.assert_close(model.norms['3'](found['stages.3']), model(IMAGE)[3], rtol=0, atol=0)
