"""The pages: snippets run, links lead somewhere, what is named is there."""

import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from mistakes.configs import MISTAKES
from mistakes.data import DATA_MISTAKES
from mmengine.config import Config
from test_configs import learn

PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/*.md')])
SNIPPETS = {
    match[1]: match[0]
    for match in re.finditer(
        r'(?<=```python\n)# (my_\w+\.py)\n.+?(?=```)', (ROOT / 'docs/your_project.md').read_text(), re.S
    )
}


@pytest.fixture
def snippet(tmp_path):
    """Write a snippet where a user would, and read it as MMEngine does."""

    def read(name, **options):
        (tmp_path / name).write_text(SNIPPETS[name])
        cfg = Config.fromfile(tmp_path / name)
        assert cfg.model.backbone.init_cfg.checkpoint.startswith('mmmeta://')
        cfg.merge_from_dict(options)
        return cfg

    return read


def test_all_snippets_are_tried():
    assert list(SNIPPETS) == [
        'my_detector.py',
        'my_segmentor.py',
        'my_classifier.py',
        'my_one_stage_detector.py',
    ]


def test_detector(snippet, coco_root):
    pytest.importorskip('mmdet', reason='the snippet is for it')
    pipeline = 'train_dataloader.dataset.pipeline'
    cfg = snippet('my_detector.py', **{f'{pipeline}.2.scale': (160, 96), f'{pipeline}.2.keep_ratio': True})
    model, _ = learn(cfg, coco_root)
    assert model.backbone.stages[2].blocks[0].token_mixer.window == (13, 13)


def test_segmentor(snippet, ade_root):
    pytest.importorskip('mmseg', reason='the snippet is for it')
    cfg = snippet(
        'my_segmentor.py',
        **{
            'model.data_preprocessor.size': (64, 64),
            'train_dataloader.dataset.pipeline.2.scale': (256, 64),
            'train_dataloader.dataset.pipeline.3.crop_size': (64, 64),
        },
    )
    learn(cfg, ade_root)


def test_classifier(snippet, imagenet_root):
    pytest.importorskip('mmpretrain', reason='the snippet is for it')
    cfg = snippet('my_classifier.py')
    cfg.train_dataloader.dataset.update(type='CustomDataset', data_prefix='train')
    cfg.train_dataloader.dataset.pop('split')
    cfg.model.data_preprocessor = cfg.data_preprocessor
    learn(cfg, imagenet_root)


def test_one_stage_detector(snippet):
    pytest.importorskip('mmdet', reason='the snippet is for it')
    from mmengine.registry import MODELS, init_default_scope

    cfg = snippet('my_one_stage_detector.py')
    init_default_scope('mmdet')
    cfg.model.backbone.init_cfg = None
    scores, boxes, objectness = MODELS.build(cfg.model).eval()(torch.zeros(1, 3, 64, 96), mode='tensor')
    sizes = [(8, 12), (4, 6), (2, 3)]
    assert [tuple(part.shape[2:]) for part in scores] == sizes
    assert [part.shape[1] for part in (scores[0], boxes[0], objectness[0])] == [80, 4, 1]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links(page):
    """Sphinx checks those between pages, and anchors; this checks files."""
    for target in re.findall(r'\]\((?!https?:)([^)#]+)', page.read_text()):
        assert (page.parent / target).exists(), f'{page.name} links to {target}'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_commands_name_files_that_exist(page):
    for name in re.findall(r'(?<![\w/])(?:tools|configs)/[\w./-]+\.(?:py|sh)\b', page.read_text()):
        assert (ROOT / name).exists(), f'{page.name} names {name}'


def test_every_tool_is_on_the_page_of_tools():
    page = (ROOT / 'docs/tools.md').read_text()
    for path in ROOT.glob('tools/**/*.py'):
        name = path.relative_to(ROOT).as_posix()
        ours = path.name in ('setup_env.py', 'mmcv_wheel.py', 'demo.py', 'check_interpreter.py')
        assert ours or name in page, f'{name} is not in docs/tools.md'


def test_every_page_is_in_the_contents():
    contents = (ROOT / 'docs/index.md').read_text().splitlines()
    assert {path.stem for path in Path(ROOT / 'docs').glob('*.md')} - set(contents) == {'index'}


def test_the_mistakes_that_are_found_are_counted():
    text = (ROOT / 'docs/tools.md').read_text()
    assert f'{len(MISTAKES)} wrong configs and {len(DATA_MISTAKES)} wrong data sets' in text
