"""A trained network without the stack that trained it."""

from .exporting import Exported, export
from .quantizing import Calibration
from .runtime import Network, load

__all__ = ['Calibration', 'Exported', 'Network', 'export', 'load']
