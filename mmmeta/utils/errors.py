"""Errors that the user can fix, and what their messages are made of."""

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(ValueError):
    """A mistake in a command, a config, an argument or a file.

    The message is one sentence that names the value, what is allowed and the remedy. The command lines
    under ``tools/`` print it alone, without a traceback, and exit with status 1.
    """


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name of those that are there which is most like a misspelt one, whatever its case."""
    by_lower = {other.lower(): other for other in names}
    found = get_close_matches(name.lower(), by_lower, 1, cutoff)
    return by_lower[found[0]] if found else None


def counted(number: int, word: str) -> str:
    """A number of things, such as ``1 image`` and ``2 images``."""
    return f'{number} {word}' if number == 1 else f'{number} {word}s'


def shorten(values: Iterable[object], limit: int = 5) -> str:
    """The first of several values, and how many there are."""
    texts = [str(value) for value in values]
    more = f' and {len(texts) - limit} more' if len(texts) > limit else ''
    return ', '.join(texts[:limit]) + more
