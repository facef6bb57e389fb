"""Hooks, loops and optimiser wrappers that extend those of MMEngine."""

from .checkpoint_hook import CheckpointHook
from .hooks import CocoCheckHook, CompleteWeightsHook, LoggerHook, MeanLossHook, NothingDetectedHook
from .joining import AgreementHook
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop, ResumableBatchSampler
from .optim import Bf16OptimWrapper, LayerDecayOptimWrapperConstructor
from .prepare import prepare
from .records import RunRecordHook
from .runner import Runner
from .stopping import DivergenceHook, SignOfLifeHook, StopHook

__all__ = [
    'AgreementHook',
    'Bf16OptimWrapper',
    'CheckpointHook',
    'CocoCheckHook',
    'CompleteWeightsHook',
    'DivergenceHook',
    'EpochBasedTrainLoop',
    'IterBasedTrainLoop',
    'LayerDecayOptimWrapperConstructor',
    'LoggerHook',
    'MeanLossHook',
    'NothingDetectedHook',
    'ResumableBatchSampler',
    'RunRecordHook',
    'Runner',
    'SignOfLifeHook',
    'StopHook',
    'prepare',
]
