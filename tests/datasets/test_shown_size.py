"""Sizes of images as they are to be seen."""

import pytest
from PIL import Image, ImageOps

from mmmeta.datasets.images import shown_size

ORIENTATION = 0x0112


@pytest.mark.parametrize('orientation', [None, *range(1, 9)])
def test_of_every_orientation(orientation, tmp_path):
    path, exif = tmp_path / 'a.jpg', Image.Exif()
    if orientation:
        exif[ORIENTATION] = orientation
    Image.new('RGB', (48, 32)).save(path, exif=exif)
    with Image.open(path) as image:
        assert shown_size(path) == ImageOps.exif_transpose(image).size[::-1]
