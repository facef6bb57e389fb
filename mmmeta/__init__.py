"""MetaFormer backbones for dense prediction in the OpenMMLab stack.

Without MMEngine :mod:`mmmeta.runtime` can be imported, and whatever else is says what is missing.
"""

import sys
from typing import Any

from .utils import moved
from .utils.resources import base_config
from .utils.stack import MMEngineMissing, StackError, check_stack, refuse_imports
from .version import __version__

moved.install()

try:
    check_stack()
except StackError as error:
    if sys.argv[:1] == ['-m'] and 'mmmeta' in sys.orig_argv:
        sys.exit(f'error: {error}')  # so it is while Python looks for the module that a command line names
    if not isinstance(error, MMEngineMissing):
        raise
    refuse_imports(error)
else:
    from . import registry

__all__ = ['__version__', 'base_config', 'registry']


def __getattr__(name: str) -> Any:
    if name == 'registry':
        check_stack()
    raise AttributeError(f"module 'mmmeta' has no attribute '{name}'")
