"""Exported networks, run without PyTorch."""

from .run import Crop, Description, Fit, Network, Prediction, RuntimeProblem, Stretch, load

__all__ = ['Crop', 'Description', 'Fit', 'Network', 'Prediction', 'RuntimeProblem', 'Stretch', 'load']
