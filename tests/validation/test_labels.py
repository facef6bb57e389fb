"""Labels that a class of the head never gets."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmmeta.validation.labels import check_labels


class Maps(list):
    """A data set of maps, each read by its loader, which maps the label 7 to 255."""

    reduce_zero_label = False

    def __init__(self, folder, labels):
        super().__init__(str(folder / f'{i}.png') for i in range(len(labels)))
        for path, values in zip(self, labels, strict=True):
            Image.fromarray(np.array([values], np.uint8)).save(path)
        self.metainfo = dict(classes=('ground', 'crack'))
        self.pipeline = SimpleNamespace(transforms=[LoadAnnotations()])

    def get_data_info(self, i):
        return dict(seg_map_path=self[i], img_path=self[i], seg_fields=[], reduce_zero_label=False)


class LoadAnnotations:
    def __call__(self, results):
        with Image.open(results['seg_map_path']) as image:
            labels = np.asarray(image)
        results['gt_seg_map'] = np.where(labels == 7, 255, labels)
        return results


@pytest.mark.parametrize(
    ('loader', 'values', 'found'),
    [
        ('train_dataloader', (0, 255), [('store 1 in place of 255', False)]),
        ('val_dataloader', (0, 255), [('if 255 is class 1, store 1 in its place', True)]),
        ('train_dataloader', (0, 7), []),
        ('val_dataloader', (0, 7), []),
        ('val_dataloader', (0, 1, 255), []),
    ],
)
def test_255_is_called_a_class_where_files_store_it_alone(tmp_path, loader, values, found):
    findings = list(check_labels(loader, Maps(tmp_path, [values]), 2))
    assert [finding.is_warning for finding in findings] == [is_warning for _, is_warning in found]
    assert all(finding.text.endswith(text) for finding, (text, _) in zip(findings, found, strict=True))
