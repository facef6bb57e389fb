"""Published weights: their locations, the names of their tensors, and loading.

``mmmeta://`` becomes a scheme of MMEngine's checkpoint loader, which returns the tensors of a whole
classifier of ours, ``backbone.*`` and ``head.*``. Schemes that other packages may have are left to them.
"""

from contextlib import suppress
from typing import Any

from .fetch import is_remote
from .files import DamagedFileError, check_finite, find_state_dict, read_checkpoint, trust, write_state_dict
from .layouts import LAYOUTS, OURS, Layout, convert_to_layout, recognise, translate
from .loading import (
    differences,
    format_differences,
    load_backbone,
    load_weights,
    missing_output_norms,
    read_location,
)
from .zoo import MEAN, STD, ZOO, Weights, get_weights, name_of_config, name_of_location


def _load_classifier(location: str, map_location: Any = None) -> dict:
    return {'state_dict': load_weights(location, map_location)[0]}


# Without OpenCV MMEngine's runner, which would load checkpoints, cannot be imported.
with suppress(ImportError):
    from mmengine.runner.checkpoint import CheckpointLoader

    CheckpointLoader.register_scheme('mmmeta://', loader=_load_classifier, force=True)

__all__ = [
    'LAYOUTS',
    'MEAN',
    'OURS',
    'STD',
    'ZOO',
    'DamagedFileError',
    'Layout',
    'Weights',
    'check_finite',
    'convert_to_layout',
    'differences',
    'find_state_dict',
    'format_differences',
    'get_weights',
    'is_remote',
    'load_backbone',
    'load_weights',
    'missing_output_norms',
    'name_of_config',
    'name_of_location',
    'read_checkpoint',
    'read_location',
    'recognise',
    'translate',
    'trust',
    'write_state_dict',
]
