"""What a run prints, and what its log file has."""

import io
import logging
import sys

import pytest

from mmmeta.engine.console import quiet_packages, shorten_console

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
    assert lines[-1] == '(classes that do not occur: 1)'
    assert '| tree | nan  | nan  |' in (tmp_path / 'run.log').read_text()


def test_what_nobody_can_act_on_is_in_the_file_alone(logger, screen, tmp_path):
    logger.warning('"FileClient" will be deprecated in future.')
    logger.info('Distributed training is not used, all SyncBatchNorm (SyncBN) layers are reverted')
    logger.warning('The prefix is not set in metric class IoUMetric.')
    logger.warning('the images are far from mean and std')
    assert screen.getvalue() == 'the images are far from mean and std\n'
    assert len((tmp_path / 'run.log').read_text().splitlines()) == 4


def test_an_evaluation_is_silent_for_seconds_and_not_for_minutes(logger, screen, monkeypatch):
    logger.info('Epoch(val) [1][ 1/12]    eta: 0:00:09  time: 0.9')
    monkeypatch.setattr('mmmeta.engine.console.SILENCE', 0)
    logger.info('Epoch(val) [1][ 2/12]    eta: 0:00:09  time: 0.9')
    logger.info('Epoch(val) [1][12/12]    coco/bbox_mAP: 0.5')
    assert [line[:21] for line in screen.getvalue().splitlines()] == [
        'Epoch(val) [1][ 2/12]',
        'Epoch(val) [1][12/12]',
    ]


def test_metrics_are_printed_once_and_absent_sizes_are_explained(logger, screen, tmp_path):
    line = 'Epoch(val)  coco/traffic light_precision: 0.1  coco/bbox_mAP: 0.1000  coco/bbox_mAP_l: -1.0000'
    logger.info(line)
    logger.info('Saving checkpoint at 1 epochs')
    printed, saving = screen.getvalue().splitlines()
    assert printed == (
        'Epoch(val)  coco/bbox_mAP: 0.1000  coco/bbox_mAP_l: -1.0000  (-1: there are no objects of this size)'
    )
    assert saving == 'saving a checkpoint after 1 epoch'
    assert line in (tmp_path / 'run.log').read_text()


def test_lines_of_packages_are_reported_and_others_printed(capsys):
    reported = []
    with quiet_packages(reported.append):
        print('loading annotations into memory...')
        print('Done (t=0.01s)')
        print('Done, and now something else')
        print('50 %', end='\r')
        sys.stdout.write('D')  # which may become a line that is left out
    assert capsys.readouterr().out == 'Done, and now something else\n50 %\rD'
    assert reported == ['loading annotations into memory...', 'Done (t=0.01s)']
