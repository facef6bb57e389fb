"""What image files store against what pipelines read of it."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from PIL import Image

from mmmeta.datasets.transforms import LoadMappedLabels, LoadUnchangedImage
from mmmeta.validation.depth import check_depth, describe_inputs

GREY16 = np.full((8, 8), 300, np.uint16)
RGB16 = np.full((8, 8, 3), 300, np.uint16)
RGBA = np.full((8, 8, 4), 9, np.uint8)


class Dataset(list):
    """One image, and the steps that read it."""

    def __init__(self, path, *steps, maps=None):
        super().__init__([dict(img_path=str(path), seg_map_path=maps and str(maps))])
        self.pipeline = SimpleNamespace(transforms=steps)
        self.reduce_zero_label = False
        self.get_data_info = self.__getitem__


@pytest.mark.parametrize(
    ('pixels', 'loader', 'said'),
    [
        (GREY16, dict(), 'reads 8 bits of red, green and blue'),
        (GREY16, dict(color_type='grayscale'), 'reads 8 bits of grey'),
        (GREY16, dict(color_type='unchanged'), None),
        (RGB16, dict(), 'channels=3), model.backbone.in_channels=3'),
        (RGB16, dict(color_type='unchanged'), None),
        (RGB16, dict(color_type='unchanged', imdecode_backend='pillow'), 'does not read that'),
        (RGBA, dict(), None),  # transparency
    ],
)
def test_images(tmp_path, pixels, loader, said):
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    found = list(check_depth('train_dataloader', Dataset(tmp_path / 'a.png', LoadImageFromFile(**loader))))
    assert [one.key for one in found] == (['train_dataloader.dataset.pipeline'] if said else [])
    assert all(said in one.text and not one.is_warning for one in found)
    own = LoadUnchangedImage(pixels.shape[2] if pixels.ndim == 3 else 1)
    assert not list(check_depth('train_dataloader', Dataset(tmp_path / 'a.png', own)))


def test_files_that_are_not_there_or_not_images_are_left_to_other_checks(tmp_path):
    (tmp_path / 'a.png').write_text('no image')
    for name in ('a.png', 'b.png'):
        assert not list(check_depth('', Dataset(tmp_path / name, LoadImageFromFile())))


@pytest.mark.parametrize(
    ('labels', 'said'),
    [
        (np.array([[0, 300]], np.uint16), '300 becomes 44'),
        (np.array([[-9999, 3]], np.float32), '-9999 becomes 241'),
        (np.array([[-1, 3]], np.float32), None),
        (np.array([[0, 255]], np.uint16), None),
    ],
)
def test_labels(tmp_path, labels, said):
    Image.fromarray(labels).save(tmp_path / 'a.tif')
    Image.fromarray(RGBA).save(tmp_path / 'a.png')
    for loader in (LoadAnnotations(with_seg=True), LoadMappedLabels([0, 3], [300, 255, -1, -9999])):
        data = Dataset(tmp_path / 'a.png', loader, maps=tmp_path / 'a.tif')
        found = list(check_depth('train_dataloader', data))
        expected = said if type(loader) is LoadAnnotations else None
        assert len(found) == bool(expected) and all(expected in one.text for one in found)


def test_what_a_network_gets_is_described():
    """Against the mean and standard deviation of its preprocessor, in its order of channels."""
    image = torch.stack([torch.full((8, 8), level) for level in (10.0, 100.0, 200.0)])
    image[:, ::2] += 20
    right = dict(mean=[210, 110, 20], std=[10, 10, 10], bgr_to_rgb=True)
    fact, findings = describe_inputs('val_dataloader', [image], right)
    assert fact == (
        'images of val_dataloader: 3 channels, values from 10 to 220, mean 20 110 210, '
        'standard deviation 10 10 10'
    )
    assert not list(findings)
    (finding,) = describe_inputs('val_dataloader', [image], dict(right, bgr_to_rgb=False))[1]
    assert finding.is_warning and 'in channel 0 the mean 20 and the standard deviation 10' in finding.text
    for odd in (dict(std=[10, 1e3, 10]), dict(std=[10, 1, 10]), dict(mean=[210, 180, 20])):
        assert len(list(describe_inputs('val_dataloader', [image], {**right, **odd})[1])) == 1
    assert not list(describe_inputs('val_dataloader', [image], {})[1])
