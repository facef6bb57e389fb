"""Mistakes in a config and its data, found before the first iteration."""

from mmmeta.config.inspection import our_backbone

from .check import SAMPLE, check, check_config, check_dataset, check_while_reading
from .finding import Finding
from .labels import name_damaged_maps

__all__ = [
    'SAMPLE',
    'Finding',
    'check',
    'check_config',
    'check_dataset',
    'check_while_reading',
    'name_damaged_maps',
    'our_backbone',
]
