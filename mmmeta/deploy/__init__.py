"""Optional steps that optimise a trained model for deployment."""

from .acceleration import accelerate

__all__ = ['accelerate']
