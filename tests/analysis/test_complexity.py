"""Counted parameters and MACs against the papers and against formulas."""

import importlib
import sys

import pytest
import torch
from conftest import ROOT, Tools
from timm_peer import build

from mmmeta.analysis.complexity import count_config, count_model
from mmmeta.analysis.paper_tables import PrintedComplexity, load_paper_table, printed_complexities
from mmmeta.config.loading import load_config
from mmmeta.utils.errors import UsageError

TABLE_X = {
    row['backbone']: row
    for row in load_paper_table('ade20k')
    if row['method'] == 'UperNet' and row['backbone'].startswith(('convformer', 'caformer'))
}


@pytest.mark.parametrize('backbone', TABLE_X)
def test_upernet_matches_table_x(backbone):
    pytest.importorskip('mmseg', reason="UperNet is MMSegmentation's")
    row = TABLE_X[backbone]
    complexity = count_config(load_config(f'configs/upernet_{backbone}_ade20k.py'), (512, 2048))
    assert f'{complexity.params / 1e6:.0f}' == row['params_m']
    assert complexity.macs / 1e9 == pytest.approx(float(row['macs_g_512x2048']), rel=0.005)


TABLE_IX = {
    f'{prefix}_{row["backbone"]}': float(row['macs_g'])
    for prefix, method in (('mask_rcnn', 'Mask R-CNN'), ('cascade_mask_rcnn', 'Cascade Mask R-CNN'))
    for row in load_paper_table('coco')
    if row['method'] == method and row['backbone'].startswith(('convformer', 'caformer'))
}


@pytest.mark.parametrize('name', TABLE_IX)
def test_detectors_match_table_ix(name):
    pytest.importorskip('mmdet', reason="detectors are MMDetection's")
    complexity = count_config(load_config(f'configs/{name}_coco.py'), (800, 1280))
    assert complexity.macs / 1e9 == pytest.approx(TABLE_IX[name], rel=0.005)
    assert (complexity.masked_macs > 0) == ('caformer' in name)


def test_rows_of_the_papers():
    assert (len(TABLE_X), len(TABLE_IX)) == (6, 8)


