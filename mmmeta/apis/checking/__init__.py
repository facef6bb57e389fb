"""Mistakes in a config and its data, found before the first iteration."""

from .check import SAMPLE, check, check_config, check_dataset, check_while_reading
from .finding import Finding, our_backbone

__all__ = [
    'SAMPLE',
    'Finding',
    'check',
    'check_config',
    'check_dataset',
    'check_while_reading',
    'our_backbone',
]
