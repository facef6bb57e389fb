"""Folders of images: what is in them, and which part is for validation."""

import os
from collections import Counter
from collections.abc import Sequence
from math import floor
from pathlib import Path

from PIL import Image

from mmmeta.errors import UsageError, shorten

from ..pictures import shown_size

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
# Names of folders of the two parts.
TRAIN = ('train', 'training', 'train2017')
VAL = ('val', 'valid', 'validation', 'val2017')


def list_files(folder: Path, suffixes: Sequence[str], option: str) -> list[str]:
    """Files below a folder, sorted, relative to it.

    Args:
        folder (Path): The folder.
        suffixes (Sequence[str]): Their endings, in any case.
        option (str): The option that named the folder.

    Raises:
        UsageError: The folder is not there, or has no such files.
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
    return sorted(found)


def find_splits(folder: Path) -> tuple[str, str] | None:
    """Names of the folders of training and validation inside a folder; None if it has not both."""
    names = {path.name.lower(): path.name for path in folder.iterdir() if path.is_dir()}
    train, val = (next((names[n] for n in known if n in names), None) for known in (TRAIN, VAL))
    return (train, val) if train and val else None


def hold_out(names: Sequence[str], fraction: float) -> tuple[list[str], list[str]]:
    """Split names into those for training and those for validation, evenly spread.

    Args:
        names (Sequence[str]): The names, in their order.
        fraction (float): How many of them are for validation.

    Raises:
        UsageError: The fraction leaves one of the two empty.
    """
    count = len(names)
    val = [names[i] for i in range(count) if floor((i + 1) * fraction) > floor(i * fraction)]
    if not val and 0 < fraction < 1 < count:
        val = [names[-1]]  # one at least
    if not 0 < len(val) < count:
        raise UsageError(
            f'--val-fraction {fraction}: of {len(names)} images none would be for validation, or none for '
            'training; give a fraction such as 0.2, or --val-images'
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
    except (OSError, Image.DecompressionBombError) as error:
        raise UsageError(f"'{path}' cannot be read as an image ({error})") from error


def read_text(path: Path) -> str:
    """Text of a file of the user, with or without a byte order mark.

    Raises:
        UsageError: It is not in UTF-8.
    """
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise UsageError(f"'{path}' is no text in UTF-8 ({error.reason}): save it as that") from error


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
    twice = [name for name, count in Counter(name for name, _ in names).items() if count > 1]
    if twice or not names:
        raise UsageError(f'--classes {given}: {shorten(twice) + " stands twice" if twice else "no names"}')
    return names