@pytest.mark.parametrize(
    'rule', [dict(window=5), dict(window=5, border='truncate'), dict(window=4, window_mode='block')]
)
def test_windows_count_what_a_query_sees_and_beside_it_what_is_masked(rule):
    # 8x11 tokens in stage 3, 4x6 in stage 4.
    with torch.device('meta'):
        found = count_model(build('caformer_s18', **rule), (128, 176))
        whole = count_model(build('caformer_s18'), (128, 176))

    def rows(n):  # pairs of a query and a key along an axis
        if 'window_mode' in rule:
            return sum(min(4, n - i // 4 * 4) for i in range(n))
        if 'border' in rule:
            return sum(min(i, 2) + min(n - 1 - i, 2) + 1 for i in range(n))
        return n * min(n, 5)

    maps = ((9, 320, 8, 11), (3, 512, 4, 6))
    attended = sum(2 * depth * dim * rows(h) * rows(w) for depth, dim, h, w in maps)
    everything = sum(2 * depth * dim * (h * w) ** 2 for depth, dim, h, w in maps)
    assert whole.macs - found.macs == everything - attended
    assert whole.masked_macs == 0
    assert found.masked_macs > 0


def test_attention_counts_the_same_on_cpu_and_on_the_meta_device():
    cpu = count_model(build('caformer_s18'), (64, 96))
    with torch.device('meta'):
        meta = count_model(build('caformer_s18'), (64, 96))
    assert cpu == meta
    # Without the attention mixers of stages 3 and 4: qkv, proj and both products are what is missing.
    with torch.device('meta'):
        arch = dict(base='s18', token_mixers=('sep_conv', 'sep_conv', 'identity', 'identity'))
        rest = count_model(build('caformer_s18', arch=arch, output_norm=False), (64, 96))
    attention = sum(
        depth * (4 * tokens * dim**2 + 2 * tokens**2 * dim)
        for depth, dim, tokens in ((9, 320, 4 * 6), (3, 512, 2 * 3))
    )
    assert meta.macs - rest.macs == attention


GET_FLOPS = (sys.executable, 'tools/analysis_tools/get_flops.py')


def get_flops(*arguments):
    return Tools.finish(*GET_FLOPS, *arguments)


def test_the_command_line():
    pytest.importorskip('mmseg', reason="UperNet is MMSegmentation's")
    config = 'configs/upernet_caformer_s18_ade20k.py'
    result = get_flops(config)
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    (whole,) = (row for row in rows if row[0] == config)
    assert whole[:5] == [config, '512x2048', '53.7', '1023.3', '0.0']
    parts = {row[0]: row[1:] for row in rows[rows.index(whole) + 1 :]}
    assert list(parts) == [
        'backbone.stem',
        *(f'backbone.stages.{i}' for i in range(4)),
        'backbone.norms',
        'decode_head',
        'auxiliary_head',
    ]
    assert parts['auxiliary_head'][1] == '0.0'
    for column, tolerance in ((0, 0.5), (1, 0.5), (3, 0.5)):
        total = sum(float(part[column]) for part in parts.values())
        assert total == pytest.approx(float(whole[2 + column]), abs=tolerance)


@pytest.mark.parametrize(
    ('config', 'shape'),
    [
        ('configs/cascade_mask_rcnn_caformer_s18_coco.py', (320, 480)),
        ('configs/imagenet/caformer_s18_in1k.py', (224, 224)),
    ],
)
def test_parts_make_up_the_whole(config, shape):
    pytest.importorskip('mmdet', reason='one of them is a detector')
    pytest.importorskip('mmpretrain', reason='one of them is a classifier')
    whole = count_config(load_config(config), shape)
    for kind in ('params', 'macs', 'masked_macs', 'activations', 'frozen_params'):
        assert sum(getattr(part, kind) for part in whole.parts.values()) == getattr(whole, kind)
    assert all(part.params > 0 for part in whole.parts.values())


def test_activations_are_what_layers_return():
    with torch.device('meta'):
        model = build('poolformer_s12', arch=dict(base='s12', depths=(1, 1, 1, 1)), output_norm=False)
        found = count_model(model, (64, 96))
    # Of each stage the embedding and the two maps of the MLP, four times as wide and as wide.
    expected = [(1 + 4 + 1) * dim * (16 >> i) * (24 >> i) for i, dim in enumerate((64, 128, 320, 512))]
    assert found.activations == sum(expected)
    assert [found.parts[f'stages.{i}'].activations for i in (1, 2, 3)] == expected[1:]


def test_printed_digits_are_not_held_against_a_count():
    printed = PrintedComplexity('', '', (224, 224), 'macs', '1.8')
    assert printed.deviation(1.84) == 0
    assert printed.deviation(1.87) == pytest.approx(0.02 / 1.8)


def test_all_rows_of_the_papers_are_compared():
    rows = list(printed_complexities())
    # Tables I, III and V: 28 models, 5 with frozen matrices, 8 at 384x384; Table X: 6; Table IX: 8.
    assert len(rows) == (28 + 5 + 28 + 8) + 2 * 6 + 8
    assert all((ROOT / row.config).is_file() for row in rows)


def test_a_number_that_is_off_is_told(monkeypatch):
    pytest.importorskip('mmpretrain', reason='classifiers are counted')
    monkeypatch.syspath_prepend(str(ROOT / 'tools/analysis_tools'))
    tool = importlib.import_module('get_flops')
    config = 'configs/imagenet/poolformer_s12_in1k.py'
    rows = [
        PrintedComplexity('Table I', config, (224, 224), kind, text)
        for kind, text in (('params', '12'), ('macs', '1.9'))
    ]
    monkeypatch.setattr(tool, 'printed_complexities', lambda: rows)
    with pytest.raises(
        UsageError, match=f'off by more than 0.5% beyond the printed digits: macs of {config}'
    ):
        tool.compare_with_papers()


def test_configs_or_the_papers():
    assert 'give either configs or --paper' in get_flops().stderr
