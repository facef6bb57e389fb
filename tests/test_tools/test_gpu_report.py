"""The report of a GPU, on a machine without one: the same rows, small."""

import csv
import sys
import time

import pytest
import torch
from conftest import Tools

from benchmarks import gpu_parts, gpu_report

REPORT = (sys.executable, 'tools/gpu_report.py')


@pytest.mark.skipif(torch.cuda.is_available(), reason='the rows of a GPU take minutes')
def test_rows_and_page(tmp_path):
    table, page = tmp_path / 'cpu.csv', tmp_path / 'cpu.md'
    table.write_text('part,case,variant,metric,value,ratio,note,command,versions\nprofile,old,x,ms,1,,,c,v\n')
    out = Tools.run(*REPORT, '--only', 'windows', '--out', tmp_path)
    with open(table, newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row for row in rows if row['part'] == 'profile'] == rows[:1]  # that of another part is kept
    windows = rows[1:]
    assert {row['part'] for row in windows} == {'windows'}
    times = [row for row in windows if row['case'] == '9x17, forward + backward' and row['metric'] == 'ms']
    assert [row['variant'] for row in times] == ['global, flash', 'gather, kept', 'gather, again in backward']
    assert times[0]['ratio'] == '1.000' and all(float(row['value']) > 0 for row in times)
    assert all(row['command'] == 'python tools/gpu_report.py --only windows' for row in windows)
    assert f'torch {torch.__version__}' in windows[0]['versions']
    assert str(page) in out
    text = page.read_text()
    assert '| 9x17, forward | global, flash | ms |' in text
    assert 'Not measured: `python tools/gpu_report.py --only training`.' in text


def test_weights_from_a_file_are_those_of_timm():
    (row,) = gpu_parts._loaded_weights(torch.randn(1, 3, 64, 64), gpu_parts.Device('cpu', small=True))
    assert row.note == 'ok' and row.value < 1e-12


def test_use_of_the_gpu_is_that_of_the_second_half(tmp_path, monkeypatch):
    driver = tmp_path / 'nvidia-smi'
    # Which GPU it was asked for, and what it said of it.
    driver.write_text('#!/bin/sh\nprintf "%s\\n" $1 0 10 80 "[N/A]" 90; touch "$0.ran"; exec sleep 60\n')
    driver.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    with gpu_parts._gpu_use('GPU-1', tmp_path) as use:
        deadline = time.monotonic() + 60
        while not (tmp_path / 'nvidia-smi.ran').exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert use == [80, 90]
    assert (tmp_path / 'use').read_text().startswith('--id=GPU-1\n')


def test_a_part_without_its_packages_is_named(monkeypatch):
    for part in gpu_parts.PACKAGES:
        assert gpu_parts.missing_packages(part) == []
    monkeypatch.setattr(gpu_parts, 'find_spec', lambda name: None if name == 'mmdet' else name)
    assert gpu_parts.missing_packages('models') == ['mmdet']
    assert gpu_parts.missing_packages('paper') == []


def test_what_was_measured_of_a_part_that_is_skipped_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_report, 'missing_packages', lambda part: ['mmpretrain'])
    monkeypatch.setattr(sys, 'argv', ['gpu_report.py', '--only', 'paper', '--out', str(tmp_path)])
    name = torch.cuda.get_device_name().replace(' ', '-').lower() if torch.cuda.is_available() else 'cpu'
    table = tmp_path / f'{name}.csv'
    before = 'part,case,variant,metric,value,ratio,note,command,versions\npaper,old,x,ms,1,,,c,v\n'
    table.write_text(before)
    gpu_report.main()
    assert 'paper: skipped, mmpretrain is not installed' in capsys.readouterr().out
    assert table.read_text() == before


def test_rows_are_kept_until_they_are_measured_again(tmp_path, monkeypatch):
    """A run that is cut off replaces those that it came to; one that ends leaves no others of its part."""
    table = tmp_path / 'cpu.csv'

    def values():
        found = {}
        for row in gpu_report.read_rows(table):
            found[row['case']] = found.get(row['case'], '') + row['value']
        return found

    def measure(cases, value, fails=False):
        def part(device):
            for case in cases:
                yield gpu_parts.Row(case, 'timm', 'ms', value)
                if fails and case == cases[-1]:
                    raise MemoryError
                yield gpu_parts.Row(case, 'ours', 'ms', value)

        monkeypatch.setitem(gpu_report.PARTS, 'profile', part)
        return gpu_report.run_part('profile', gpu_parts.Device('cpu', small=True), table)

    table.write_text('part,case,variant,metric,value,ratio,note,command,versions\npaper,old,x,ms,1,,,c,v\n')
    assert measure(['a', 'b'], 1)
    with pytest.raises(MemoryError):
        measure(['a', 'c'], 2, fails=True)
    assert values() == {'old': '1', 'a': '22', 'b': '11', 'c': '2'}
    measure(['a', 'c'], 3)
    assert values() == {'old': '1', 'a': '33', 'c': '33'}


def test_a_part_that_takes_too_long_is_named(tmp_path):
    message = Tools.fail(*REPORT, '--only', 'profile', '--out', tmp_path, '--limit', 1)
    assert message == 'error: failed: profile; see above'
