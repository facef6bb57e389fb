"""A small generated data set in the layout of ADE20K, for a first run and for tests."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .layout import generate
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


def draw_ade20k_scene(rng: np.random.Generator, height: int, width: int) -> tuple[Image.Image, Image.Image]:
    """Draw a scene.

    Args:
        rng (np.random.Generator): Random number generator; equal states give equal scenes.
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


def _write_ade20k(folder: Path, num_train: int, num_val: int, size: int, seed: int) -> None:
    """Write the data set into an empty folder."""
    splits = (('training', 'ADE_train', num_train), ('validation', 'ADE_val', num_val))
    for split, (name, stem, count) in enumerate(splits):
        images, annotations = folder / 'images' / name, folder / 'annotations' / name
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng([seed, split, i])
            image, annotation = draw_ade20k_scene(rng, *draw_size(rng, size))
            image.save(images / f'{stem}_{i + 1:08d}.jpg', quality=92)
            annotation.save(annotations / f'{stem}_{i + 1:08d}.png')


generate_ade20k = partial(generate, 'ADEChallengeData2016', _write_ade20k)
