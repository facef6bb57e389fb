"""Counted parameters and MACs against the papers and against formulas."""

import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from timm_peer import build

from mmmeta.analysis.complexity import count_config, count_model
from mmmeta.analysis.paper_tables import load_paper_table
from mmmeta.apis.config import load_config

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
        arch = dict(
            base='s18', output_norm=None, token_mixers=('sep_conv', 'sep_conv', 'identity', 'identity')
        )
        rest = count_model(build('caformer_s18', arch=arch), (64, 96))
    attention = sum(
        depth * (4 * tokens * dim**2 + 2 * tokens**2 * dim)
        for depth, dim, tokens in ((9, 320, 4 * 6), (3, 512, 2 * 3))
    )
    assert meta.macs - rest.macs == attention


def test_the_command_line():
    pytest.importorskip('mmseg', reason="UperNet is MMSegmentation's")
    command = [sys.executable, 'tools/analysis_tools/get_flops.py', 'configs/upernet_caformer_s18_ade20k.py']
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1].split() == [
        'configs/upernet_caformer_s18_ade20k.py',
        '512x2048',
        '53.7',
        '1023.3',
        '0.0',
    ]
