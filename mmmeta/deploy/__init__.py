"""A trained network without the stack that trained it."""

from mmmeta.runtime.run import Network, load

from .exporting import Exported, export
from .quantizing import Calibration

__all__ = ['Calibration', 'Exported', 'Network', 'export', 'load']
