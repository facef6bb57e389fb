"""Start a tool on several processes and machines: torchrun with short errors."""

import argparse
import logging
import os
import re
import signal
import sys

import torch
from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run

from mmmeta.config.reading import check_config_exists
from mmmeta.utils.errors import UsageError, shorten
from mmmeta.utils.rendezvous import Meeting, check_port, number_from_environment

from .arguments import command_line


class _KillNote(logging.Handler):
    """Whether torchrun had to kill processes, which it says in its log alone."""

    has_killed = False

    def emit(self, record: logging.LogRecord) -> None:
        self.has_killed |= 'forcefully exiting' in str(record.msg)


def launch(tool: str, config: str, num_processes: int, arguments: list[str]) -> None:
    """Run a tool on ``num_processes`` processes of this machine, as one of ``NNODES`` machines.

    The environment may set ``NNODES`` (default 1), ``NODE_RANK`` (0), ``MASTER_ADDR`` (127.0.0.1) and
    ``PORT`` (any free one on a single machine, 29500 on several). Signals are passed on to the processes,
    which have ``STOP_TIMEOUT`` seconds (120) to write a checkpoint. Several machines wait for each other,
    ``RENDEZVOUS_TIMEOUT`` seconds (60) at most.

    Args:
        tool (str): Path of the tool.
        config (str): Path of the config.
        num_processes (int): Processes on this machine, one for each GPU where there are any.
        arguments (list[str]): Further arguments of the tool.

    Raises:
        UsageError: A value does not fit, the port is taken, a machine is missing, or processes were killed.
        SystemExit: A process failed; it has reported the reason.
    """
    timeout = number_from_environment('STOP_TIMEOUT', 120, 1)
    num_nodes, node_rank = number_from_environment('NNODES', 1, 1), number_from_environment('NODE_RANK', 0, 0)
    address = os.environ.get('MASTER_ADDR') or '127.0.0.1'
    port = number_from_environment('PORT', 0 if num_nodes == 1 else 29500, 0)
    if node_rank >= num_nodes:
        raise UsageError(f'NODE_RANK={node_rank}: the machines are counted from 0 to {num_nodes - 1}')
    check_config_exists(config)
    gpus = torch.cuda.device_count()
    if gpus and num_processes > gpus:
        raise UsageError(
            f'{num_processes} processes need as many GPUs, and this machine has {gpus}: start at most {gpus}'
        )
    if not gpus:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
        os.environ.setdefault('OMP_NUM_THREADS', str(max(1, cores // num_processes)))
    rendezvous = [f'--master_addr={address}', f'--master_port={port}']
    if port == 0:
        rendezvous = ['--standalone']
    elif num_nodes == 1:
        check_port(address, port, 'PORT')
    else:
        # Kept, since torchrun takes what listens on the port already, if this process started it.
        store = _meet(  # noqa: F841
            Meeting('machine', node_rank, num_nodes, address, port, ('MASTER_ADDR', 'PORT'), not node_rank)
        )
    command = [f'--nnodes={num_nodes}', f'--node_rank={node_rank}', f'--nproc_per_node={num_processes}']
    command += [*rendezvous, tool, config, '--launcher', 'pytorch', *arguments]
    parser = get_args_parser()
    options = dict(signals_to_handle='SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1', shutdown_timeout=timeout)
    known = {action.dest for action in parser._actions}  # older versions of PyTorch do not have them
    command = [f'--{name}={value}' for name, value in options.items() if name in known] + command
    # A failing process has reported the reason; torchrun would add a stack trace.
    logger, note = logging.getLogger('torch.distributed.elastic'), _KillNote()
    logger.handlers, logger.propagate = [note], False
    try:
        run(parser.parse_args(command))
    except SignalException as error:  # the processes have written a checkpoint
        if note.has_killed:
            name = signal.Signals(error.sigval).name
            raise UsageError(
                f'the processes did not end within STOP_TIMEOUT={timeout} seconds of {name} and were killed, '
                'without a checkpoint of what they had done since the last one'
            ) from None
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 128 and not os.path.isfile(failure.error_file):
            sys.exit(failure.exitcode)  # stopped by a signal, with a checkpoint
        if os.path.isfile(failure.error_file):
            print(f'error: {failure.message}', file=sys.stderr)
        elif failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(f'error: process {rank} was ended by {name}', file=sys.stderr)
        sys.exit(1)


def _meet(meeting: Meeting) -> TCPStore:
    """Wait until the launchers of all machines are there; the store in which they met."""
    meeting.connect()

    def judge(values: list[str]) -> str:
        counts = {value for value in values if value != values[0]}
        return f'NNODES={values[0]} on the first machine, {shorten(counts)} on another' if counts else ''

    taken = meeting.store.add(f'machine_{meeting.index}', 1) > 1
    if taken:
        raise UsageError(
            f'NODE_RANK={meeting.index} is that of another machine: give each its own, from 0 to '
            f'{meeting.count - 1}'
        )
    problem = meeting.agree('count', str(meeting.count), judge)
    if problem:
        raise UsageError(f'{problem}: give all machines the same')
    return meeting.store


def main() -> None:
    """Parse the command line of ``tools/dist_*.sh``."""
    parser = argparse.ArgumentParser(prog='dist_train.sh, dist_test.sh')
    parser.add_argument('tool')
    parser.add_argument('config', metavar='CONFIG')
    parser.add_argument('arguments', nargs=argparse.REMAINDER)
    parser.add_argument('--processes', required=True, metavar='GPUS')
    args = parser.parse_args()
    if not re.fullmatch(r'[1-9]\d*', args.processes):
        raise UsageError(f"GPUS='{args.processes}': give the number of processes, one for each GPU")
    launch(args.tool, args.config, int(args.processes), args.arguments)


if __name__ == '__main__':
    command_line(main)
