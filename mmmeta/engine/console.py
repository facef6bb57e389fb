"""What a run prints, while its log file has everything."""

import logging

# Longest message that is printed whole, in lines; configs, environments and lists of hooks are longer.
MAX_LINES = 4
# Lines of which there is one for each parameter.
REPEATED = ('paramwise_options',)


def _is_table(text: str) -> bool:
    return '+---' in text and '|' in text


class _ShortFilter(logging.Filter):
    """Keep long and repeated messages from the screen; tables and warnings stay."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if record.levelno > logging.INFO or _is_table(text):
            return True
        return text.count('\n') < MAX_LINES and not text.startswith(REPEATED)


class _ShortFormatter(logging.Formatter):
    """Leave out rows of a table of classes that do not occur, which have no numbers.

    Args:
        formatter (logging.Formatter): What formats otherwise.
    """

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        text = self._formatter.format(record)
        if not _is_table(text):
            return text
        lines = text.split('\n')
        kept = [line for line in lines if {cell.strip() for cell in line.split('|')[2:-1]} != {'nan'}]
        left_out = len(lines) - len(kept)
        return '\n'.join([*kept, f'({left_out} classes that do not occur)'] if left_out else kept)


def shorten_console(logger: logging.Logger) -> None:
    """Print what changes from line to line alone: no config, environment, hooks and settings of parameters.

    Args:
        logger (logging.Logger): A logger; its handlers of files are left as they are.
    """
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.addFilter(_ShortFilter())
            handler.setFormatter(_ShortFormatter(handler.formatter or logging.Formatter()))
