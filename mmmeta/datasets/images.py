"""Sizes of images as they are stored and shown."""

from pathlib import Path

from mmmeta.runtime.run import stored_as

# Values of EXIF's orientation for images that are stored lying on their side.
ON_ITS_SIDE = range(5, 9)


def stored_size(path: str | Path) -> tuple[tuple[int, int], bool]:
    """Width and height of an image as it is stored, and whether EXIF turns it by a quarter.

    Nothing is decoded.

    Args:
        path (str | Path): The file.

    Raises:
        RuntimeProblem: It is missing, damaged or not an image.
    """
    stored = stored_as(path)
    return stored.size[::-1], stored.orientation in ON_ITS_SIDE


def shown_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image as it is to be seen, which is how pipelines read it.

    Args:
        path (str | Path): The file.

    Raises:
        RuntimeProblem: It is missing, damaged or not an image.
    """
    (width, height), is_turned = stored_size(path)
    return (width, height) if is_turned else (height, width)
