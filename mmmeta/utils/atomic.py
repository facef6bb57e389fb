"""Files that are complete or not there, also after a power cut."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .errors import UsageError
from .processes import signals


class WriteError(OSError):
    """A file cannot be written; ``filename`` is its name."""


# Errors of writing that room on the disk, or a larger quota, would mend.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _sync_to_disk(path: str | Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == 'nt':  # which opens no folders, and syncs no file that is only read
        return
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
        path (str | Path): The file. Its folder is made if it is not there.

    Yields:
        Path: A draft to write to, with the same suffix: ``.part-a.png`` for ``a.png``. It is removed if
        writing fails.

    Raises:
        WriteError: It cannot be written.
    """
    path = Path(path)
    draft = path.with_name(f'.part-{path.name}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # of any folder above
        raise WriteError(error.errno, error.strerror, str(path)) from error
    try:
        yield draft
        publish(draft, path)
    except OSError as error:
        if error.filename not in (None, str(draft)):  # of another file
            raise
        raise WriteError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):  # a name that is too long
            draft.unlink(missing_ok=True)


@contextmanager
def ended_by_exception() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the process by ``SystemExit``, so that what was begun is removed."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = {number: signal.signal(number, leave) for number in signals('SIGTERM', 'SIGHUP')}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def written_together(texts: Mapping[Path, str]) -> Iterator[None]:
    """Write several files of which all stay, or none.

    Args:
        texts (Mapping[Path, str]): Their content. Files that are there are replaced, folders are made.

    Yields:
        None: With the files under their names. Where the block fails, or the process is ended by SIGINT,
        SIGTERM or SIGHUP, they are removed, and what was there before is there again.

    Raises:
        UsageError: There is no room, or files cannot be written there.
    """
    with ended_by_exception(), ExitStack() as undo:
        kept = {path: path.with_name(f'.kept-{os.getpid()}-{path.name}') for path in texts}

        def restore(path: Path) -> None:
            if os.path.lexists(kept[path]):
                os.replace(kept[path], path)

        for path, text in texts.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with written(path) as draft:
                    draft.write_text(text, encoding='utf-8')
                    if os.path.lexists(path):
                        undo.callback(restore, path)
                        os.replace(path, kept[path])
                    else:
                        undo.callback(path.unlink, missing_ok=True)
            except OSError as error:
                raise UsageError(
                    f"cannot write '{path}' ({error.strerror}): make room, or choose another place"
                ) from error
        yield
        undo.pop_all()
        for path in kept.values():
            path.unlink(missing_ok=True)
