"""Optional steps that optimise a trained model for deployment."""

from .acceleration import accelerate
from .exporting import Exported, export
from .quantizing import Calibration
from .runtime import Network, load

__all__ = ['Calibration', 'Exported', 'Network', 'accelerate', 'export', 'load']
