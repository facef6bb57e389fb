"""Write generated data sets atomically, once, and without overwriting files of the user."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from mmmeta.utils.atomic import ended_by_exception
from mmmeta.utils.errors import UsageError

MARKER = 'generated.json'


def generate(
    name: str,
    write: Callable[[Path, int, int, int, int], None],
    root: str | Path,
    num_train: int = 240,
    num_val: int = 40,
    size: int = 160,
    seed: int = 0,
    progress: Callable[[str], None] = print,
) -> Path:
    """Write a generated data set as ``root/name``, unless it is there.

    The same arguments give the same files. An existing data set, complete and generated from the same
    arguments, is kept; an interrupted one never appears under its name. ``generate_ade20k``,
    ``generate_coco`` and ``generate_imagenet`` are this function with its first two arguments.

    Args:
        name (str): Name of the data set's folder.
        write (callable): Writes the data set; called with a folder, ``num_train``, ``num_val``, ``size`` and
            ``seed``.
        root (str | Path): Folder for the data set.
        num_train (int): Training images. Defaults to 240.
        num_val (int): Validation images. Defaults to 40.
        size (int): Short side of the images in pixels, at least 64; the long side is up to 1.5 times that.
            Defaults to 160.
        seed (int): Seed of the scenes. Defaults to 0.
        progress (callable): Called with progress messages. Defaults to print.

    Returns:
        Path: ``root/name``.

    Raises:
        UsageError: A number is too small, the folder exists and was not generated, or it cannot be written.
    """
    arguments = dict(num_train=num_train, num_val=num_val, size=size, seed=seed, version=1)
    target = Path(root) / name
    if num_train < 1 or num_val < 1 or size < 64 or seed < 0:
        raise UsageError(
            f'num_train={num_train}, num_val={num_val}, size={size}, seed={seed}: give at least one image of '
            'each kind, at least 64 pixels, and a seed that is not negative'
        )
    if os.path.lexists(target):
        marker = target / MARKER
        if not marker.is_file():
            raise UsageError(f"'{target}' exists and was not generated: choose another folder")
        if marker.read_bytes() == json.dumps(arguments).encode():
            return target
    progress(f'generating {num_train} + {num_val} images in {target}')
    try:
        with ended_by_exception():
            target.parent.mkdir(parents=True, exist_ok=True)
            # Beside the target, on the same disk; whatever ends the process by an exception removes it.
            with TemporaryDirectory(prefix=f'.part-{name}-', dir=target.parent) as drafts:
                draft = Path(drafts, name)
                draft.mkdir()
                write(draft, num_train, num_val, size, seed)
                (draft / MARKER).write_text(json.dumps(arguments))
                if target.exists():
                    target.rename(Path(drafts, 'before'))
                draft.rename(target)
    except OSError as error:
        raise UsageError(
            f"cannot write '{target}' ({error.strerror or error}): make room, or choose another folder"
        ) from error
    return target
