"""Hooks, loops and optimiser wrappers that extend those of MMEngine."""

from .hooks import CheckpointHook, CocoCheckHook, CompleteWeightsHook, LoggerHook, MeanLossHook
from .loops import IterBasedTrainLoop, ResumableBatchSampler
from .optim import Bf16OptimWrapper, LayerDecayOptimWrapperConstructor
from .records import RunRecordHook
from .runner import Runner

__all__ = [
    'Bf16OptimWrapper',
    'CheckpointHook',
    'CocoCheckHook',
    'CompleteWeightsHook',
    'IterBasedTrainLoop',
    'LayerDecayOptimWrapperConstructor',
    'LoggerHook',
    'MeanLossHook',
    'ResumableBatchSampler',
    'RunRecordHook',
    'Runner',
]
