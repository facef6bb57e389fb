"""Arguments and error handling shared by the command-line tools."""

import argparse
import errno
import gc
import os
import re
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch.distributed as dist
from mmengine.config import DictAction
from rich import progress
from rich.console import Console
from rich.table import Table

from mmmeta.config.values import COUNT, POSITIVE, SHARE, Range
from mmmeta.runtime.run import RuntimeProblem
from mmmeta.utils.atomic import NO_ROOM, WriteError
from mmmeta.utils.errors import UsageError
from mmmeta.utils.processes import kill_workers, note_end, report_error
from mmmeta.utils.resources import resource_root
from mmmeta.utils.stack import StackError
from mmmeta.utils.torch_private import stop_data_workers

# Said of backbones that are put into configs.
BACKBONE_HELP = 'such as caformer_s36, caformer_s18,window=13 or mmmeta://caformer_s18_in21ft1k'
# Columns where there is no terminal.
WIDTH = 250
# Beginnings of what the packages below warn of at every start, on every process, whatever the config; nobody
# who uses them can act on it. setuptools is held to versions that have pkg_resources.
STACK_WARNINGS = (
    'pkg_resources is deprecated',
    '``build_loss`` would be deprecated',
    'Default ``avg_non_ignore`` is False',
    '`reduce_zero_label` will be deprecated',
    'The draw is False',
    'For binary segmentation, we suggest using',
    'Setting OMP_NUM_THREADS environment variable',
    'Setting MKL_NUM_THREADS environment variable',
)


def command_line(main: Callable[[], None]) -> None:
    """Run the main function of a tool; a usage error is reported in one line, with exit status 1.

    So is a file that cannot be written, or a disk that is full. Under torchrun the message is passed to the
    launcher, which prints it once.
    """
    for beginning in () if '--verbose' in sys.argv else STACK_WARNINGS:
        warnings.filterwarnings('ignore', re.escape(beginning), UserWarning)
    try:
        main()
        _leave_group()
        note_end('finished')
    except SystemExit:  # stopped by a signal
        _leave_group()
        raise
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (UsageError, StackError, RuntimeProblem, OSError) as error:
        message = str(error)
        if isinstance(error, OSError):
            if not isinstance(error, WriteError) and error.errno not in (*NO_ROOM, errno.EROFS):
                raise
            what = f"'{error.filename}'" if error.filename else 'a file'
            remedy = 'make room, and run it again' if error.errno in NO_ROOM else 'choose another place'
            message = f'cannot write {what} ({error.strerror}): {remedy}'
        if '--debug' in sys.argv:
            traceback.print_exc()
        report_error(message)
        sys.exit(1)
    finally:
        kill_workers()


def _leave_group() -> None:
    """End data workers and destroy the process group, if there is one, before the interpreter shuts down.

    Otherwise a thread of Gloo may release its last work object after the shutdown, which
    aborts a process that has finished.
    """
    stop_data_workers()  # otherwise by a signal, at which PyTorch raises
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # a model wrapped for several processes holds the group as well
        dist.destroy_process_group()


def tool_path(name: str) -> str:
    """The path of a tool for a command line, as short as it can be from where one is.

    Args:
        name (str): Such as ``'train.py'``.
    """
    path = resource_root() / 'tools' / name
    return shlex.quote(os.path.relpath(path) if path.is_relative_to(os.getcwd()) else str(path))


def track(what: str, values: Iterable, count: int | None = None) -> Iterator:
    """Go through values, with a bar on a terminal.

    Args:
        what (str): Title of the bar.
        values (Iterable): The values.
        count (int | None): How many there are. Defaults to None: their length.
    """
    console = Console(stderr=True)
    return iter(progress.track(values, what, count, console=console, disable=not console.is_terminal))


def print_table(table: Table) -> None:
    """Print a table of which no name is cut: the first column is as wide as it has to be, others are folded.

    Args:
        table (Table): The table.
    """
    for i, column in enumerate(table.columns):
        column.no_wrap, column.overflow = i == 0, 'fold'
        if i == 0:
            column.min_width = max(map(len, (str(column.header), *map(str, column.cells))))
    # A file or another command gets lines that are as long as they are.
    narrow = sys.stdout.isatty() or 'COLUMNS' in os.environ
    Console(width=None if narrow else WIDTH).print(table)


