"""Configs for people's own data, written after a look at them."""

from .new import METHODS, Created, new

__all__ = ['METHODS', 'Created', 'new']
