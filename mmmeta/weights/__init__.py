"""Published weights: their locations, the names of their tensors, and loading.

``mmmeta://`` becomes a scheme of MMEngine's checkpoint loader, which returns the tensors of a whole
classifier of ours, ``backbone.*`` and ``head.*``. Schemes that other packages may have are left to them.
"""

from contextlib import suppress
from typing import Any

import torch

from .fetch import is_remote, sha256_of
from .files import (
    DamagedFileError,
    check_finite,
    check_structure,
    find_state_dict,
    is_finite,
    is_metadata,
    read_checkpoint,
    write_state_dict,
)
from .layouts import LAYOUTS, OURS, Layout, convert_to_layout, recognise, translate
from .loading import (
    LoadReport,
    as_location,
    check_backbone_complete,
    check_complete,
    check_types,
    convert_checkpoint,
    differences,
    format_differences,
    load,
    open_checkpoint,
    read,
    read_weights,
)
from .zoo import MEAN, STD, ZOO, Weights, get_weights, name_of_config, name_of_location


def load_from_zoo(location: str, map_location: str | torch.device | None = None) -> dict[str, Any]:
    return open_checkpoint(location)


# Without OpenCV MMEngine's runner, which would load checkpoints, cannot be imported.
with suppress(ImportError):
    from mmengine.runner.checkpoint import CheckpointLoader

    CheckpointLoader.register_scheme('mmmeta://', loader=load_from_zoo, force=True)

__all__ = [
    'LAYOUTS',
    'MEAN',
    'OURS',
    'STD',
    'ZOO',
    'DamagedFileError',
    'Layout',
    'LoadReport',
    'Weights',
    'as_location',
    'check_backbone_complete',
    'check_complete',
    'check_finite',
    'check_structure',
    'check_types',
    'convert_checkpoint',
    'convert_to_layout',
    'differences',
    'find_state_dict',
    'format_differences',
    'get_weights',
    'is_finite',
    'is_metadata',
    'is_remote',
    'load',
    'name_of_config',
    'name_of_location',
    'open_checkpoint',
    'read',
    'read_checkpoint',
    'read_weights',
    'recognise',
    'sha256_of',
    'translate',
    'write_state_dict',
]
