"""The list of what there is, and the files that are written from it."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from benchmarks.metafiles import render_zoo
from mmmeta.__main__ import main
from mmmeta.analysis.complexity import count_config
from mmmeta.apis.listing import list_archs, list_models
from mmmeta.config.loading import load_config
from mmmeta.utils.errors import UsageError
from mmmeta.weights import ZOO

MODELS = {model.name: model for model in list_models()}


def test_the_files_are_those_of_the_table():
    """``python tools/model_zoo.py`` writes them."""
    for path, text in render_zoo():
        assert (ROOT / path).read_text() == text, f'{path} is out of date'


def test_every_config_and_every_published_weight_is_there():
    listed = {model.config for model in MODELS.values()}
    there = {p.relative_to(ROOT).as_posix() for p in ROOT.glob('configs/**/*.py')}
    there = {path for path in there if not path.startswith(('configs/_base_', 'configs/demo'))}
    assert listed == {path for path in there if 'robustness' not in path}
    with_head = {name for name, weights in ZOO.items() if weights.num_classes}
    assert {model.weights for model in MODELS.values() if model.weights} == with_head
    # The page of the zoo says so instead of listing them.
    for model in MODELS.values():
        if model.weights:
            assert model.weights == model.config.rpartition('/')[2].removesuffix('.py').removesuffix('_in1k')


def test_metafiles_name_files_and_models_that_exist():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    names = []
    for path in index['Import']:
        content = yaml.safe_load((ROOT / path).read_text())
        (collection,) = content['Collections']
        assert (ROOT / collection['README']).is_file()
        assert (ROOT / collection['Code']['URL']).is_file()
        for model in content['Models']:
            assert (ROOT / model['Config']).is_file()
            assert model['In Collection'] == collection['Name']
            assert collection['Name'].lower() in Path(model['Config']).stem.split('_')
            names.append(model['Name'])
    assert sorted(names) == sorted(MODELS)


@pytest.mark.parametrize(
    'name', ['convformer_s18_384_in1k', 'fpn_poolformer_s12_ade20k', 'mask_rcnn_caformer_s18_coco']
)
def test_counts(name):
    """All are written by ``tools/model_zoo.py --count``; get_flops.py compares them with the papers."""
    model = MODELS[name]
    count = count_config(load_config(model.config), model.shape)
    assert (model.params, model.macs) == (count.params, count.macs)


def test_what_the_papers_print():
    assert [r.printed for r in MODELS['caformer_b36_384_in21ft1k'].results] == ['88.1']
    assert [(r.metric, r.printed) for r in MODELS['retinanet_poolformer_s36_coco'].results] == [
        ('AP box', '39.5')
    ]
    assert MODELS['upernet_caformer_m36_ade20k'].results[0].printed == '51.7'
    assert len(list(list_archs())) == 28


def test_python_m_mmmeta_list(monkeypatch, capsys):
    command = [sys.executable, '-m', 'mmmeta', 'list', 'upernet_caformer_s18_ade20k']
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={'COLUMNS': '200'})
    (row,) = (line for line in listed.stdout.splitlines() if 'upernet_caformer_s18' in line)
    assert [cell.strip() for cell in row.split('│')[1:5]] == [
        'upernet_caformer_s18_ade20k.py', '512x2048', '53.7', '1023.3',
    ]  # fmt: skip
    assert 'mIoU 48.9' in row
    monkeypatch.setenv('COLUMNS', '200')
    monkeypatch.setattr(sys, 'argv', ['mmmeta', 'list', 'poolformerv2_s12', '--weights'])
    main()
    assert 'timm://poolformerv2_s12.sail_in1k' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', ['mmmeta', 'list', 'swin'])
    with pytest.raises(UsageError, match="no config has 'swin' in its name: list all with python -m mmmeta"):
        main()


@pytest.mark.parametrize('function', [lambda: list_models('swin'), lambda: list(list_archs('swin'))])
def test_nothing_of_that_name(function):
    with pytest.raises(UsageError, match="has 'swin' in its name: "):
        function()


@pytest.mark.parametrize('width', [{}, {'COLUMNS': '80'}], ids=['piped', '80 columns'])
def test_no_name_is_cut(tools, width):
    names = [model.config.removeprefix('configs/') for model in list_models('cascade')]
    out = tools.run(sys.executable, '-m', 'mmmeta', 'list', 'cascade', **width)
    assert len(names) == 6
    for name in names:
        assert name in out
    assert '\u2026' not in out
    # Piped, each line is as long as it has to be.
    assert ('printed results (%)' in out) == (not width)
