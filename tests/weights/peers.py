"""State dicts in the layouts of other repositories, renamed by hand from timm's, which is a real peer."""

import re

import timm
from mmengine.registry import DefaultScope
from torch import Tensor

from mmmeta.models import MetaFormer

# One step of renaming after the other, unlike the tables that are tested.
TO_SAIL_METAFORMER = (
    (r'^stem\.conv', 'downsample_layers.0.conv'),
    (r'^stem\.norm', 'downsample_layers.0.post_norm'),
    (r'^stages\.(\d)\.downsample\.norm', r'downsample_layers.\1.pre_norm'),
    (r'^stages\.(\d)\.downsample\.conv', r'downsample_layers.\1.conv'),
    (r'\.blocks\.', '.'),
    (r'^head\.norm', 'norm'),
    (r'^head\.fc', 'head'),
)
TO_SAIL_POOLFORMER = (
    (r'^stem\.conv', 'patch_embed.proj'),
    (r'^stages\.(\d)\.downsample\.conv', lambda m: f'network.{2 * int(m[1]) - 1}.proj'),
    (r'^stages\.(\d)\.blocks', lambda m: f'network.{2 * int(m[1])}'),
    (r'layer_scale(\d)\.scale', r'layer_scale_\1'),
    (r'^head\.norm', 'norm'),
    (r'^head\.fc', 'head'),
)
TO_TRANSFORMERS = (
    (r'^stem\.conv', 'poolformer.encoder.patch_embeddings.0.projection'),
    (r'^stages\.(\d)\.downsample\.conv', r'poolformer.encoder.patch_embeddings.\1.projection'),
    (r'^stages\.(\d)\.blocks', r'poolformer.encoder.block.\1'),
    (r'\.norm1\.', '.before_norm.'),
    (r'\.norm2\.', '.after_norm.'),
    (r'\.mlp\.fc', '.output.conv'),
    (r'layer_scale(\d)\.scale', r'layer_scale_\1'),
    (r'^head\.norm', 'norm'),
    (r'^head\.fc', 'classifier'),
)


def rename(state_dict: dict[str, Tensor], steps: tuple) -> dict[str, Tensor]:
    """Apply the steps to every name."""
    renamed = {}
    for name, tensor in state_dict.items():
        for pattern, replacement in steps:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


def sail_metaformer(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """From timm's layout to that of sail-sg/metaformer, whose pointwise maps are linear layers."""
    linear = {
        name: tensor.flatten(1) if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor
        for name, tensor in state_dict.items()
    }
    return rename(linear, TO_SAIL_METAFORMER)


def sail_poolformer(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """From timm's layout to that of sail-sg/poolformer."""
    return rename(state_dict, TO_SAIL_POOLFORMER)


def transformers(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """From timm's layout to that of PoolFormer in Hugging Face's transformers."""
    return rename(state_dict, TO_TRANSFORMERS)


def classifier(backbone: str, arch: str, head: dict, raw: bool = True, num_classes: int = 1000):
    """An ``ImageClassifier`` of MMPretrain with a backbone of ours.

    Args:
        backbone (str): Class of the backbone.
        arch (str): Its arch.
        head (dict): Head, without classes and channels.
        raw (bool): Whether the backbone gives raw features. Defaults to True.
        num_classes (int): Number of classes. Defaults to 1000.
    """
    from mmpretrain.registry import MODELS
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    family = next(f for f in MetaFormer.__subclasses__() if f.__name__ == backbone)
    cfg = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type=f'mmmeta.{backbone}',
            arch=arch,
            output_norm=not raw,
            out_indices=(3,),
        ),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(**head, in_channels=family.resolve_arch(arch)['dims'][-1], num_classes=num_classes),
    )
    # Other tests in the same process may have left another scope.
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg).eval()


def timm_model(name: str, **arguments):
    """A model of timm with random weights, ready to be compared with."""
    return timm.create_model(name, **arguments).eval()
