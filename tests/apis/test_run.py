"""What happens beside a run."""

import errno
import logging
import os
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from mmmeta.apis.run import _end_without_a_log, _trusted


def test_a_log_that_cannot_be_written_ends_the_run(tmp_path, capsys):
    """Python would go on, and print a traceback for each line."""

    class Full:
        def write(self, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    handler = logging.FileHandler(tmp_path / 'run.log')
    logger = logging.Logger('run')
    logger.addHandler(handler)
    hooks = []
    _end_without_a_log(SimpleNamespace(logger=logger, hooks=hooks))
    logger.info('a line')
    stream, handler.stream = handler.stream, Full()
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/run.log'"):
        logger.info('another line')
    hooks.append(SimpleNamespace(wait_for_room=60))
    logger.info('a line that is left out')
    handler.stream = stream
    # A mistake in a call of the logger is still Python's to report.
    logger.info('%d', 'no number')
    assert 'TypeError: %d format: a real number is required, not str' in capsys.readouterr().err
    handler.close()


@pytest.mark.parametrize(
    ('cfg', 'expected'),
    [
        (dict(load_from=None), ['pretrained.pth']),
        (dict(load_from='named.pth'), ['named.pth']),
        (dict(load_from='named.pth', resume=False), ['named.pth']),
        (dict(load_from='last.pth', resume=True), ['last.pth', 'pretrained.pth']),
    ],
)
def test_what_is_trusted_is_the_checkpoint_that_is_named(cfg, expected):
    assert _trusted(Config(cfg), ['pretrained.pth']) == expected
