"""Checks of what layers and backbones are built with."""

import sys
from collections.abc import Collection, Mapping
from typing import Any

from mmmeta.utils.errors import UsageError


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
