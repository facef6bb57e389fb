"""Leaf operations of the layers: a reference in PyTorch each, and faster forms of it."""

from .group_norm import group_norm1
from .layer_norm import layer_norm2d
from .linear import convolution, pointwise
from .pooling import pooling_difference
from .recompute import MIN_BYTES, keeping_below, recomputable
from .scaled_square import scaled_square_relu
from .windows import count_pairs

__all__ = [
    'MIN_BYTES',
    'convolution',
    'count_pairs',
    'group_norm1',
    'keeping_below',
    'layer_norm2d',
    'pointwise',
    'pooling_difference',
    'recomputable',
    'scaled_square_relu',
]
