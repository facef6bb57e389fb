"""Check that files and folders can be written, before anything is computed."""

import os
import tempfile
from pathlib import Path

from .errors import UsageError

# Bytes of the name of a file that a draft of it can have, too.
MAX_NAME = 240


def check_writable(folder: str | Path, option: str = '--work-dir') -> None:
    """Check that a folder can be written into, or created.

    Args:
        folder (str | Path): The folder.
        option (str): Option that sets it, for the error. Defaults to ``'--work-dir'``.

    Raises:
        UsageError: It cannot.
    """
    existing = Path(folder).absolute()
    try:
        while not existing.exists():  # names may be too long
            existing = existing.parent
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise UsageError(f"cannot write to '{folder}' ({error.strerror}): choose another {option}") from error


def check_target(path: str | Path, option: str) -> None:
    """Check that a file can be written.

    Args:
        path (str | Path): The file.
        option (str): The argument that sets it, for the error.

    Raises:
        UsageError: It is a folder, something else that is not a file, or in one that cannot be written to.
    """
    is_other = os.path.exists(path) and not os.path.isfile(path)
    if is_other or not Path(path).name or str(path).endswith(os.sep):
        raise UsageError(f"cannot write '{path}', which is not a file: choose another {option}")
    if len(os.fsencode(Path(path).name)) > MAX_NAME:
        raise UsageError(f"cannot write '{path}': choose a shorter {option}")
    check_writable(Path(path).parent, option)
