"""What a run prints, while its log file has everything."""

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from mmmeta.utils.errors import counted

# Longest message that is printed whole, in lines; configs, environments and lists of hooks are longer.
MAX_LINES = 4
# Beginnings of messages of which there is one for each parameter, or that come at every start, whatever the
# config, so that nobody can act on them.
IN_THE_LOG = (
    'paramwise_options',
    'Distributed training is not used, all SyncBatchNorm',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'The prefix is not set in metric class',
    'Checkpoints will be saved to',
    'Exp name:',
    'added to this config:',
    'added by mmmeta.Runner:',
    'per class results:',
    'Evaluating ',
    'bbox_mAP_copypaste:',
    'segm_mAP_copypaste:',
)
# Beginnings of lines that packages print past every log.
PRINTED = (
    'loading annotations into memory...',
    'Done (t=',
    'creating index...',
    'index created!',
    'Loading and preparing results...',
    'DONE (t=',
    'Running per image evaluation...',
    'Evaluate annotation type ',
    'Accumulating evaluation results...',
    'Loads checkpoint by ',
)
# Progress of an evaluation, which is printed after so many seconds without another line.
PROGRESS = re.compile(r'(Epoch|Iter)\((val|test)\).*\beta: ')
SILENCE = 10
# The AP of a class, which the table has as well, and one of objects of a size that nothing has.
CLASS_AP = re.compile(r'  coco/(?!(?:bbox|segm)_)[^:]*_precision: \S+')
NO_OBJECTS = 'coco/.*: -1.0000'
SAVING = re.compile(r'Saving checkpoint at (\d+) (epoch|iteration)s')


def _is_table(text: str) -> bool:
    return '+---' in text and '|' in text


class _ShortFilter(logging.Filter):
    """Keep long, repeated and useless messages from the screen; tables and other warnings stay."""

    def __init__(self) -> None:
        super().__init__()
        self._last = time.monotonic()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        is_short = record.levelno > logging.INFO or _is_table(text) or text.count('\n') < MAX_LINES
        waits = PROGRESS.match(text) and time.monotonic() - self._last < SILENCE
        if not is_short or waits or text.startswith(IN_THE_LOG):
            return False
        self._last = time.monotonic()
        return True


class _ShortFormatter(logging.Formatter):
    """Leave out rows of a table of classes that do not occur, which have no numbers, and what is said twice.

    Args:
        formatter (logging.Formatter): What formats otherwise.
    """

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        text = self._formatter.format(record)
        if not _is_table(text):
            text = SAVING.sub(
                lambda match: f'saving a checkpoint after {counted(int(match[1]), match[2])}', text
            )
            text = CLASS_AP.sub('', text)
            is_empty = re.search(NO_OBJECTS, text)
            return f'{text.rstrip()}  (-1: there are no objects of this size)' if is_empty else text
        lines = text.split('\n')
        kept = [line for line in lines if not _is_row_without_numbers(line)]
        left_out = len(lines) - len(kept)
        return '\n'.join([*kept, f'(classes that do not occur: {left_out})'] if left_out else kept)


def _is_row_without_numbers(line: str) -> bool:
    cells = {cell.strip() for cell in line.split('|')[2:-1]}
    return 'nan' in cells and cells <= {'nan', '0'}


def shorten_console(logger: logging.Logger) -> None:
    """Print what changes from line to line alone: no config, environment, hooks and settings of parameters.

    Args:
        logger (logging.Logger): A logger; its handlers of files are left as they are.
    """
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.addFilter(_ShortFilter())
            handler.setFormatter(_ShortFormatter(handler.formatter or logging.Formatter()))


def log_files(logger: logging.Logger) -> list[logging.FileHandler]:
    """Return the handlers of a logger that write files."""
    return [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]


class _Output:
    """Standard output without the lines of ``PRINTED``.

    Args:
        stream (TextIO): Where everything else goes.
        report (callable): Called with each line that is left out.
    """

    def __init__(self, stream: TextIO, report: Callable[[str], None]) -> None:
        self._stream, self._report, self._line = stream, report, ''

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or hold back what may become a line that is left out."""
        for piece in text.splitlines(keepends=True):
            self._line += piece
            if self._line.startswith(PRINTED):
                if piece.endswith('\n'):
                    line, self._line = self._line.rstrip(), ''
                    self._report(line)
            elif piece.endswith('\n') or not any(line.startswith(self._line) for line in PRINTED):
                self._stream.write(self._line)
                self._line = ''
        return len(text)

    def release(self) -> None:
        """Write what is held back."""
        line, self._line = self._line, ''
        self._stream.write(line)


@contextmanager
def quiet_packages(report: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Leave out what packages print at every start, whatever the data.

    Args:
        report (callable): Called with each line that is left out. Defaults to nothing.
    """
    output = _Output(sys.stdout, report)
    with redirect_stdout(output):
        try:
            yield
        finally:
            output.release()
