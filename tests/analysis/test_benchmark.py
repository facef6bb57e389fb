"""The benchmark's command line; what it measures depends on the machine."""

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT, Tools

from mmmeta.analysis.benchmark import build_features, time_alternating
from mmmeta.errors import UsageError

BENCHMARK = (sys.executable, 'tools/analysis_tools/benchmark.py')


def run(*arguments):
    command = [*BENCHMARK, *map(str, arguments), '--threads', '1']
    return subprocess.run(
        command, cwd=ROOT, env=Tools.environment(), capture_output=True, text=True, check=True
    ).stdout


def test_backbones_side_by_side():
    pytest.importorskip('timm', reason='timm is one of the two')
    models = ('timm/caformer_s18', 'caformer_s18,window=3')
    out = run('backbones', *models, '--shape', 64, 96, '--shape', 64, 64, '--repeats', 1)
    assert out.count('timm/caformer_s18') == 2
    medians = [float(x) for x in re.findall(r'caformer_s18\S* +([\d.]+)', out)]
    ratios = [float(x) for x in re.findall(r'([\d.]+)x\n', out)]
    assert ratios[::2] == [1.0, 1.0]
    assert ratios[1] == pytest.approx(medians[0] / medians[1], rel=0.1)


def test_training_and_a_file(tmp_path):
    path = tmp_path / 'times.json'
    arguments = ('--train', '--dtype', 'bfloat16', '--repeats', 1, '--json', path)
    out = run('backbones', 'caformer_s18', 'caformer_s18,with_cp=True', '--shape', 64, 64, *arguments)
    assert '1 x 64x64, cpu, 1 threads, bfloat16, training' in out
    plain, checkpointed = json.loads(path.read_text())
    assert plain['model'] == 'caformer_s18'
    assert checkpointed['bytes_kept'] < 0.5 * plain['bytes_kept']
    assert f' {plain["bytes_kept"] / 1e6:.0f}   1.00' in out


def test_windows_over_the_size_of_the_map():
    out = run('windows', '--sides', 16, 32, '--dim', 32, '--window', 5, '--largest-global', 16)
    rows = re.findall(r'(\d+)x\1 +(\w+) +[\d.]+ s +\d+ MiB +[\d.]+ s +\d+ MiB', out)
    assert rows == [('16', 'windowed'), ('16', 'global'), ('32', 'windowed')]


def test_functions_take_turns():
    calls = []
    timings = time_alternating([lambda: calls.append('a'), lambda: calls.append('b')], repeats=2, warmup=1)
    assert calls == ['a', 'b'] * 3
    assert all(timing.fastest <= timing.median <= timing.slowest for timing in timings)


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('caformer', "unknown backbone 'caformer': choose caformer_<arch>"),
        ('swin_t', "unknown backbone 'swin_t': choose caformer_<arch>"),
        ('caformer_s17', "unknown arch 's17' of CAFormer"),
        ('caformer_s18,window', 'arguments are Python values, such as window=13'),
        ('caformer_s18,windw=13', "unexpected keyword argument 'windw'"),
        ('timm/caformer_s81', "timm has no model 'caformer_s81'"),
        ('mmpretrain/poolformer', "MMPretrain has no model 'poolformer'"),
    ],
)
def test_a_backbone_that_is_none(spec, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        build_features(spec)
