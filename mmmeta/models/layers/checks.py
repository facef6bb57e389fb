"""Checks of what layers and backbones are built with."""

import sys
from collections.abc import Collection, Mapping
from typing import Any

from mmmeta.utils.errors import UsageError

WINDOW_MODES = ('slide', 'block')
BORDERS = ('shift', 'truncate')
BACKENDS = ('sdpa', 'natten')


def is_number(value: Any) -> bool:
    """Return whether a value is a finite real number that a float can hold, and not a bool."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= sys.float_info.max  # false of NaN


def is_integer(value: Any, least: int = 1) -> bool:
    """Return whether a value is an integer, and not a bool, of at least ``least`` and at most 64 bits."""
    return type(value) is int and least <= value <= sys.maxsize


def check(name: str, value: Any, valid: bool, allowed: str) -> None:
    """Raise a :class:`UsageError` that gives what is allowed, unless the value is valid."""
    if not valid:
        raise UsageError(f'{name}={value!r}: give {allowed}')


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Raise a :class:`UsageError` unless the value is one of some names."""
    if not isinstance(value, str) or value not in choices:
        raise UsageError(f'{name}={value!r}: choose one of {", ".join(choices)}')


def parse_cfg(kind: str, cfg: Any) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of a part that is configured by a name or a dict.

    Args:
        kind (str): What it is, for the error.
        cfg (str | dict): A name, or a dict with that name under ``type`` and arguments beside it.

    Raises:
        UsageError: It is neither.
    """
    args = {'type': cfg} if isinstance(cfg, str) else cfg
    if not isinstance(args, Mapping) or not all(isinstance(key, str) for key in ('', *args)):
        raise UsageError(f'{kind}={cfg!r}: give a name, or a dict with that name under type')
    name = args.get('type')
    if not isinstance(name, str):
        raise UsageError(f'{kind}={cfg!r}: give a name as its type, a string')
    return name, {key: value for key, value in args.items() if key != 'type'}


def resolve_window(window: Any, mode: str = 'slide', border: str = 'shift') -> tuple[int, int]:
    """Check a window and return its height and width.

    Args:
        window (int | tuple[int, int]): Side, or height and width, in tokens; odd in mode ``'slide'``, where a
            query is at the centre of its window.
        mode (str): ``'slide'`` or ``'block'``. Defaults to ``'slide'``.
        border (str): ``'shift'`` or ``'truncate'``. Defaults to ``'shift'``.

    Raises:
        UsageError: An argument has an invalid value.
    """
    check_choice('window_mode', mode, WINDOW_MODES)
    check_choice('border', border, BORDERS)
    sides = tuple(window) if isinstance(window, (list, tuple)) else (window, window)
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise UsageError(f'window={window!r}: give a positive integer, or two for height and width')
    if mode == 'slide' and not all(side % 2 for side in sides):
        raise UsageError(f'window={window!r}: a sliding window has a token in its middle, give odd numbers')
    return sides
