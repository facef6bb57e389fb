"""Processes of a run: which is the first, how they end, and what the system offers them."""

import json
import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK', 'PMI_RANK')
# Variable with the path of a file for how a run ended. An exit status does not say it: what a crash leaves is
# ended by SIGTERM as well.
END_FILE = 'MMMETA_END_FILE'


def is_first_process() -> bool:
    """Return whether this is the first process, by what launchers set before there is a process group."""
    return int(next(filter(None, map(os.environ.get, RANKS)), 0)) == 0


def note_end(text: str) -> None:
    """Note how a run ended, where the script that started it wants to know.

    Args:
        text (str): It begins with ``finished``, or with ``stopped`` if a signal ended the run and everything
            that it had done is in a checkpoint.
    """
    path = os.environ.get(END_FILE)
    if path and is_first_process():
        with suppress(OSError):  # the script reports that it found nothing
            Path(path).write_text(f'{text}\n')


def report_error(message: str) -> None:
    """Print the error that ends this process, or leave it to the launcher, which prints it once."""
    path = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if not path:
        print(f'error: {message}', file=sys.stderr, flush=True)
        return
    with open(path, 'w') as file:
        json.dump({'message': message, 'timestamp': int(time.time())}, file)


def signals(*names: str) -> tuple[signal.Signals, ...]:
    """Return the signals of these names that the system has; Windows lacks SIGHUP and SIGUSR1."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def kill_workers() -> None:
    """Kill the daemonic processes that this one started, such as data workers, which keep nothing.

    Python would end them by SIGTERM and wait; data workers live through the first one. PyTorch, which raises
    where one of its workers is killed, no longer listens.
    """
    workers = [process for process in multiprocessing.active_children() if process.daemon]
    for number in signals('SIGCHLD') if workers else ():
        signal.signal(number, signal.SIG_DFL)
    for process in workers:
        process.kill()


def physical_memory() -> int | None:
    """Return the bytes of memory of this machine; None where the system does not report them by POSIX."""
    if not hasattr(os, 'sysconf'):
        return None
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
