"""Folders of classes and their names."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmmeta.utils.errors import UsageError
from mmmeta.validation.folders import check_folders
from mmmeta.validation.starting import CheckLabelsHook


@pytest.fixture
def root(tmp_path):
    for part, names in (('train', ('ant', 'polar_bear', 'zebra')), ('val', ('ant', 'polar_bear', 'zebra'))):
        for name in names:
            (tmp_path / part / name).mkdir(parents=True)
            Image.new('RGB', (8, 8)).save(tmp_path / part / name / '0.png')
    return tmp_path


def load(root, part='train', classes=None, **options):
    pytest.importorskip('mmpretrain')
    init_default_scope('mmpretrain')
    info = dict(metainfo=dict(classes=classes)) if classes else {}
    given = dict(type='CustomDataset', data_root=str(root), data_prefix=part, pipeline=[], **info, **options)
    return DATASETS.build(given)


def texts(**loaded):
    return [finding.text for finding in check_folders(loaded)]


@pytest.mark.parametrize(
    'classes', [None, ['ant', 'polar bear', 'zebra'], ['tench', 'shark', 'hen'], ['bear', 'ants', 'x']]
)
def test_names_that_fit_or_mean_nothing(root, classes):
    assert texts(train=load(root, classes=classes), val=load(root, 'val', classes)) == []


def test_another_order(root):
    data = dict(train=load(root, classes=['zebra', 'polar bear', 'ant']))
    assert texts(**data) == [
        "train: MMPretrain, by the sorted folders, gives images in the folder 'ant' the label 0, which "
        "metainfo.classes calls 'zebra', and they would be learnt under that name: write classes in the "
        'order of the labels, ant, polar_bear, zebra'
    ]
    data = [SimpleNamespace(dataset=dataset) for dataset in data.values()]
    runner = SimpleNamespace(
        cfg=Config(dict(model=dict(backbone=dict(type='mmmeta.CAFormer')))),
        train_dataloader=data[0],
        val_loop=None,
    )
    with pytest.raises(UsageError, match="images in the folder 'ant' the label 0"):
        CheckLabelsHook().before_train(runner)


def test_lists(root):
    for name, numbers, expected in (('right', (2, 1, 0), 0), ('wrong', (0, 1, 2), 1), ('some', (2, 1, 1), 0)):
        lines = [
            f'{folder}/0.png {i}' for folder, i in zip(('ant', 'polar_bear', 'zebra'), numbers, strict=True)
        ]
        if name == 'some':  # an image that was given another class by hand
            lines.append('zebra/0.png 0')
        (root / f'{name}.txt').write_text('\n'.join(lines))
        data = load(root, classes=['zebra', 'polar bear', 'ant'], ann_file=f'{name}.txt')
        assert len(texts(train=data)) == expected


def test_folders_of_one_part(root):
    (root / 'val/ant/0.png').rename(root / 'val/zebra/1.png')
    assert texts(train=load(root), val=load(root, 'val')) == []  # an empty one counts
    (root / 'val/ant').rmdir()
    (text,) = texts(train=load(root), val=load(root, 'val'))
    assert text.startswith('the folder ant is in one of train and val alone, and MMPretrain numbers classes')
