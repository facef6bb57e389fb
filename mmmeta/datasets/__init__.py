"""Small generated data sets in the layouts of the real ones."""

from .shapes import generate_ade20k

__all__ = ['generate_ade20k']
