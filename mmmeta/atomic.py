"""Files that are complete or not there, also after a power cut."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Errors of writing that room on the disk, or a larger quota, would mend.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _sync_to_disk(path: str | Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(draft: str | Path, path: str | Path) -> None:
    """Give a file that was written under another name its own, once its content is on the disk.

    Args:
        draft (str | Path): The file, or a folder of files.
        path (str | Path): Its name, in the same folder.
    """
    for file in Path(draft).iterdir() if os.path.isdir(draft) else []:
        _sync_to_disk(file)
    _sync_to_disk(draft)
    os.replace(draft, path)
    with suppress(OSError):  # not every file system can do so for a folder
        _sync_to_disk(Path(path).absolute().parent)


@contextmanager
def written(path: str | Path) -> Iterator[Path]:
    """Write a file that appears under its name when it is complete.

    Args:
        path (str | Path): The file.

    Yields:
        Path: A draft to write to, with the same suffix: ``.part-a.png`` for ``a.png``. It is removed if
        writing fails.
    """
    path = Path(path)
    draft = path.with_name(f'.part-{path.name}')
    try:
        yield draft
        publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)
