"""timm's MetaFormers as an independent implementation to compare with."""

import re

import torch
from torch import Tensor, nn

from mmmeta import models

FAMILIES = {
    'poolformer': 'PoolFormer',
    'poolformerv2': 'PoolFormerV2',
    'identityformer': 'IdentityFormer',
    'randformer': 'RandFormer',
    'convformer': 'ConvFormer',
    'caformer': 'CAFormer',
}
TABLE_I_SIZES, TABLE_II_SIZES = ('s12', 's24', 's36', 'm36', 'm48'), ('s18', 's36', 'm36', 'b36')
ALL_MODELS = [
    f'{family}_{size}'
    for family in FAMILIES
    for size in (TABLE_II_SIZES if family in ('convformer', 'caformer') else TABLE_I_SIZES)
]


def is_small(name: str) -> bool:
    """Whether a model has one of the two smallest sizes of its family: depths and widths are a table's."""
    return name.endswith(('_s12', '_s18', '_s24', '_s36'))


TIMM_MODELS = [name for name in ALL_MODELS if not name.startswith(('identityformer', 'randformer'))]


def build(name: str, **arguments) -> models.MetaFormer:
    """Build one of the papers' models by its name, such as ``caformer_s18``: raw features without an arch."""
    family, size = name.split('_')
    arguments.setdefault('output_norm', 'arch' in arguments)
    return getattr(models, FAMILIES[family])(**{'arch': size, **arguments})


def ours_from_timm(name: str) -> str:
    """Name of our parameter for the name of one of timm's."""
    name = re.sub(r'^stem\.conv\.', 'stem.0.conv.', name)
    name = re.sub(r'^stages_(\d)', r'stages.\1', name)
    name = re.sub(r'^stem\.norm\.', 'stem.0.post_norm.', name)
    name = name.replace('.downsample.norm.', '.downsample.pre_norm.').replace('.act1.', '.act.')
    return re.sub(r'((?:res|layer)_scale\d)\.scale$', r'\1', name)


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Give every parameter a value that matters: a scale left at 1 or 1e-5 would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.rand(parameter.shape, generator=generator) - 0.5
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(noise * (3.0 / fan_in) ** 0.5)
            elif name.endswith('bias'):
                parameter.copy_(0.2 * noise)
            else:
                parameter.copy_(0.8 + 0.4 * noise)


def load_from_timm(model: nn.Module, peer: nn.Module) -> None:
    """Copy the weights of timm's model into ours; every tensor has to find its place."""
    own = model.state_dict()
    state = {ours_from_timm(k): v for k, v in peer.state_dict().items() if not k.startswith('head.')}
    model.load_state_dict({k: v.reshape(own[k].shape) if k in own else v for k, v in state.items()})


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest magnitude expected."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()
