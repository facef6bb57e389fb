"""What the command lines share."""

import argparse
import errno
import os
import sys
import weakref

import pytest
import torch.distributed as dist
from conftest import Tools
from torch import nn

from mmmeta.cli.arguments import add_config_options, command_line, count, positive, share


def parse(*texts):
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    return parser.parse_args(['--cfg-options', *texts]).cfg_options


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('(1,2),(3,4)', [(1, 2), (3, 4)]),
        ('[1,2],[3,4]', [[1, 2], [3, 4]]),
        ('[(1, 2), [a, b], c]', [(1, 2), ['a', 'b'], 'c']),
        ('1,2.5,true,None', [1, 2.5, True, None]),
        ('a,', ['a']),
        ('(1,)', (1,)),
        ('[]', []),
        ('()', ()),
        ('', ''),
        ('"[(a,b),(c,d)]"', [('a', 'b'), ('c', 'd')]),
        ('f(1,2),(3,4)', ['f(1,2)', (3, 4)]),
        ('(a)/photos(b)', '(a)/photos(b)'),
        ('"/data/photos (2024"', '/data/photos (2024'),
        ('(2024) photos', '(2024) photos'),
    ],
)
def test_values_of_options(text, value):
    assert parse(f'key={text}', 'other=3') == {'key': value, 'other': 3}


@pytest.mark.parametrize('text', ['[1', '((', '(1,2]', '1,2)', '(1,2),(3', '[(1],2)'])
def test_brackets_that_are_not_closed(text, capsys):
    with pytest.raises(SystemExit):
        parse(f'key={text}')
    assert f"'key={text}' has a bracket that is not closed, or not opened" in capsys.readouterr().err


def test_numbers_of_arguments():
    assert (positive('1'), count('0'), share('0.5')) == (1, 0, 0.5)
    for kind, text in ((positive, '0'), (positive, '9' * 400), (count, '-1'), (share, 'nan'), (share, 'x')):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not "):
            kind(text)


def test_a_tool_takes_its_process_group_apart(tmp_path):
    def main():
        dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
        wrapped = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
        wrapped.itself = [wrapped]  # as runners and their hooks hold each other
        models.append(weakref.ref(wrapped))

    models = []
    command_line(main)
    assert not dist.is_initialized()
    assert models[0]() is None


WITH_WORKERS = """
import sys

import torch.distributed as dist
from torch.utils.data import DataLoader

from mmmeta.cli.arguments import add_config_options, command_line, count, positive, share


def main():
    dist.init_process_group('gloo', init_method=f'file://{sys.argv[1]}', rank=0, world_size=1)
    loader = DataLoader([1], num_workers=2, persistent_workers=True)  # one of them has nothing to do
    assert [int(batch) for batch in loader] == [1]
    loader.itself = loader


command_line(main)
"""


def test_workers_of_data_loaders_end_before(tmp_path):
    (tmp_path / 'tool.py').write_text(WITH_WORKERS)
    # Not in a fork, in which workers would not be forked again.
    process = Tools.finish(sys.executable, 'tool.py', tmp_path / 'store', cwd=tmp_path, OMP_NUM_THREADS='1')
    assert (process.returncode, process.stderr) == (0, '')


def test_a_full_disk_is_one_sentence(monkeypatch, tmp_path, capsys):
    def main():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/runs/scalars.json')

    monkeypatch.delenv('TORCHELASTIC_ERROR_FILE', raising=False)
    with pytest.raises(SystemExit) as end:
        command_line(main)
    assert end.value.code == 1
    message = "cannot write '/runs/scalars.json' (No space left on device): make room, and run it again"
    assert capsys.readouterr().err == f'error: {message}\n'


def test_other_errors_of_files_keep_their_traceback():
    def main():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), '/runs/x')

    with pytest.raises(PermissionError):
        command_line(main)
