"""Sizes of images as they are shown."""

from pathlib import Path

from PIL import Image

# The EXIF tag; from 5 on images are turned by a quarter.
ORIENTATION = 0x0112


def shown_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image as it is to be seen, which is how pipelines read it; nothing is decoded.

    Args:
        path (str | Path): The file.
    """
    with Image.open(path) as image:
        turned = image.getexif().get(ORIENTATION, 1) > 4
        return image.size if turned else image.size[::-1]
