"""Configs of any OpenMMLab package: read, inspect, adapt and build them."""

from .adaptation import adapt
from .loading import edit, load_config, read

__all__ = ['adapt', 'edit', 'load_config', 'read']
