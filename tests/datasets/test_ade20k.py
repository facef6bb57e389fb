"""The generated data set."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmmeta.analysis.segmentation import most_common_class_miou
from mmmeta.datasets import generate_ade20k, generate_coco, generate_imagenet
from mmmeta.datasets.ade20k import LABELS, OTHER
from mmmeta.datasets.scenes import GROUNDS, OBJECTS
from mmmeta.utils.errors import UsageError


def digest(root: Path) -> str:
    files = sorted(path for path in root.rglob('*') if path.is_file())
    content = b''.join(str(path.relative_to(root)).encode() + path.read_bytes() for path in files)
    return hashlib.sha256(content).hexdigest()


def test_layout_and_labels(tmp_path):
    root = generate_ade20k(tmp_path, num_train=30, num_val=2, size=64)
    assert root == tmp_path / 'ADEChallengeData2016'
    assert sorted(p.name for p in (root / 'images/validation').iterdir()) == [
        'ADE_val_00000001.jpg',
        'ADE_val_00000002.jpg',
    ]
    counts = Counter()
    for path in sorted((root / 'annotations/training').iterdir()):
        annotation = Image.open(path)
        image = Image.open(root / 'images/training' / f'{path.stem}.jpg')
        assert (annotation.mode, image.mode, image.format) == ('L', 'RGB', 'JPEG')
        assert annotation.size == image.size
        counts.update(np.unique(np.asarray(annotation)).tolist())
    assert set(counts) == {OTHER, *LABELS.values()}
    assert all(1 <= label <= 150 for label in counts if label)
    # Every class is seen often, and none in every image.
    assert min(counts.values()) >= 5
    assert max(counts.values()) < 30


def test_labels_have_the_names_of_ade20k():
    mmseg = pytest.importorskip('mmseg.datasets', reason='MMSegmentation has the class names')
    classes = mmseg.ADE20KDataset.METAINFO['classes']
    assert [classes[LABELS[kind] - 1] for kind in GROUNDS] == list(GROUNDS)
    names = ['ball', 'plate', 'box', 'windowpane', 'lamp', 'tent']
    assert [classes[LABELS[kind] - 1].strip() for kind in OBJECTS] == names


def test_neither_colour_nor_outline_alone_tells_the_class():
    shapes, temperatures = ({kind[i] for kind in OBJECTS} for i in (0, 1))
    assert set(OBJECTS) == {(s, t) for s in shapes for t in temperatures}
    assert len(set(LABELS.values())) == len(LABELS) == len(GROUNDS) + len(OBJECTS)


def test_the_same_arguments_give_the_same_files(tmp_path):
    a, b, c = (
        generate_ade20k(tmp_path / name, num_train=2, num_val=1, size=64, seed=seed)
        for name, seed in (('a', 0), ('b', 0), ('c', 1))
    )
    assert digest(a) == digest(b) != digest(c)


@pytest.mark.parametrize('generate', [generate_ade20k, generate_coco, generate_imagenet])
def test_no_image_is_in_both_parts(tmp_path, generate):
    root = generate(tmp_path, num_train=18, num_val=18, size=64)
    images = [path.read_bytes() for path in root.rglob('*') if path.suffix.lower() in ('.jpg', '.jpeg')]
    assert len(set(images)) == len(images) == 36


def test_an_existing_data_set_is_kept_and_an_interrupted_one_made_again(tmp_path):
    messages = []
    arguments = dict(num_train=1, num_val=1, size=64, progress=messages.append)
    root = generate_ade20k(tmp_path, **arguments)
    generate_ade20k(tmp_path, **arguments)
    assert len(messages) == 1
    generate_ade20k(tmp_path, **{**arguments, 'num_train': 2})
    assert len(list((root / 'images/training').iterdir())) == 2
    assert list(tmp_path.iterdir()) == [root]


def test_nothing_of_the_user_is_overwritten(tmp_path):
    (tmp_path / 'ADEChallengeData2016').mkdir()
    with pytest.raises(UsageError, match='exists and was not generated: choose another folder'):
        generate_ade20k(tmp_path, num_train=1, num_val=1, size=64)
    with pytest.raises(UsageError, match='num_train=0'):
        generate_ade20k(tmp_path, num_train=0)


def test_miou_of_the_most_common_class(tmp_path):
    labels = np.array([[0, 0, 3, 3], [3, 3, 3, 3], [9, 9, 150, 0]], np.uint8)
    Image.fromarray(labels).save(tmp_path / 'a.png')
    # 6 of 9 labelled pixels are of class 3, and three classes occur.
    assert most_common_class_miou(tmp_path) == pytest.approx(100 * (6 / 9) / 3)
    with pytest.raises(UsageError, match='holds no annotated PNG files'):
        most_common_class_miou(tmp_path / 'nothing')
