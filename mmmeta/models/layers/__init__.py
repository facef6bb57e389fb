"""Building blocks in plain PyTorch; nothing here imports OpenMMLab."""

from .activations import ACTIVATIONS, SquaredReLU, StarReLU, build_activation
from .block import DropPath, MetaFormerBlock, Mlp
from .norms import NORMS, GroupNorm1, LayerNorm2d, build_norm, frozen_running_stats
from .token_mixers import TOKEN_MIXERS, Attention, Identity, Pooling, RandomMixing, SepConv

__all__ = [
    'ACTIVATIONS',
    'NORMS',
    'TOKEN_MIXERS',
    'Attention',
    'DropPath',
    'GroupNorm1',
    'Identity',
    'LayerNorm2d',
    'MetaFormerBlock',
    'Mlp',
    'Pooling',
    'RandomMixing',
    'SepConv',
    'SquaredReLU',
    'StarReLU',
    'build_activation',
    'build_norm',
    'frozen_running_stats',
]
