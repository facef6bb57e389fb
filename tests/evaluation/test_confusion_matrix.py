"""Confusion matrices, counted by hand."""

import csv

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmmeta.config.adaptation import enable_confusion, enable_drawing
from mmmeta.evaluation.confusion_matrix import ConfusionMatrix
from mmmeta.utils.errors import UsageError


def measure(folder, samples, classes=('cat', 'dog'), **options):
    metric = ConfusionMatrix(str(folder), **options)
    metric.dataset_meta = dict(classes=classes)
    metric.process({}, samples)
    found = metric.evaluate(len(samples))
    with open(folder / 'confusion_matrix.csv') as file:
        header, *rows = csv.reader(file)
    with Image.open(folder / 'confusion_matrix.png') as picture:
        assert min(picture.size) > 100
    return header, np.array(rows, int).tolist(), found


def test_images(tmp_path):
    pairs = [(0, 0), (0, 1), (1, 1), (1, 1)]
    samples = [dict(gt_label=torch.tensor([a]), pred_label=torch.tensor([b])) for a, b in pairs]
    header, matrix, found = measure(tmp_path, samples)
    assert (header, matrix, found) == (['cat', 'dog'], [[1, 1], [0, 2]], {'confusion/aAcc': 75.0})
    with pytest.raises(UsageError, match='images with several labels have no confusion matrix'):
        measure(tmp_path, [dict(gt_label=torch.tensor([0, 1]), pred_label=torch.tensor([0]))])


def sample_of(annotated, predicted, ignored=()):
    """Objects as (label, left), predicted ones with a score; all are 10 pixels wide and high."""

    def boxes(lefts):
        return torch.tensor([[left, 0, left + 10, 10] for left in lefts], dtype=torch.float).reshape(-1, 4)

    labels, lefts = zip(*annotated, strict=True) if annotated else ((), ())
    found, places, scores = zip(*predicted, strict=True) if predicted else ((), (), ())
    return dict(
        gt_instances=dict(labels=torch.tensor(labels, dtype=torch.long), bboxes=boxes(lefts)),
        pred_instances=dict(
            labels=torch.tensor(found, dtype=torch.long),
            bboxes=boxes(places),
            scores=torch.tensor(scores, dtype=torch.float),
        ),
        ignored_instances=dict(bboxes=boxes(ignored)),
    )


def test_objects(tmp_path):
    pytest.importorskip('mmdet')
    samples = [
        # A cat that is found, and again beside it; a dog that is taken for a cat.
        sample_of([(0, 0), (1, 100)], [(0, 0, 0.9), (0, 2, 0.8), (0, 101, 0.5)]),
        # A dog that is missed: of a low score, or too far away.
        sample_of([(1, 50)], [(1, 50, 0.1), (1, 58, 0.9)]),
        # Nothing is annotated; what is in a crowd does not count.
        sample_of([], [(1, 0, 0.9), (0, 200, 0.9)], ignored=[201]),
        sample_of([(0, 0)], []),
        sample_of([], []),
    ]
    header, matrix, found = measure(tmp_path, samples)
    assert header == ['cat', 'dog', 'background']
    assert matrix == [[1, 0, 1], [1, 0, 1], [1, 2, 0]]
    assert found == {'confusion/recall': 25.0}


def test_annotations_are_of_the_stored_image():
    """They are loaded after the image was resized, whatever the order in the config."""
    resize, load, pack = dict(type='Resize'), dict(type='LoadAnnotations'), dict(type='PackDetInputs')
    for pipeline, given in (([load, resize, pack], True), ([resize, pack], False)):
        cfg = Config(
            dict(
                default_scope='mmdet',
                work_dir='w',
                test_dataloader=dict(dataset=dict(pipeline=pipeline)),
                test_evaluator=dict(type='CocoMetric'),
            )
        )
        enable_confusion(cfg)
        names = [step.type for step in cfg.test_dataloader.dataset.pipeline]
        assert names == ['Resize', 'LoadAnnotations', 'PackDetInputs']
        assert ('with_bbox' in cfg.test_dataloader.dataset.pipeline[1]) is not given
        assert [metric.type for metric in cfg.test_evaluator] == ['CocoMetric', 'mmmeta.ConfusionMatrix']


def test_other_packages():
    with pytest.raises(
        UsageError, match="default_scope='mmocr': confusion is that of classes of mmseg, mmdet and"
    ):
        enable_confusion(Config(dict(default_scope='mmocr')))


def test_pictures_of_detectors_are_where_they_were_asked_for(tmp_path, monkeypatch):
    """MMDetection joins a relative folder to the work directory, again for each image."""
    monkeypatch.chdir(tmp_path)
    cfg = Config(dict(default_scope='mmdet', default_hooks=dict(visualization=dict(type='X'))))
    enable_drawing(cfg, 'pictures')
    assert cfg.default_hooks.visualization.test_out_dir == f'{tmp_path}/pictures'
