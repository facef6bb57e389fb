"""A small generated data set in the layout of ADE20K, for a first run and for tests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .layout import write_once
from .scenes import OBJECTS, draw_colour, draw_grounds, draw_size, outline

# Labels as in ADE20K's annotations, 1 to 150; grey crosses are "other": label 0, which ADE20K ignores.
LABELS = {
    'sky': 3,
    'grass': 10,
    'floor': 4,
    ('disc', 'warm'): 120,  # ball
    ('disc', 'cold'): 143,  # plate
    ('square', 'warm'): 42,  # box
    ('square', 'cold'): 9,  # windowpane
    ('triangle', 'warm'): 37,  # lamp
    ('triangle', 'cold'): 115,  # tent
}
OTHER = 0


def draw_scene(rng: np.random.Generator, height: int, width: int) -> tuple[Image.Image, Image.Image]:
    """Draw a scene.

    Args:
        rng (np.random.Generator): Source of chance; equal states give equal scenes.
        height (int): Height in pixels.
        width (int): Width in pixels.

    Returns:
        tuple[Image, Image]: The RGB image, and its labels as an 8-bit image (0 = other, 1 to 150).
    """
    image, grounds = draw_grounds(rng, height, width)
    labels = np.empty((height, width), np.uint8)
    for kind, rows in grounds:
        labels[rows] = LABELS[kind]
    annotation = Image.fromarray(labels)
    on_image, on_annotation = ImageDraw.Draw(image), ImageDraw.Draw(annotation)

    kinds = [OBJECTS[i] for i in rng.permutation(len(OBJECTS))[: rng.integers(3, 6)]]
    for shape, temperature in kinds:
        size = min(height, width) * rng.uniform(0.13, 0.25)
        centre = rng.uniform(size, width - size), rng.uniform(size, height - size)
        corners = outline(shape, centre, size, rng.uniform(0, 2 * np.pi))
        on_image.polygon(corners, fill=draw_colour(rng, temperature))
        on_annotation.polygon(corners, fill=LABELS[shape, temperature])
    if rng.random() < 0.5:
        x, y, arm = rng.uniform(0, width), rng.uniform(0, height), min(height, width) * 0.06
        for box in (
            (x - arm, y - arm / 3, x + arm, y + arm / 3),
            (x - arm / 3, y - arm, x + arm / 3, y + arm),
        ):
            on_image.rectangle(box, fill=(128, 128, 128))
            on_annotation.rectangle(box, fill=OTHER)
    return image, annotation


def generate_ade20k(
    root: str | Path,
    num_train: int = 240,
    num_val: int = 40,
    size: int = 160,
    seed: int = 0,
    progress: Callable[[str], None] = print,
) -> Path:
    """Write a generated data set as ``root/ADEChallengeData2016``, in ADE20K's own layout.

    The same arguments give the same files; where they are already, nothing is done.

    Args:
        root (str | Path): Folder for the data set.
        num_train (int): Training images. Defaults to 240.
        num_val (int): Validation images. Defaults to 40.
        size (int): Short side of the images in pixels, at least 64; the long side is up to 1.5 times that.
            Defaults to 160.
        seed (int): Seed of the scenes. Defaults to 0.
        progress (callable): Is told what is done. Defaults to print.

    Returns:
        Path: ``root/ADEChallengeData2016``.

    Raises:
        UsageError: A number is too small, or something else stands at that place.
    """

    def write(folder: Path) -> None:
        splits = (('training', 'ADE_train', num_train), ('validation', 'ADE_val', num_val))
        for split, (name, stem, count) in enumerate(splits):
            images, annotations = folder / 'images' / name, folder / 'annotations' / name
            images.mkdir(parents=True)
            annotations.mkdir(parents=True)
            for i in range(count):
                rng = np.random.default_rng([seed, split, i])
                image, annotation = draw_scene(rng, *draw_size(rng, size))
                image.save(images / f'{stem}_{i + 1:08d}.jpg', quality=92)
                annotation.save(annotations / f'{stem}_{i + 1:08d}.png')

    arguments = dict(num_train=num_train, num_val=num_val, size=size, seed=seed, version=1)
    return write_once(Path(root) / 'ADEChallengeData2016', arguments, write, progress)
