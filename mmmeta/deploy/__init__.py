"""Steps between training and use: a trained model becomes another one, which is said and shown."""

from .acceleration import accelerate

__all__ = ['accelerate']
