"""Sizes of images as they are stored and shown."""

from pathlib import Path

from PIL import Image

# The EXIF tag, and its values for images that are stored lying on their side.
ORIENTATION, ON_ITS_SIDE = 0x0112, range(5, 9)


def stored_size(path: str | Path) -> tuple[tuple[int, int], bool]:
    """Width and height of an image as it is stored, and whether EXIF turns it by a quarter.

    Nothing is decoded.

    Args:
        path (str | Path): The file.
    """
    with Image.open(path) as image:
        return image.size, image.getexif().get(ORIENTATION) in ON_ITS_SIDE


def shown_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image as it is to be seen, which is how pipelines read it.

    Args:
        path (str | Path): The file.
    """
    (width, height), is_turned = stored_size(path)
    return (width, height) if is_turned else (height, width)
