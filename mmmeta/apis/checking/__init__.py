"""Mistakes in a config and its data, found before the first iteration."""

from .check import check, check_config, check_dataset
from .finding import Finding, our_backbone

__all__ = ['Finding', 'check', 'check_config', 'check_dataset', 'our_backbone']
