"""Mistakes in a config and its data, found before the first iteration."""

from mmmeta.config.inspection import our_backbone

from .check import SAMPLE, check, check_config, check_dataset, check_while_reading, examine
from .finding import Finding, Report
from .labels import name_damaged_maps
from .starting import CheckLabelsHook, refuse

__all__ = [
    'SAMPLE',
    'CheckLabelsHook',
    'Finding',
    'Report',
    'check',
    'check_config',
    'check_dataset',
    'check_while_reading',
    'examine',
    'name_damaged_maps',
    'our_backbone',
    'refuse',
]
