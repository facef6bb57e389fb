"""The generated data set in COCO's layout, read by COCO's own library."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mmmeta.datasets import generate_coco
from mmmeta.datasets.coco import CATEGORIES, OBJECT_NAMES
from mmmeta.runtime.run import encode_mask

coco = pytest.importorskip('pycocotools.coco', reason="COCO's own library reads the annotations")
from pycocotools import mask as masks  # noqa: E402


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return generate_coco(tmp_path_factory.mktemp('data'), num_train=120, num_val=3)


@pytest.fixture(scope='module')
def train(root):
    return coco.COCO(root / 'annotations/instances_train2017.json')


def test_layout(root, train):
    val = coco.COCO(root / 'annotations/instances_val2017.json')
    assert (len(train.imgs), len(val.imgs)) == (120, 3)
    assert not train.imgs.keys() & val.imgs.keys()
    for split, api in (('train2017', train), ('val2017', val)):
        for info in api.imgs.values():
            with Image.open(root / split / info['file_name']) as image:
                assert (image.mode, image.format) == ('RGB', 'JPEG')
                assert image.size == (info['width'], info['height'])


def test_categories_are_those_of_coco(train):
    mmdet = pytest.importorskip('mmdet.datasets', reason='MMDetection has the class names')
    assert tuple(CATEGORIES) == mmdet.CocoDataset.METAINFO['classes']
    assert (CATEGORIES['person'], CATEGORIES['stop sign'], CATEGORIES['toothbrush']) == (1, 13, 90)
    assert train.getCatIds(catNms=list(CATEGORIES)) == list(CATEGORIES.values())


def test_objects_of_every_kind_and_size_crowds_and_images_without_any(train):
    annotations = train.anns.values()
    names = Counter(train.cats[a['category_id']]['name'] for a in annotations if not a['iscrowd'])
    assert set(names) == set(OBJECT_NAMES.values())
    # COCO's own limits of small and large.
    sizes = Counter((a['area'] > 32**2) + (a['area'] > 96**2) for a in annotations)
    assert min(sizes[i] for i in range(3)) >= 3
    crowds = [a for a in annotations if a['iscrowd']]
    assert len(crowds) >= 5
    assert all(isinstance(a['segmentation']['counts'], list) for a in crowds)
    assert all(isinstance(a['segmentation'][0], list) for a in annotations if not a['iscrowd'])
    assert 5 <= len(train.imgs) - len({a['image_id'] for a in annotations}) <= 30


def test_boxes_areas_and_masks_fit_together(train):
    for annotation in train.anns.values():
        mask = train.annToMask(annotation).astype(bool)
        # A mask is of whole pixels, a polygon is not.
        assert abs(mask.sum() - annotation['area']) <= max(0.12 * annotation['area'], 12)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
        assert np.abs(np.subtract(annotation['bbox'], box)).max() <= 2
        info = train.imgs[annotation['image_id']]
        x, y, width, height = annotation['bbox']
        assert x >= 0 and y >= 0 and x + width <= info['width'] and y + height <= info['height']


def test_objects_do_not_cover_each_other(train):
    for image in train.imgs:
        shown = [train.annToMask(a).astype(int) for a in train.loadAnns(train.getAnnIds(image))]
        if shown:
            assert (sum(shown) > 1).sum() <= 4 * len(shown)


def test_run_lengths_are_those_of_coco():
    rng = np.random.default_rng(0)
    for mask in (rng.random((7, 5)) < 0.5, np.ones((3, 4), bool), np.zeros((3, 4), bool)):
        encoded = encode_mask(mask)
        decoded = masks.decode(masks.frPyObjects(encoded, *mask.shape))
        assert np.array_equal(decoded, mask)


def test_the_same_arguments_give_the_same_files(tmp_path, root):
    again = generate_coco(tmp_path, num_train=120, num_val=3)
    name = 'annotations/instances_train2017.json'
    assert (again / name).read_bytes() == (root / name).read_bytes()
    assert len(json.loads((again / name).read_text())['categories']) == 80
