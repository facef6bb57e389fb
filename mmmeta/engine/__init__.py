"""Hooks, loops, optimisers: what a run needs beside MMEngine's own."""

from .hooks import CheckpointHook, CompleteCheckpointHook, MeanLossHook
from .loops import IterBasedTrainLoop, ResumableBatchSampler
from .optim import Bf16OptimWrapper, LayerDecayOptimWrapperConstructor

__all__ = [
    'Bf16OptimWrapper',
    'CheckpointHook',
    'CompleteCheckpointHook',
    'IterBasedTrainLoop',
    'LayerDecayOptimWrapperConstructor',
    'MeanLossHook',
    'ResumableBatchSampler',
]
