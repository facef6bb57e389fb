"""Data sets and metrics of evaluations that MMPretrain lacks; imported when a config names one of them."""

from .robustness import CorruptionError, ImageNetC, ImageNetSubset, SubsetAccuracy

__all__ = ['CorruptionError', 'ImageNetC', 'ImageNetSubset', 'SubsetAccuracy']
