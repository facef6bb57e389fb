"""Leaf operations of the layers: a reference in PyTorch each, and faster forms of it.

:mod:`~mmmeta.models.ops.dispatch` decides which form runs. ``MMMETA_OPS=reference`` in the environment or
:func:`use_reference` take the references, and :func:`describe` prints what was decided for a model.
"""

from .describing import Decision, describe
from .dispatch import MIN_BYTES, is_global, keeping_below, use_reference
from .group_norm import group_norm1
from .layer_norm import layer_norm2d
from .linear import call_linear
from .pooling import pooling_difference
from .recompute import channels_first, channels_last, recomputable
from .scaled_square import scaled_square_relu
from .windows import WindowPlan, WindowRule, attention, check_natten, count_pairs, plan_for

__all__ = [
    'MIN_BYTES',
    'Decision',
    'WindowPlan',
    'WindowRule',
    'attention',
    'call_linear',
    'channels_first',
    'channels_last',
    'check_natten',
    'count_pairs',
    'describe',
    'group_norm1',
    'is_global',
    'keeping_below',
    'layer_norm2d',
    'plan_for',
    'pooling_difference',
    'recomputable',
    'scaled_square_relu',
    'use_reference',
]
