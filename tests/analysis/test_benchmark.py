"""The benchmark's command line; what it measures depends on the machine."""

import json
import re
import sys

import pytest
import torch
from conftest import Tools
from PIL import Image
from timm_peer import build, load_from_timm, randomise, relative_error

from mmmeta.analysis.benchmark import activations, build_config, run_config, time_alternating
from mmmeta.analysis.paper_tables import load_paper_table
from mmmeta.config.backbones import build_backbone
from mmmeta.config.loading import load_config
from mmmeta.utils.errors import UsageError

BENCHMARK = (sys.executable, 'tools/analysis_tools/benchmark.py')


def run(*arguments):
    return Tools.run(*BENCHMARK, *arguments, '--threads', 1)


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
    assert '1 x 64x64, bfloat16, training, cpu, 1 threads' in out
    plain, checkpointed = json.loads(path.read_text())
    assert plain['model'] == 'caformer_s18'
    assert checkpointed['bytes_kept'] < 0.5 * plain['bytes_kept']
    assert f' {plain["bytes_kept"] / 1e6:.0f}   1.00' in out


def test_accuracy_over_speed_and_peak_memory(tmp_path):
    plot, path = tmp_path / 'figure.png', tmp_path / 'times.json'
    models = ("convformer_s18,act='GELU'", 'poolformer_s12')
    arguments = (
        '--shape',
        64,
        64,
        '--repeats',
        1,
        '--peak',
        '--channels-last',
        '--plot',
        plot,
        '--json',
        path,
    )
    out = run('backbones', *models, *arguments)
    assert '1 x 64x64, float32, inference, channels last, cpu' in out
    assert [record['model'] for record in json.loads(path.read_text())] == list(models)
    assert all(record['bytes_peak'] >= 0 for record in json.loads(path.read_text()))
    assert Image.open(plot).size == (840, 600)


def test_a_backbone_of_mmpretrain():
    pytest.importorskip('mmpretrain', reason='it is one of the two')
    theirs = 'mmpretrain/poolformer-s12_3rdparty_32xb128_in1k'
    out = run('backbones', theirs, 'poolformer_s12', '--shape', 64, 64, '--repeats', 1, '--train')
    assert re.search(rf'{theirs} .* 1\.00x .*\npoolformer_s12 ', out)


def test_whole_models():
    pytest.importorskip('mmdet', reason='one of them is a detector')
    pytest.importorskip('mmseg', reason='one of them is a segmentor')
    configs = ('tests/data/tiny_upernet.py', 'tests/data/tiny_mask_rcnn.py')
    out = run('models', *configs, '--shape', 64, 64, '--repeats', 1)
    assert re.search(rf'{configs[0]} .* 1\.00x\n{configs[1]} ', out)


def test_all_detectors_look_at_the_same_regions():
    pytest.importorskip('mmdet', reason='they are of MMDetection')
    regions = []
    for _ in range(2):  # with other weights each time
        model = build_config(load_config('tests/data/tiny_mask_rcnn.py'))
        extractor = model.roi_head.bbox_roi_extractor
        extractor.register_forward_pre_hook(lambda module, args: regions.append((module, args[1])))
        run_config(model, torch.randn(1, 3, 512, 512))
    (extractor, first), (_, second) = regions
    assert torch.equal(first, second)
    # As those of a trained model they are of all sizes.
    levels = extractor.map_roi_levels(first, extractor.num_inputs)
    assert (levels.bincount()[:3] >= 10).all()


def test_a_model_of_another_package():
    pytest.importorskip('mmseg', reason='it ships the config')
    cfg = load_config('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py')
    assert cfg.model.decode_head.type == 'FCNHead'
    with pytest.raises(UsageError, match=re.escape("there is no config '")):
        load_config('mmseg::fcn/none.py')
    with pytest.raises(UsageError, match='the package before :: must be one of mmmeta, mmdet, '):
        load_config('timm::resnet50')


@pytest.mark.parametrize('train', [(), ('--train',)])
def test_activations(train):
    out = run('activations', *train, '--shape', 1, 3_000_000, '--shape', 2, 4, 2048, 1024, '--repeats', 1)
    task = 'training' if train else 'inference'
    assert f'1x3000000, 3 calls, float32, {task}' in out
    assert f'2x4x2048x1024, 1 calls, float32, {task}' in out
    assert out.count('StarReLU (ours) ') == 2


def test_a_table_of_activations_beside_the_papers():
    out = run('paper', 'XI', '--repeats', 1)
    assert re.search(r'GELU \(PyTorch\) .* 1\.00x +145067 +1\.00x\n', out)
    assert re.search(r'StarReLU \(formula\) .*x +35257 +0\.24x\nStarReLU \(ours\) .*x\n$', out)


