"""Pictures that people look at: large enough, with titles, and never over another."""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmmeta.utils.errors import UsageError
from mmmeta.utils.targets import check_target, check_writable

# Height of titles, and distance between pictures beside each other.
TITLE, GAP = 28, 8
# Ends of the names of what Pillow writes, and Matplotlib.
PICTURES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.gif', '.tif', '.tiff')
FIGURES = ('.png', '.pdf', '.svg', '.jpg')


def check_picture(path: str | Path, suffixes: Sequence[str] = PICTURES) -> None:
    """Check that a picture can be written.

    Args:
        path (str | Path): The file.
        suffixes (Sequence[str]): What it may end in. Defaults to what Pillow writes.

    Raises:
        UsageError: It is a folder, of another format, or in a folder that cannot be written to.
    """
    if Path(path).suffix.lower() not in suffixes:
        wanted = ', '.join(suffixes)
        raise UsageError(f"cannot write '{path}': give the path of a file that ends in {wanted}")
    check_target(path, 'path')


def free_path(path: str | Path) -> Path:
    """A path that nothing has: that which is given, or one with a number.

    Args:
        path (str | Path): A file.

    Raises:
        UsageError: It cannot be written.
    """
    check_writable(Path(path).parent, 'folder')
    return next(numbered for numbered in _numbered(Path(path)) if not numbered.exists())


def free_folder(path: str | Path) -> Path:
    """The path of a folder without content: that which is given, or one with a number.

    Args:
        path (str | Path): The folder, which need not be there.

    Raises:
        UsageError: It is a file, or cannot be written to.
    """
    check_writable(path, 'folder')
    return next(
        numbered
        for numbered in _numbered(Path(path))
        if not numbered.exists() or (numbered.is_dir() and not any(numbered.iterdir()))
    )


def _numbered(path: Path) -> Iterator[Path]:
    """A path, and others with a number."""
    stem, suffix = (path.name, '') if path.is_dir() else (path.stem, path.suffix)
    yield path
    yield from (path.with_name(f'{stem}_{number}{suffix}') for number in count(2))


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
