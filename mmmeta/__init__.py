"""MetaFormer backbones for dense prediction in the OpenMMLab stack.

Without MMEngine :mod:`mmmeta.runtime` can be imported, and whatever else is says what is missing.
"""

import sys
from typing import Any

from .utils import moved
from .utils.resources import base_config
from .utils.stack import (
    INDEPENDENT,
    MMEngineMissing,
    StackError,
    check_stack,
    find_configs_of_fork,
    refuse_imports,
)
from .version import __version__

moved.install()

try:
    check_stack()
except StackError as error:
    can_go_on = isinstance(error, MMEngineMissing)
    named = [name for name in sys.orig_argv if name.partition('.')[0] == 'mmmeta']
    # So it is while Python looks for the module that a command line names.
    if sys.argv[:1] == ['-m'] and named and not (can_go_on and named[0].startswith(INDEPENDENT)):
        sys.exit(f'error: {error}')
    if not can_go_on:
        raise
    refuse_imports(error)
else:
    find_configs_of_fork()
    from . import registry

__all__ = ['__version__', 'base_config', 'registry']


def __getattr__(name: str) -> Any:
    if name == 'registry':
        check_stack()
    raise AttributeError(f"module 'mmmeta' has no attribute '{name}'")
