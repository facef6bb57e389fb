"""Folders of images: what is in them, and which part is for validation."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import floor
from pathlib import Path
from typing import Any

from mmmeta.config.literals import check_text, is_unicode
from mmmeta.datasets.images import shown_size
from mmmeta.runtime.run import RuntimeProblem
from mmmeta.utils.errors import UsageError, shorten

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
# Wraps what is gone through, and is given its number.
Progress = Callable[[Iterable[Any], int], Iterator[Any]]
# Names of folders of the parts.
SPLITS = dict(
    train=('train', 'training', 'train2017'),
    val=('val', 'valid', 'validation', 'val2017'),
    test=('test', 'testing', 'test2017'),
)
# ImageNet-21K's, the longest list that networks are trained on; a number beyond it is not that of a class.
MOST_CLASSES = 21_843


def list_files(folder: Path, suffixes: Sequence[str], option: str) -> list[str]:
    """Files below a folder, sorted, relative to it.

    Args:
        folder (Path): The folder.
        suffixes (Sequence[str]): Their endings, in any case.
        option (str): The option that named the folder.

    Raises:
        UsageError: The folder is not there, has no such files, or one whose name is not Unicode.
    """
    if not folder.is_dir():
        raise UsageError(f"{option}: there is no folder '{folder}'")
    found = [
        os.path.relpath(os.path.join(place, name), folder).replace(os.sep, '/')
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(tuple(suffixes)) and not name.startswith('.')
    ]
    if not found:
        raise UsageError(f"{option}: no file below '{folder}' ends in {', '.join(suffixes)}")
    odd = next((name for name in found if not is_unicode(name)), None)
    if odd is not None:
        raise UsageError(f'{option}: the name of the file {odd!r} is not text in UTF-8: rename it')
    return sorted(found)


def list_lines(lines: Iterable[str]) -> str:
    """The text of a list of files, as MMSegmentation and MMPretrain read it.

    Args:
        lines (Iterable[str]): Its lines.

    Raises:
        UsageError: Their readers would find another name: they take white space off both ends.
    """
    lines = list(lines)
    odd = next((line for line in lines if line != line.strip() or '\n' in line or '\r' in line), None)
    if odd is not None:
        raise UsageError(
            f'the name of the file {odd!r} has a line break, or white space at an end, which lists of files '
            'cannot hold: rename it'
        )
    return '\n'.join(lines) + '\n'


def check_names(names: Sequence[str], source: str) -> None:
    """Check names of classes.

    Args:
        names (Sequence[str]): The names.
        source (str): Where they are from, for the error.

    Raises:
        UsageError: One cannot stand in a config, stands twice, or they are more than a network has.
    """
    if len(names) > MOST_CLASSES:
        raise UsageError(f'{source}: {len(names)} classes, and {MOST_CLASSES} are the most')
    for name in names:
        check_text(name, f'class name of {source}')
        if not name:
            raise UsageError(f'{source}: class {names.index(name)} has no name')
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f'{source}: {shorten(twice)} stands twice')


def find_splits(folder: Path) -> dict[str, str]:
    """Names of the folders inside a folder that are for training, validation and the test.

    Args:
        folder (Path): The folder.

    Returns:
        dict[str, str]: By ``'train'``, ``'val'`` and ``'test'``; nothing where no images are set apart.

    Raises:
        UsageError: Images are set apart, and not those for training.
    """
    names = {path.name.lower(): path.name for path in folder.iterdir() if path.is_dir()}
    found = {part: next((names[n] for n in known if n in names), None) for part, known in SPLITS.items()}
    parts = {part: name for part, name in found.items() if name is not None}
    if parts and 'train' not in parts:
        raise UsageError(
            f"'{folder}' has a folder '{next(iter(parts.values()))}', and none for training: call that "
            'train, or give its path'
        )
    return parts if len(parts) > 1 else {}


def hold_out(names: Sequence[str], fraction: float) -> tuple[list[str], list[str]]:
    """Split names into those for training and those for validation, evenly spread.

    Args:
        names (Sequence[str]): The names, in their order.
        fraction (float): How many of them are for validation.

    Raises:
        UsageError: The fraction leaves one of the two empty.
    """
    count = len(names)
    within = range(count) if 0 < fraction < 1 else ()  # not of NaN either
    val = [names[i] for i in within if floor((i + 1) * fraction) > floor(i * fraction)]
    if not val and 0 < fraction < 1 < count:
        val = [names[-1]]  # one at least
    if not 0 < len(val) < count:
        raise UsageError(
            f'--val-fraction {fraction}: of {len(names)} images none would be for validation, or none for '
            'training; give a fraction such as 0.2'
        )
    held = set(val)
    return [name for name in names if name not in held], list(val)


def suffix_of(names: Sequence[str], option: str) -> str:
    """The one ending that all files have.

    Raises:
        UsageError: They have several; MMSegmentation looks for one.
    """
    counts = Counter(os.path.splitext(name)[1] for name in names)
    if len(counts) > 1:
        said = ', '.join(f'{count} in {suffix}' for suffix, count in counts.most_common())
        raise UsageError(
            f'{option}: files end in several ways ({said}), and a data set of MMSegmentation looks for one: '
            'convert the fewer ones'
        )
    return next(iter(counts))


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width as the image is to be seen, which is how pipelines read it.

    Raises:
        UsageError: It cannot be read as an image.
    """
    try:
        return shown_size(path)
    except RuntimeProblem as error:
        raise UsageError(str(error)) from error


def read_text(path: Path) -> str:
    """Text of a file of the user, with or without a byte order mark.

    Raises:
        UsageError: It is not in UTF-8.
    """
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise UsageError(f"'{path}' is not text in UTF-8 ({error.reason}): save it as that") from error


def read_names(given: str | None) -> list[tuple[str, str | None]] | None:
    """Names of classes, and what is stored for each where that is said.

    Args:
        given (str | None): Names separated by commas, or a text file with one in each line: ``road``, or
            ``road:7`` or ``road:128,64,128`` (a colour, red first) to say what the masks have for it.

    Raises:
        UsageError: The file is empty, or a name stands twice.
    """
    if given is None:
        return None
    is_file = os.path.isfile(given)
    if not is_file and (os.sep in given or given.endswith('.txt')):
        raise UsageError(f"--classes: there is no file '{given}'")
    lines = read_text(Path(given)).splitlines() if is_file else given.split(',')
    lines = [line.strip() for line in lines if line.strip() and not line.startswith('#')]
    names = []
    for line in lines:
        name, _, stored = line.partition(':')
        # CVAT ends its lines in colons.
        names.append((name.strip(), stored.strip(': ') or None))
    if not names:
        raise UsageError(f'--classes {given}: no names')
    check_names([name for name, _ in names], f'--classes {given}')
    return names
