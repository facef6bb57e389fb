"""MetaFormer backbones for dense prediction in the OpenMMLab stack."""

import sys

from .utils import moved
from .utils.resources import base_config
from .utils.stack import StackError, check_stack
from .version import __version__

try:
    check_stack()
except StackError as error:
    if sys.argv[:1] == ['-m'] and 'mmmeta' in {
        name.partition('.')[0] for name in sys.orig_argv
    }:  # so it is while Python looks for the module that a command line names
        sys.exit(f'error: {error}')
    raise

from . import registry

moved.install()

__all__ = ['__version__', 'base_config', 'registry']
