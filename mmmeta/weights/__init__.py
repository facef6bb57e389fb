"""Published weights: where each lies, which names its tensors have, and how they are loaded.

``timm://`` and ``mmmeta://`` become places of checkpoints that all of MMEngine knows: what it gets from there
are the tensors of a whole classifier of ours, ``backbone.*`` and ``head.*``.
"""

from contextlib import suppress
from typing import Any

from .fetch import is_remote
from .files import DamagedFileError, check_finite, find_state_dict, read_checkpoint, trust, write_state_dict
from .layouts import LAYOUTS, OURS, Layout, recognise, translate, write_layout
from .loading import describe, differences, find_new_norms, load_backbone, load_weights, read_location
from .zoo import ZOO, Weights, find, find_by_config, find_name


def _load_classifier(location: str, map_location: Any = None) -> dict:
    return {'state_dict': load_weights(location, map_location)[0]}


# Without OpenCV there is no runner of MMEngine that could ask for a checkpoint.
with suppress(ImportError):
    from mmengine.runner.checkpoint import CheckpointLoader

    CheckpointLoader.register_scheme(('mmmeta://', 'timm://'), loader=_load_classifier, force=True)

__all__ = [
    'LAYOUTS',
    'OURS',
    'ZOO',
    'DamagedFileError',
    'Layout',
    'Weights',
    'check_finite',
    'describe',
    'differences',
    'find',
    'find_by_config',
    'find_name',
    'find_new_norms',
    'find_state_dict',
    'is_remote',
    'load_backbone',
    'load_weights',
    'read_checkpoint',
    'read_location',
    'recognise',
    'translate',
    'trust',
    'write_layout',
    'write_state_dict',
]
