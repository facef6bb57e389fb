"""Processes of a run before they are connected."""

import os

RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK', 'PMI_RANK')


def is_first_process() -> bool:
    """Return whether this is the first process, by what launchers set before there is a process group."""
    return int(next(filter(None, map(os.environ.get, RANKS)), 0)) == 0
