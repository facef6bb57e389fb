"""MetaFormer backbones for dense prediction in the OpenMMLab stack."""

from .stack import check_stack
from .version import __version__

check_stack()

from . import registry  # noqa: E402

__all__ = ['__version__', 'registry']
