"""Values in the text of a config, which MMEngine reads as a template first and as Python then."""

from collections.abc import Mapping
from keyword import iskeyword
from math import isfinite
from pathlib import Path

from mmmeta.utils.errors import UsageError

# MMEngine replaces {{ fileDirname }}, {{ _base_.key }} and {{$VARIABLE:default}} wherever they stand, in
# strings and comments too, before Python reads the text. Written as an escape the braces would survive one
# reading, but not the next: a run and its checkpoints store the config as it was read.
TEMPLATE = '{{'


def check_text(text: str, what: str) -> str:
    """Check that a name or a path can stand in a config, in lists of files and in logs.

    Args:
        text (str): The name or path.
        what (str): What it is, such as ``'class name'``, for the error.

    Returns:
        str: The text.

    Raises:
        UsageError: It has ``{{``, or is not Unicode (names of files of other encodings).
    """
    if TEMPLATE in text:
        raise UsageError(
            f"the {what} has '{TEMPLATE}', which begins a template in MMEngine's configs: rename {text!r}"
        )
    if not is_unicode(text):
        raise UsageError(f'the {what} is not text in UTF-8: rename {text!r}')
    return text


def check_config_path(path: str | Path) -> Path:
    """Check the path of a config that is to be written.

    Args:
        path (str | Path): The path.

    Returns:
        Path: The path.

    Raises:
        UsageError: As :func:`check_text`, or it has ``::``, which stands between a package and its config.
    """
    if '::' in check_text(str(path), 'path --out'):
        raise UsageError(f"--out '{path}' has '::', as configs of packages have: choose another name")
    return Path(path)


def can_be_template(folder: str) -> bool:
    """Whether MMEngine can write a folder for ``{{ fileDirname }}``, which stands between quotes."""
    return (
        is_unicode(folder) and folder.isprintable() and TEMPLATE not in folder and not {*folder} & {*'\'"\\'}
    )


def is_unicode(text: str) -> bool:
    """Whether a text can be encoded: not with what stands for bytes of other encodings in names of files."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Expression(str):
    """Text of a config that is an expression in it, such as ``here + 'a.txt'``, made of literals alone."""

    __slots__ = ()


def literal(value: object, what: str = 'value') -> str:
    """Return the text of a value that ``mmengine.Config.fromfile`` reads as an equal one.

    Whatever comes from a file or a person enters the text of a config through this function.

    Args:
        value (object): A string, number, bool or None, or lists, tuples and dicts of them.
        what (str): What it is, for the error. Defaults to ``'value'``.

    Raises:
        UsageError: A string has a template or is not Unicode, or the value is of another type.
    """
    if isinstance(value, Expression):
        return str.__str__(value)
    if isinstance(value, str):
        return str.__repr__(check_text(value, what))
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        text = float.__repr__(value)
        return text if isfinite(value) else f"float('{text}')"
    if isinstance(value, Mapping):
        parts = [
            (key, literal(part, f'{what}.{key}' if is_argument(key) else f'{what}[{key!r}]'))
            for key, part in value.items()
        ]
        if all(map(is_argument, value)):
            return f'dict({", ".join(f"{key}={part}" for key, part in parts)})'
        return f'{{{", ".join(f"{literal(key, what)}: {part}" for key, part in parts)}}}'
    if isinstance(value, list):
        return f'[{", ".join(literal(part, what) for part in value)}]'
    if isinstance(value, tuple):
        return f'({", ".join(literal(part, what) for part in value)}{"," if len(value) == 1 else ""})'
    raise UsageError(
        f'the {what} {value!r} cannot be written into a config: strings, numbers, lists, tuples and dicts can'
    )


def is_argument(key: object) -> bool:
    """Whether a key can be written as in ``dict(key=...)``."""
    return isinstance(key, str) and key.isascii() and key.isidentifier() and not iskeyword(key)


def comment(text: str) -> str:
    """Return a text as a comment on one line.

    Raises:
        UsageError: It has a template, or characters that cannot be printed, such as line breaks.
    """
    if not check_text(text, 'comment').isprintable():
        raise UsageError(f'{text!r} has characters that cannot be printed: choose other names')
    return f'# {text}'
