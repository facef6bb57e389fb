"""Models; registered in the scope ``mmmeta``."""

from mmmeta.registry import MODELS

from .backbones import (
    FAMILIES,
    CAFormer,
    ConvFormer,
    IdentityFormer,
    MetaFormer,
    PoolFormer,
    PoolFormerV2,
    RandFormer,
)
from .layers import Conv2d

# What `conv_cfg=dict(type='mmmeta.Conv2d')` finds; layers themselves know nothing of registries.
MODELS.register_module(module=Conv2d)

__all__ = [
    'FAMILIES',
    'CAFormer',
    'Conv2d',
    'ConvFormer',
    'IdentityFormer',
    'MetaFormer',
    'PoolFormer',
    'PoolFormerV2',
    'RandFormer',
]
