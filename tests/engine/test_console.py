"""What a run prints, and what its log file has."""

import io
import logging

import pytest

from mmmeta.engine.console import shorten_console

TABLE = """
+------+------+------+
| Class | IoU | Acc  |
+------+------+------+
| sky  | 10.0 | 20.0 |
| sea  |  0.0 | nan  |
| tree | nan  | nan  |
+------+------+------+"""


@pytest.fixture
def screen():
    return io.StringIO()


@pytest.fixture
def logger(tmp_path, screen):
    logger = logging.Logger('run')
    logger.addHandler(logging.StreamHandler(screen))
    logger.addHandler(logging.FileHandler(tmp_path / 'run.log'))
    shorten_console(logger)
    yield logger
    logger.handlers[1].close()


def test_long_and_repeated_messages_are_in_the_file_alone(logger, screen, tmp_path):
    logger.info('a loss')
    logger.info('Config:\n' + 'key = value\n' * 5)
    logger.info('paramwise_options -- stem.weight:lr=0.1')
    logger.warning('a\nlong\nwarning\nof\nsix\nlines')
    assert screen.getvalue() == 'a loss\na\nlong\nwarning\nof\nsix\nlines\n'
    text = (tmp_path / 'run.log').read_text()
    assert 'key = value' in text and 'paramwise_options' in text


def test_classes_that_do_not_occur_are_counted(logger, screen, tmp_path):
    logger.info(TABLE)
    lines = screen.getvalue().splitlines()
    assert '| tree | nan  | nan  |' not in lines
    assert '| sea  |  0.0 | nan  |' in lines  # it was predicted
    assert lines[-1] == '(1 classes that do not occur)'
    assert '| tree | nan  | nan  |' in (tmp_path / 'run.log').read_text()
