"""Exported networks, run without PyTorch."""

from .run import Description, Network, Prediction, RuntimeProblem, load

__all__ = ['Description', 'Network', 'Prediction', 'RuntimeProblem', 'load']