def positive(text: str) -> int:
    """An integer of at least 1, for ``type`` of an argument."""
    return int(_number(text, POSITIVE))


def count(text: str) -> int:
    """An integer of at least 0, for ``type`` of an argument."""
    return int(_number(text, COUNT))


def share(text: str) -> float:
    """A number from 0 to 1, for ``type`` of an argument."""
    return _number(text, SHARE)


def _number(text: str, allowed: Range) -> float:
    with suppress(ValueError):
        value = allowed.kind(text)
        if allowed.has(value):
            return value
    raise argparse.ArgumentTypeError(f"'{text}' is not {allowed}")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing have in common."""
    parser.add_argument('--work-dir', help='folder for logs and results (default: work_dirs/<config name>)')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='read the checkpoint even if it executes code, as those written by MMEngine do',
    )
    add_config_options(parser)
    parser.add_argument(
        '--no-checks', action='store_true', help='train or test even if the config looks wrong'
    )
    parser.add_argument(
        '--verbose', action='store_true', help='print all that the log file has: config, environment, hooks'
    )
    parser.add_argument('--debug', action='store_true', help='print the traceback behind an error as well')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')


class _ParseOptions(DictAction):
    """Parse ``KEY=VALUE`` pairs as MMEngine does, also with brackets that do not enclose the whole value."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        for text in values:
            key, equals, _ = text.partition('=')
            if not key or not equals:
                parser.error(f"{option_string}: '{text}' is not KEY=VALUE, such as model.backbone.arch=s36")
            try:
                super().__call__(parser, namespace, [text], option_string)
            except ValueError:
                parser.error(f"{option_string}: '{text}' has a bracket that is not closed, or not opened")

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        """Parse a value; MMEngine's own removes spaces from names, and does not end for ``(1,2),(3,4)``.

        Raises:
            ValueError: It begins with a bracket that is not closed, or ends before another one is.
        """
        text = val.strip('\'" ')
        parts, is_closed = _split(text)
        has_bracket = text.startswith(('(', '['))
        if (has_bracket or len(parts) > 1) and not is_closed:
            raise ValueError(f"'{text}' has a bracket that is not closed, or not opened")
        inside, is_enclosed = _split(text[1:-1])
        is_enclosed &= has_bracket and len(parts) == 1
        if not is_enclosed and len(parts) == 1:
            return DictAction._parse_int_float_bool(text)
        parts = inside if is_enclosed else parts
        values = [
            _ParseOptions._parse_iterable(part) for part in (parts if parts[-1].strip() else parts[:-1])
        ]
        return tuple(values) if is_enclosed and text[0] == '(' else values


def _split(text: str) -> tuple[list[str], bool]:
    """Split a text at the commas outside of brackets, and return whether all brackets are closed."""
    parts, closing, is_closed = [''], [], True
    for character in text:
        if character in '([':
            closing.append(')' if character == '(' else ']')
        elif character in ')]':
            is_closed &= bool(closing) and closing.pop() == character
        if character == ',' and not closing:
            parts.append('')
        else:
            parts[-1] += character
    return parts, is_closed and not closing


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_ParseOptions,
        metavar='KEY=VALUE',
        help='replace values of the config, such as train_dataloader.batch_size=4 or key="[(a,b),(c,d)]"',
    )


def add_backbone(parser: argparse.ArgumentParser) -> None:
    """Add ``--backbone``."""
    parser.add_argument(
        '--backbone',
        metavar='NAME',
        help=f'put a MetaFormer into the config first, as python -m mmmeta swap does: {BACKBONE_HELP}',
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of tools that run a network on pictures."""
    parser.add_argument('image', help='an image, or a folder of images')
    parser.add_argument('model', help='name in the zoo, such as caformer_s18, or a config')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help="path, URL, timm://MODEL or mmmeta://NAME, or 'none' for the network before training (default: "
        'that of the zoo)',
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1, ... (default: cpu)')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='read the checkpoint even if it executes code'
    )
    add_config_options(parser)
