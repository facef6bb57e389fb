"""Heads of the papers' classifiers, on top of MMPretrain's; imported when a config names one of them."""

from .classifier import MetaFormerLinearHead, MetaFormerMlpHead

__all__ = ['MetaFormerLinearHead', 'MetaFormerMlpHead']
