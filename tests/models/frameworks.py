"""What other packages do with the layers of a network; `make test-frameworks` runs it, with the packages."""

import copy

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmmeta.models import CAFormer, ConvFormer, PoolFormer

IMAGE = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))
MAPS = ['fc1', 'fc2', 'qkv', 'proj']


@pytest.fixture
def network():
    torch.manual_seed(0)
    return CAFormer('s18', window=3).eval()


def linear_maps_of_timm():
    network = timm.create_model('caformer_s18', num_classes=0)
    return sum(type(module) is nn.Linear for module in network.modules())


def close(outs, expected, tolerance):
    for out, other in zip(outs, expected, strict=True):
        assert (out - other).norm() <= tolerance * other.norm()


def test_peft_adapts_linear_maps(network):
    """An adapter is zero at first, and its gradient is that of the weight that it is merged into."""
    from peft import LoraConfig, get_peft_model

    reference = copy.deepcopy(network)
    expected = reference(IMAGE)
    sum(out.square().mean() for out in expected).backward()
    adapted = get_peft_model(network, LoraConfig(r=4, target_modules=MAPS, lora_alpha=4))
    close(adapted(IMAGE), expected, 0.0)
    sum(out.square().mean() for out in adapted(IMAGE)).backward()
    layers = {name: module for name, module in adapted.named_modules() if hasattr(module, 'lora_A')}
    assert len(layers) == 2 * 18 + 2 * 12
    for name, layer in layers.items():
        gradient = reference.get_submodule(name.removeprefix('base_model.model.')).weight.grad
        found = layer.lora_B['default'].weight.grad
        close([found], [gradient @ layer.lora_A['default'].weight.T], 1e-4)
    for layer in layers.values():
        nn.init.normal_(layer.lora_B['default'].weight, std=0.01)
    with torch.no_grad():
        close(adapted.merge_and_unload()(IMAGE), adapted(IMAGE), 1e-5)


def test_torchao_quantizes_linear_maps(network):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    expected = network(IMAGE)
    quantize_(network, Int8WeightOnlyConfig())
    converted = [
        m for m in network.modules() if isinstance(m, nn.Linear) and type(m.weight.data) is not torch.Tensor
    ]
    assert len(converted) >= linear_maps_of_timm()
    with torch.no_grad():
        close(network(IMAGE), expected, 0.05)


def test_quanto_quantizes_linear_maps(network):
    from optimum.quanto import QLinear, freeze, qint8, quantize

    expected = network(IMAGE)
    quantize(network, weights=qint8)
    freeze(network)
    assert sum(isinstance(module, QLinear) for module in network.modules()) >= linear_maps_of_timm()
    with torch.no_grad():
        close(network(IMAGE), expected, 0.05)


@pytest.mark.parametrize('build', [PoolFormer, ConvFormer, CAFormer])
def test_thop_counts_what_pytorch_counts(build):
    """It counts no attention: of its products alone it is told nothing."""
    from thop import profile

    network = build('s12' if build is PoolFormer else 's18').eval()
    image = torch.randn(1, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        network(image)
    counts = counter.get_flop_counts()['Global']
    of_layers = sum(count for name, count in counts.items() if 'attention' not in str(name)) / 2
    found, _ = profile(network, (image,), verbose=False)
    assert found == pytest.approx(of_layers, rel=0.01)
