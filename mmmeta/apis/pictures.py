"""Pictures that people look at: large enough, with titles, and never over another."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmmeta.errors import UsageError

# The EXIF tag; from 5 on images are turned by a quarter.
ORIENTATION = 0x0112
# Height of titles, and distance between pictures beside each other.
TITLE, GAP = 28, 8


def shown_size(path: str | Path) -> tuple[int, int]:
    """Height and width of an image as it is to be seen, which is how pipelines read it; nothing is decoded.

    Args:
        path (str | Path): The file.
    """
    with Image.open(path) as image:
        turned = image.getexif().get(ORIENTATION, 1) > 4
        return image.size if turned else image.size[::-1]


def free_path(path: str | Path) -> Path:
    """A path that nothing has: that which is given, or one with a number.

    Args:
        path (str | Path): A file, or a folder, which is free if nothing is in it.

    Raises:
        UsageError: Its folder cannot be made.
    """
    given = path = Path(path)
    stem, suffix = (given.name, '') if given.is_dir() else (given.stem, given.suffix)
    for number in count(2):
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            break
        path = given.with_name(f'{stem}_{number}{suffix}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot write '{path}' ({error.strerror}): choose a place in another folder"
        ) from error
    return path


def beside(panels: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
    """Pictures of one height beside each other, each below its title.

    Args:
        panels (Sequence[tuple[str, np.ndarray]]): Titles and RGB arrays.
    """
    return grid([title for title, _ in panels], [[pixels for _, pixels in panels]])


def grid(titles: Sequence[str], rows: Sequence[Sequence[np.ndarray]], height: int = TITLE) -> Image.Image:
    """Pictures in rows, with a title above each column.

    Args:
        titles (Sequence[str]): Of the columns.
        rows (Sequence[Sequence[np.ndarray]]): RGB arrays; those of a column are centred.
        height (int): Height of the titles in pixels. Defaults to 28.
    """
    widths = [max(row[i].shape[1] for row in rows) for i in range(len(titles))]
    heights = [max(pixels.shape[0] for pixels in row) for row in rows]
    size = sum(widths) + GAP * (len(widths) + 1), height + sum(heights) + GAP * len(heights)
    picture = Image.new('RGB', size, 'white')
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(height * 0.6)
    left = GAP
    for title, width in zip(titles, widths, strict=True):
        draw.text((left + width / 2, height / 2), title, 'black', font, anchor='mm')
        left += width + GAP
    top = height
    for row, tallest in zip(rows, heights, strict=True):
        left = GAP
        for pixels, width in zip(row, widths, strict=True):
            place = left + (width - pixels.shape[1]) // 2, top + (tallest - pixels.shape[0]) // 2
            picture.paste(Image.fromarray(pixels), place)
            left += width + GAP
        top += tallest + GAP
    return picture
