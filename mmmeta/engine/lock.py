"""One training run in a work directory at a time."""

import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mmmeta.utils.errors import UsageError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]  # Windows

LOCK = '.lock'
# Seconds without a sign of life after which the lock of another machine may be taken.
MAX_AGE = 3600
# A job that was requeued waits for the one before it to end.
REQUEUE_WAIT = 60


@contextmanager
def locked(folder: str | Path) -> Iterator[Path]:
    """Hold the lock of a work directory; the kernel releases it when the process dies.

    Args:
        folder (str | Path): The work directory; it is created.

    Yields:
        Path: The file, whose time of change is the run's last sign of life: see
        :class:`~mmmeta.engine.SignOfLifeHook`.

    Raises:
        UsageError: Another run holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    if fcntl is None:
        warnings.warn(f"'{path}' cannot be locked on this system: nothing keeps a second run away")
        path.touch()
        yield path
        path.unlink(missing_ok=True)
        return
    deadline = time.monotonic() + (REQUEUE_WAIT if os.environ.get('SLURM_RESTART_COUNT') else 0)
    while (file := _try_lock(path)) is None:
        holder, age = _holder(path)
        elsewhere = holder.get('host') != socket.gethostname()
        if elsewhere and age > MAX_AGE:
            # Its machine may have died with the lock, which a file system may keep: a new file, a new lock.
            path.unlink(missing_ok=True)
            continue
        if time.monotonic() < deadline:
            time.sleep(1)
            continue
        hint = f', or wait until it has been silent for {MAX_AGE // 60} minutes' if elsewhere else ''
        started = _minutes(time.time() - holder.get('started', time.time()))
        raise UsageError(
            f"another run is training in '{folder}': process {holder.get('process', '?')} on "
            f'{holder.get("host", "?")}, started {started} ago, last heard of {_minutes(age)} ago. Choose '
            f'another --work-dir, or end it{hint}'
        )
    with file:
        file.truncate(0)
        json.dump(dict(host=socket.gethostname(), process=os.getpid(), started=time.time()), file)
        file.flush()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _try_lock(path: Path) -> TextIO | None:
    """The locked file, or None."""
    file = open(path, 'a+')  # noqa: SIM115
    try:
        # Of the process, not of the open file, which data workers inherit and may survive it with.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        return None
    except OSError as error:
        warnings.warn(f"'{path}' cannot be locked ({error.strerror}): nothing keeps a second run away")
        return file
    # Whoever held it may have removed it in between.
    if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
        return file
    file.close()
    return _try_lock(path)


def _holder(path: Path) -> tuple[dict, float]:
    """Who holds a lock, and seconds since its last sign of life."""
    try:
        return json.loads(path.read_text() or '{}'), time.time() - path.stat().st_mtime
    except (OSError, ValueError):  # between opening and writing
        return {}, 0.0


def _minutes(seconds: float) -> str:
    return f'{seconds:.0f} s' if seconds < 120 else f'{seconds / 60:.0f} min'
