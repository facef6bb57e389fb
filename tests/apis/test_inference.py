"""Names, colours and scores in predictions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from PIL import Image

from mmmeta.apis.inference import _metainfo, show


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
