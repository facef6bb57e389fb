"""Build what a config describes, and report values that a class does not take."""

import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from mmengine.config import Config
from torch import nn
from torch.utils.data import DataLoader

from mmmeta.registry import MODELS
from mmmeta.utils.errors import UsageError
from mmmeta.utils.mmengine_private import BUILDING
from mmmeta.utils.stack import package_folder

from .inspection import our_backbone
from .wiring import without_memory

T = TypeVar('T')


def check_backbone(cfg: Config) -> nn.Module | None:
    """Build a backbone of ours without allocating it, so that a wrong argument is reported early.

    Returns:
        nn.Module | None: The backbone; None for one that is not ours.

    Raises:
        UsageError: An argument is unknown or its value is not one of those that it takes.
    """
    backbone = our_backbone(cfg)
    if backbone is None:
        return None
    with without_memory():
        return build(MODELS.build, backbone)


def build(builder: Callable[[dict[str, Any]], T], cfg: dict[str, Any]) -> T:
    """Call a registry's build function, and report what a class does not take as a usage error.

    Args:
        builder (callable): Called with the config.
        cfg (dict): The config of what is built.

    Returns:
        T: What ``builder`` returns.

    Raises:
        UsageError: As :func:`explain_building`.
    """
    with explain_building():
        return builder(cfg)


# Packages whose constructors check their arguments.
CHECKING = ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')


@contextmanager
def explain_building() -> Iterator[None]:
    """Report values of a config that the class which they are for refuses.

    Raises:
        UsageError: A ``type`` is not registered, or a constructor does not take an argument or its value.
    """
    try:
        yield
    except KeyError as error:
        if 'is not in the' not in str(error) and 'must contain the key "type"' not in str(error):
            raise
        raise UsageError(str(error.args[0]).replace('\n', ' ')) from error
    except (TypeError, ValueError, AssertionError) as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        calls = [i for i, frame in enumerate(frames) if frame.f_code in BUILDING]
        if isinstance(error, UsageError) or not calls:
            raise
        cls = frames[calls[-1]].f_locals.get('obj_cls', DataLoader)
        inner = [frame.f_code for frame in frames[calls[-1] + 1 :]]
        computes = any(code.co_name != '__init__' for code in inner)
        if computes and not isinstance(error, AssertionError):  # which checks, wherever it stands
            raise
        if 'unexpected keyword argument' in str(error):
            takes = ', '.join(inspect.signature(cls).parameters)
            argument = str(error).rpartition('unexpected keyword argument ')[2]
            raise UsageError(f'{cls.__name__} takes no argument {argument}: it takes {takes}') from error
        folders = tuple(f'{folder}/' for folder in map(package_folder, CHECKING) if folder)
        if all(code.co_filename.startswith(folders) for code in inner):
            reason = str(error) or traceback.extract_tb(error.__traceback__)[-1].line
            raise UsageError(f'{cls.__name__} does not take its arguments in the config: {reason}') from error
        raise
