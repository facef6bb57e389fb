"""How a generated data set comes to its place: whole, once, and over nothing of the user's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from mmmeta.errors import UsageError

MARKER = 'generated.json'


def write_once(
    target: Path, arguments: dict[str, int], write: Callable[[Path], None], progress: Callable[[str], None]
) -> Path:
    """Write a generated data set, unless it is there.

    A data set that is there already, complete and made from the same arguments, is left as it is; one that
    was interrupted is never seen under its name.

    Args:
        target (Path): Folder of the data set.
        arguments (dict[str, int]): What it is made from: ``num_train``, ``num_val``, ``size`` and others.
        write (callable): Writes it into the folder that it is given.
        progress (callable): Is told what is done.

    Returns:
        Path: ``target``.

    Raises:
        UsageError: A number is too small, or something else stands at that place.
    """
    num_train, num_val, size = (arguments[key] for key in ('num_train', 'num_val', 'size'))
    if num_train < 1 or num_val < 1 or size < 64:
        raise UsageError(
            f'num_train={num_train}, num_val={num_val}, size={size}: give at least one image of each kind, '
            'and at least 64 pixels'
        )
    if target.exists():
        marker = target / MARKER
        if not marker.is_file():
            raise UsageError(f"'{target}' exists and was not generated: choose another folder")
        if json.loads(marker.read_text()) == arguments:
            return target
    progress(f'generating {num_train} + {num_val} images in {target}')
    draft = target.with_name(f'{target.name}.part')
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    write(draft)
    (draft / MARKER).write_text(json.dumps(arguments))
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    return target
