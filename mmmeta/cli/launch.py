"""Start a tool on several processes and machines: torchrun with short errors."""

import argparse
import logging
import os
import re
import signal
import socket
import sys

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run

from mmmeta.config.reading import check_config_exists
from mmmeta.utils.errors import UsageError

from .arguments import command_line


def _number(name: str, default: int, minimum: int) -> int:
    """An integer from the environment."""
    value = os.environ.get(name) or str(default)
    if not re.fullmatch(r'\d+', value) or int(value) < minimum:
        raise UsageError(f"{name}='{value}': give an integer of at least {minimum}")
    return int(value)


def _check_port(address: str, port: int) -> None:
    """Check that this machine can listen on a port."""
    if not 0 < port < 65536:
        raise UsageError(f'PORT={port}: choose a port from 1 to 65535')
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(('', port))
        except OSError as error:
            raise UsageError(
                f'port {port} on {address} cannot be used ({error.strerror}): choose another one, '
                f'PORT={port + 1} for instance, or stop what uses it'
            ) from error


def launch(tool: str, config: str, num_processes: int, arguments: list[str]) -> None:
    """Run a tool on ``num_processes`` processes of this machine, as one of ``NNODES`` machines.

    The environment may set ``NNODES`` (default 1), ``NODE_RANK`` (0), ``MASTER_ADDR`` (127.0.0.1) and
    ``PORT`` (any free one on a single machine, 29500 on several). Signals are passed on to the processes,
    which have ``STOP_TIMEOUT`` seconds (120) to write a checkpoint.

    Args:
        tool (str): Path of the tool.
        config (str): Path of the config.
        num_processes (int): Processes on this machine, one for each GPU where there are any.
        arguments (list[str]): Further arguments of the tool.

    Raises:
        UsageError: A value does not fit, or the port is taken.
        SystemExit: A process failed; it has reported the reason.
    """
    timeout = _number('STOP_TIMEOUT', 120, 1)
    num_nodes, node_rank = _number('NNODES', 1, 1), _number('NODE_RANK', 0, 0)
    address = os.environ.get('MASTER_ADDR') or '127.0.0.1'
    port = _number('PORT', 0 if num_nodes == 1 else 29500, 0)
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
    elif node_rank == 0:
        _check_port(address, port)
    command = [f'--nnodes={num_nodes}', f'--node_rank={node_rank}', f'--nproc_per_node={num_processes}']
    command += [*rendezvous, tool, config, '--launcher', 'pytorch', *arguments]
    parser = get_args_parser()
    options = dict(signals_to_handle='SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1', shutdown_timeout=timeout)
    known = {action.dest for action in parser._actions}  # older versions of PyTorch do not have them
    command = [f'--{name}={value}' for name, value in options.items() if name in known] + command
    # A failing process has reported the reason; torchrun would add a stack trace.
    logging.getLogger('torch.distributed.elastic').setLevel(logging.CRITICAL)
    try:
        run(parser.parse_args(command))
    except SignalException as error:  # the processes have written a checkpoint
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
