"""Curves from logs, and logs that are none."""

import json
import sys

import pytest
from PIL import Image

from mmmeta.analysis.curves import plot_curves, read_curves
from mmmeta.utils.errors import UsageError


@pytest.fixture
def write(tmp_path):
    """Write what a run logs."""

    def write(run, stamp, *lines):
        path = tmp_path / run / stamp / 'vis_data/scalars.json'
        path.parent.mkdir(parents=True)
        path.write_text('\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        return tmp_path / run

    return write


def train(step, loss):
    return dict(lr=0.1, loss=loss, step=step)


def test_a_resumed_run_is_one_curve(write):
    write('a', '1', train(10, 3.0), train(20, 2.0), train(30, 1.5), dict(mIoU=5.0, step=30))
    run = write('a', '2', train(20, 2.1), train(40, 1.0))
    # What came after the checkpoint at 10 was done again.
    assert read_curves(run, ['loss']) == {'loss': [(10, 3.0), (20, 2.1), (40, 1.0)]}
    assert read_curves(run, ['mIoU', 'lr'])['mIoU'] == [(30, 5.0)]


def test_evaluations_of_epochs_stand_at_their_iterations(write):
    def val(epoch, value):
        return dict(mAP=value, time=9.0, step=epoch)

    lines = [dict(train(10, 3.0), time=0.1), val(1, 5.0), dict(train(20, 2.0), time=0.2), val(2, 6.0)]
    curves = read_curves(write('a', '1', *lines), ['mAP', 'time', 'loss'])
    assert curves['mAP'] == [(10, 5.0), (20, 6.0)]
    # An evaluation's time is no iteration's.
    assert curves['time'] == [(10, 0.1), (20, 0.2)]
    assert curves['loss'] == [(10, 3.0), (20, 2.0)]


def test_half_a_line_at_the_end_of_a_killed_run(write):
    run = write('a', '1', train(10, 3.0), '{"lr": 0.1, "lo')
    assert read_curves(run, ['loss']) == {'loss': [(10, 3.0)]}


class TestMistakes:
    def test_a_run_that_never_evaluated(self, write):
        run = write('a', '1', train(10, 3.0))
        with pytest.raises(UsageError) as error:
            read_curves(run, ['mIoU'])
        assert str(error.value) == (
            f"'{run}' has logged no 'mIoU', and was never evaluated: choose from lr, loss"
        )

    def test_a_name_that_was_not_logged(self, write):
        run = write('a', '1', train(10, 3.0), dict(mIoU=5.0, step=30))
        with pytest.raises(UsageError, match="has logged no 'AP': choose from lr, loss, mIoU"):
            read_curves(run, ['AP'])

    @pytest.mark.parametrize('content', ['no log\nat all\n', '[1]\n[2]', '\x00\x01}'])
    def test_no_log(self, tmp_path, content):
        path = tmp_path / 'log.txt'
        path.write_text(content)
        with pytest.raises(UsageError, match=f"'{path}' is not a log of a run: give a work directory"):
            read_curves(path, ['loss'])

    def test_no_run(self, tmp_path):
        with pytest.raises(UsageError, match=r'no log of a run in .*: looked for \*/vis_data/scalars.json'):
            read_curves(tmp_path, ['loss'])

    def test_a_picture_that_cannot_be_written(self, write, tmp_path):
        curves = {'a': read_curves(write('a', '1', train(10, 3.0)), ['loss'])}
        with pytest.raises(UsageError, match='give the path of a PNG, PDF or SVG file'):
            plot_curves(curves, tmp_path / 'a.doc')


def test_the_command_line(tools, write, tmp_path):
    runs = [write(name, '1', train(10, 3.0), train(20, loss)) for name, loss in (('a', 1.25), ('b', 2.0))]
    command = (sys.executable, 'tools/analysis_tools/analyze_logs.py', *runs, '--keys', 'loss', 'lr')
    out = tools.run(*command, '--out', tmp_path / 'curves.png', COLUMNS='300')
    assert [cell.strip() for cell in out.splitlines()[3].split('│')[2:-1]] == [
        'loss', '2', '3', '1.25', '1.25', '3', '20',
    ]  # fmt: skip
    with Image.open(tmp_path / 'curves.png') as picture:
        assert picture.size == (720, 840)