def test_a_table_of_classifiers_beside_the_papers(tmp_path):
    pytest.importorskip('mmpretrain', reason='it ships one of the two')
    path = tmp_path / 'times.json'
    models = ('--models', 'convformer_s18', 'swin_t')
    out = run('paper', 'XII', *models, '--batch', 1, '--repeats', 1, '--json', path)
    assert '1 x 224x224, tf32, Table XII, cpu' in out
    assert re.search(r'swin_t .* 1\.00x +1768 +1\.00x\nconvformer_s18 .*x +2213 +1\.25x\n', out)
    assert [record['printed_per_second'] for record in json.loads(path.read_text())] == [1768, 2213]


@pytest.mark.parametrize(
    ('table', 'package', 'count', 'nowhere'),
    [
        ('IX', 'mmdet', 16, ['swin_t', 'swin_s', 'swin_b', 'convnext_b']),
        ('X', 'mmseg', 12, []),
        ('XII', 'mmpretrain', 18, []),
    ],
)
def test_every_model_of_a_table_has_a_config(table, package, count, nowhere):
    pytest.importorskip(package, reason='it ships some of them')
    timm = pytest.importorskip('timm', reason='it has the rest')
    rows = [row for row in load_paper_table('speed') if row['source'] == f'Table {table}']
    assert len(rows) == count
    assert [row['model'] for row in rows if not row['config']] == [f'cascade_mask_rcnn_{n}' for n in nowhere]
    for row in rows:
        config, options = row['config'], json.loads(row['options'] or '{}')
        if config.startswith('timm::'):
            assert timm.is_model(config.removeprefix('timm::'))
        elif config:
            arch = load_config(config, options).model.backbone.get('arch')
            assert table != 'XII' or 'former' not in row['model'] or arch.act == 'GELU'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['paper', 'XII', '--models', 'swin_x'],
            "Table XII has no 'swin_x': choose from swin_t, convnext_t, ",
        ),
        (
            ['paper', 'XI', '--batch', 2],
            'Table XI has activations on a tensor of 1x1M: leave out --models, --batch and --dtype',
        ),
        (['backbones', 'convformer_s18', '--compile', '--peak'], 'not compiled: leave out --compile'),
    ],
)
def test_asked_for_wrongly(arguments, message):
    assert message in Tools.fail(*BENCHMARK, *arguments)


def test_the_activations_are_what_they_are_called():
    x = torch.randn(1000)
    gelu, formula, plain, ours = (function(x) for function in activations().values())
    assert torch.allclose(gelu, formula, atol=1e-6)
    assert torch.allclose(plain, ours, atol=1e-6)


@pytest.mark.parametrize('name', ['identityformer_s12', 'randformer_s12'])
def test_timms_blocks_with_other_mixers_are_ours(name):
    pytest.importorskip('timm', reason='its blocks are the reference')
    ours, theirs = build(name), build_backbone(f'timm/{name}')
    randomise(theirs)
    load_from_timm(ours, theirs)
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        for out, reference in zip(ours(image), theirs(image), strict=True):
            assert relative_error(out, reference) < 1e-5


@pytest.mark.nightly
def test_windows_over_the_size_of_the_map():
    out = run('windows', '--sides', 16, '--repeats', 1, '--dim', 32, '--window', 5)
    rows = re.findall(r'(\d+)x\1 +(\w+) +[\d.]+ s +\d+ MiB +[\d.]+ s +\d+ MiB', out)
    assert rows == [('16', 'windowed'), ('16', 'global')]


def test_functions_take_turns():
    calls = []
    timings = time_alternating([lambda: calls.append('a'), lambda: calls.append('b')], repeats=2, warmup=1)
    assert calls == ['a', 'b'] * 3
    assert all(timing.fastest <= timing.median <= timing.slowest for timing in timings)


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ('caformer', "unknown backbone 'caformer': did you mean caformer_s"),
        ('swin_t', "unknown backbone 'swin_t': choose one of poolformer_s12, "),
        ("caformer_s18,act='Relu'", "unknown act 'Relu'"),
        ('caformer_s17', "unknown arch 's17' of CAFormer"),
        ('caformer_s18,window', 'arguments are names and Python values, each name once, such as'),
        ('caformer_s18,windw=13', "CAFormer takes no argument 'windw': it is written window"),
        ('timm/caformer_s81', "timm has no model 'caformer_s81'"),
        ('mmpretrain/poolformer', "MMPretrain has no model 'poolformer'"),
    ],
)
def test_a_backbone_that_is_none(spec, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        build_backbone(spec)
