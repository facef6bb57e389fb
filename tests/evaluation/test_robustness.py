"""Robustness metrics, on answers computed by hand."""

import pytest
import torch
from PIL import Image

pytest.importorskip('mmpretrain', reason="data sets and metrics of classification are MMPretrain's")

from mmmeta.evaluation.robustness import (
    ALEXNET_ERRORS,
    CorruptionError,
    ImageNetC,
    ImageNetSubset,
    SubsetAccuracy,
)
from mmmeta.utils.errors import UsageError

# Classes 6, 11 and 13 of the thousand.
FOLDERS = {'n01498041': 6, 'n01531178': 11, 'n01534433': 13}


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 8)).save(path)


def scores(*ranking, classes=1000):
    """Scores whose order is given, all others lower."""
    values = torch.zeros(classes)
    for i, label in enumerate(ranking):
        values[label] = 1.0 - 0.1 * i
    return values


def test_folders_are_classes_of_the_thousand(tmp_path):
    for synset in FOLDERS:
        save(tmp_path / synset / 'a.png')
    dataset = ImageNetSubset(str(tmp_path))
    assert [dataset[i]['gt_label'] for i in range(3)] == [6, 11, 13]
    assert dataset.metainfo['subset'] == (6, 11, 13)
    assert dataset.metainfo['classes'][6] == 'stingray'


def test_folders_that_are_none(tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(
        UsageError, match="'.*empty' is not named by a class of ImageNet-1K: the folders of the"
    ):
        ImageNetSubset(str(tmp_path))
    (tmp_path / 'empty').rmdir()
    with pytest.raises(UsageError, match='has no images: put those of the data set there'):
        ImageNetSubset(str(tmp_path))


def test_only_classes_of_the_subset_count():
    metric = SubsetAccuracy(topk=(1, 2))
    metric.dataset_meta = dict(subset=(6, 11, 13))
    samples = [
        (scores(500, 6, 11), 6),  # 500 does not count: right
        (scores(11, 6, 13), 6),  # second
        (scores(999, 998, 13, 11, 6), 6),  # third of the subset
        (scores(13), 13),  # right
    ]
    metric.process({}, [dict(pred_score=s, gt_label=torch.tensor([label])) for s, label in samples])
    assert metric.evaluate(4) == {'accuracy/top1': 50.0, 'accuracy/top2': 75.0}


@pytest.fixture
def imagenet_c(tmp_path):
    """Two images for each corruption and severity."""
    for corruption in ALEXNET_ERRORS:
        for severity in '12345':
            for synset in ('n01498041', 'n01531178'):
                save(tmp_path / corruption / severity / synset / 'a.png')
    return tmp_path


def test_corruption_error(imagenet_c):
    dataset = ImageNetC(str(imagenet_c))
    assert len(dataset) == 150
    metric = CorruptionError()
    for i in range(len(dataset)):
        info = dataset[i]
        # Right for class 6, and for class 11 but in fog and at severity 5 of snow: of two images each, one.
        corruption, severity = info['img_path'].split('/')[-4:-2]
        wrong = info['gt_label'] == 11 and (corruption == 'fog' or (corruption == 'snow' and severity == '5'))
        found = scores(7 if wrong else info['gt_label'])
        sample = dict(pred_score=found, gt_label=torch.tensor([info['gt_label']]), img_path=info['img_path'])
        metric.process({}, [sample])
    result = metric.evaluate(150)
    assert result['imagenet-c/CE_fog'] == pytest.approx(100 * 50.0 / 81.9)
    assert result['imagenet-c/CE_snow'] == pytest.approx(100 * 10.0 / 86.7)
    assert result['imagenet-c/CE_frost'] == 0
    assert result['imagenet-c/mCE'] == pytest.approx((100 * 50.0 / 81.9 + 100 * 10.0 / 86.7) / 15)
    assert result['imagenet-c/top1_error'] == pytest.approx((50.0 + 10.0) / 15)


def test_imagenet_c_has_to_be_whole(imagenet_c):
    for path in (imagenet_c / 'fog/3').rglob('*.png'):
        path.unlink()
    with pytest.raises(UsageError, match=r"lacks the images of 1 of its 75 folders, such as '.*fog/3'"):
        ImageNetC(str(imagenet_c))
