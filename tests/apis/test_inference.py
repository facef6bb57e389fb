"""Names, colours and scores in predictions."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import ConfigDict
from mmengine.registry import DATASETS, init_default_scope
from mmengine.structures import InstanceData
from PIL import Image

from mmmeta.apis import build_model, predict
from mmmeta.apis.inference import _metainfo, show
from mmmeta.utils.errors import UsageError
from mmmeta.visualization.drawing import _visualizer, draw_item


class TestMetainfo:
    """What a config says of the classes, and what the class of its data set does."""

    @pytest.fixture
    def known(self):
        datasets = pytest.importorskip('mmseg.datasets', reason='its data set knows classes')
        return datasets.ADE20KDataset.METAINFO

    def metainfo(self, **metainfo):
        dataset = ConfigDict(type='ADE20KDataset', **(dict(metainfo=metainfo) if metainfo else {}))
        return _metainfo(dataset, 'mmseg')

    def test_without_any_in_the_config(self, known):
        found = self.metainfo()
        assert found['classes'] == known['classes']
        assert found['palette'] == known['palette']

    def test_the_config_comes_first(self, known):
        found = self.metainfo(classes=('sky', 'crack'), palette=[[1, 2, 3], [4, 5, 6]])
        assert found['classes'] == ('sky', 'crack')
        assert found['palette'] == [(1, 2, 3), (4, 5, 6)]
        assert self.metainfo(CLASSES=('sky', 'crack'))['classes'] == ('sky', 'crack')  # as MMCV 1 wrote it

    def test_colours_are_those_of_the_names(self, known):
        colours = dict(zip(known['classes'], map(tuple, known['palette']), strict=True))
        found = self.metainfo(classes=('grass', 'crack', 'sky'))['palette']
        assert (found[0], found[2]) == (colours['grass'], colours['sky'])
        assert len(found[1]) == 3 and self.metainfo(classes=('grass', 'crack', 'sky'))['palette'] == found

    @pytest.mark.parametrize('count', [2, 90])
    @pytest.mark.parametrize('scope', ['mmseg', 'mmdet'])
    def test_colours_are_those_of_the_data(self, tmp_path, scope, count):
        """Where a config has none: those that browse_dataset draws with, and the packages."""
        pytest.importorskip(scope)
        init_default_scope(scope)
        classes = [f'class {i}' for i in range(count)]
        Image.new('RGB', (32, 32)).save(tmp_path / 'a.png')
        Image.new('L', (32, 32), 1).save(tmp_path / 'a_mask.png')
        options = dict(data_prefix=dict(img=''), metainfo=dict(classes=classes), data_root=str(tmp_path))
        steps = [dict(type='LoadImageFromFile')]
        if scope == 'mmseg':
            steps += [dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
            options.update(type='BaseSegDataset', img_suffix='a.png', seg_map_suffix='a_mask.png')
            options['data_prefix'] = dict(img_path='', seg_map_path='')
        else:
            part = dict(id=1, image_id=1, category_id=count, bbox=[2, 2, 20, 20], area=400, iscrowd=0)
            categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
            images = [dict(id=1, file_name='a.png', width=32, height=32)]
            content = dict(images=images, annotations=[part], categories=categories)
            (tmp_path / 'a.json').write_text(json.dumps(content))
            steps += [dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]
            options.update(type='CocoDataset', ann_file='a.json')
        dataset = DATASETS.build(dict(options, pipeline=steps))
        draw_item(scope, dataset[0], dataset)
        drawn = _visualizer(scope).dataset_meta['palette']
        assert _metainfo(ConfigDict(options), scope)['palette'] == drawn and len(drawn) == count
        own = [tuple(colour) for colour in dataset.metainfo['palette']][:count]
        assert drawn[: len(own)] == own


NETWORK = SimpleNamespace(
    cfg=ConfigDict(default_scope='mmdet'),
    dataset_meta=dict(classes=('cat', 'dog', 'kite'), palette=[(255, 0, 0), (0, 255, 0), (0, 0, 255)]),
)


@pytest.fixture
def detect(monkeypatch, tmp_path):
    """Show some objects of these labels and scores."""
    apis = pytest.importorskip('mmdet.apis', reason='it predicts objects')
    from mmdet.structures import DetDataSample

    path = tmp_path / 'image.png'
    Image.new('RGB', (64, 48)).save(path)

    def detect(labels, scores, score_thr):
        boxes = torch.tensor([[8.0 + i, 8, 40, 40] for i in range(len(labels))])
        instances = InstanceData(bboxes=boxes, labels=torch.tensor(labels), scores=torch.tensor(scores))
        sample = DetDataSample(pred_instances=instances)
        monkeypatch.setattr(apis, 'inference_detector', lambda model, image: sample)
        panels, _, rows = show(NETWORK, str(path), score_thr=score_thr)
        (_, plain), (_, drawn) = panels
        return rows, bool(np.any(plain != drawn))

    return detect


def test_the_best_score_of_a_class_is_its_largest(detect):
    rows, _ = detect([0, 0, 1, 0, 1], [0.5, 0.875, 0.75, 0.625, 0.5], 0.5)
    assert rows == [('cat', '3', '0.875'), ('dog', '2', '0.750')]


def test_a_score_equal_to_the_threshold_is_kept_and_drawn(detect):
    assert detect([2], [0.5], 0.5) == ([('kite', '1', '0.500')], True)
    assert detect([2], [0.5], 0.5001) == ([], False)


def test_images_by_path_alone_and_as_arrays(tmp_path):
    """One of them is not a sequence of letters."""
    model = build_model(str(ROOT / 'tests/data/tiny_upernet.py'), 'none')
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    path = tmp_path / 'a.png'
    Image.fromarray(pixels).save(path)
    rows = None
    for number, (images, names) in enumerate(
        (
            (str(path), ['a']),
            (path, ['a']),
            (pixels, ['image_0']),
            ([path, pixels, pixels], ['a', 'image_1', 'image_2']),
        )
    ):
        found = list(predict(model, images, tmp_path / str(number)))
        assert [one.picture.stem for one in found] == names
        rows = rows or found[0].rows
        assert all(one.rows == rows for one in found)
    with pytest.raises(UsageError, match=r'of float32 and shape \(3, 48, 64\): give \(H, W, 3\) of uint8'):
        next(predict(model, np.zeros((3, 48, 64), np.float32), tmp_path))


def test_an_image_that_stores_more_than_is_read_is_refused(tmp_path):
    """16 bits and a fourth channel are not silently 8 bits of three."""
    model = build_model(str(ROOT / 'tests/data/tiny_upernet.py'), 'none')
    Image.fromarray(np.full((64, 64), 300, np.uint16)).save(tmp_path / 'a.png')
    with pytest.raises(UsageError, match=r"a\.png' has 1 channel of uint16, and LoadImageFromFile with"):
        next(predict(model, tmp_path / 'a.png', tmp_path / 'out'))
    model.cfg.test_dataloader.dataset.pipeline[0] = dict(type='mmmeta.LoadUnchangedImage', channels=1)
    with pytest.raises(UsageError, match='give files in place of arrays'):
        next(predict(model, np.zeros((64, 64, 3), np.uint8), tmp_path / 'out'))
