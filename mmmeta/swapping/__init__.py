"""A MetaFormer in any config."""

from .swap import swap

__all__ = ['swap']
