"""Hooks, loops, optimisers: what a run needs beside MMEngine's own."""

from .hooks import CheckpointHook, CocoCheckHook, CompleteCheckpointHook, LoggerHook, MeanLossHook
from .loops import IterBasedTrainLoop, ResumableBatchSampler
from .optim import Bf16OptimWrapper, LayerDecayOptimWrapperConstructor
from .records import RunRecordHook

__all__ = [
    'Bf16OptimWrapper',
    'CheckpointHook',
    'CocoCheckHook',
    'CompleteCheckpointHook',
    'IterBasedTrainLoop',
    'LayerDecayOptimWrapperConstructor',
    'LoggerHook',
    'MeanLossHook',
    'ResumableBatchSampler',
    'RunRecordHook',
]
