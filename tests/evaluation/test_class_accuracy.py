"""Accuracy of each class, counted by hand."""

import pytest
import torch
from mmengine.logging import MMLogger

from mmmeta.evaluation.class_accuracy import ClassAccuracy
from mmmeta.utils.errors import UsageError


def sample_of(annotated, predicted):
    return dict(gt_label=torch.tensor([annotated]), pred_label=torch.tensor([predicted]))


def test_a_table_and_the_mean_over_classes_with_images(tmp_path):
    metric = ClassAccuracy()
    metric.dataset_meta = dict(classes=('cat', 'a [red] dog', 'owl'))
    logger = MMLogger.get_instance('class_accuracy', log_file=str(tmp_path / 'run.log'))
    metric.process({}, [sample_of(*pair) for pair in ((0, 0), (0, 1), (0, 0), (0, 0), (1, 0))])
    assert metric.evaluate(5) == {'accuracy/mean_class': 37.5}
    logger.handlers[-1].flush()
    rows = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in (tmp_path / 'run.log').read_text().splitlines()
        if line.startswith('|')
    ]
    assert rows == [
        ['class', 'accuracy', 'images'],
        ['cat', '75.00', '4'],
        ['a [red] dog', '0.00', '1'],
        ['owl', 'nan', '0'],
    ]


def test_several_labels_are_refused():
    with pytest.raises(UsageError, match='images with several labels have no accuracy of a class'):
        ClassAccuracy().process({}, [dict(gt_label=torch.tensor([0, 1]), pred_label=torch.tensor([0]))])
