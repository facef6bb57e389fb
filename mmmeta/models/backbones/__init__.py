"""MetaFormer and its families as multi-scale backbones."""

from .families import FAMILIES, CAFormer, ConvFormer, IdentityFormer, PoolFormer, PoolFormerV2, RandFormer
from .metaformer import MetaFormer

__all__ = [
    'FAMILIES',
    'CAFormer',
    'ConvFormer',
    'IdentityFormer',
    'MetaFormer',
    'PoolFormer',
    'PoolFormerV2',
    'RandFormer',
]
