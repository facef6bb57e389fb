"""A small generated data set in the layout of ImageNet-1K, for a first run and for tests."""

from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .layout import generate
from .scenes import GROUNDS, OBJECTS, draw_colour, draw_size, draw_texture, outline

# A folder for each class, named by a synset as ImageNet's are: the first of its classes.
SYNSETS = (
    'n01440764 n01443537 n01484850 n01491361 n01494475 n01496331 n01498041 n01514668 n01514859 n01518878 '
    'n01530575 n01531178 n01532829 n01534433 n01537544 n01558993 n01560419 n01580077'
)
#: What each class shows: an object of one shape and temperature on one ground.
CLASSES = dict(zip(SYNSETS.split(), product(OBJECTS, GROUNDS), strict=True))


def draw_picture(
    rng: np.random.Generator, height: int, width: int, thing: tuple[str, str], ground: str
) -> Image.Image:
    """Draw one object on one ground.

    Args:
        rng (np.random.Generator): Random number generator; equal states give equal pictures.
        height (int): Height in pixels.
        width (int): Width in pixels.
        thing (tuple[str, str]): Shape and temperature, one of ``OBJECTS``.
        ground (str): One of ``GROUNDS``.
    """
    image = Image.fromarray(draw_texture(ground, height, width, rng).clip(0, 255).astype(np.uint8))
    size = min(height, width) * rng.uniform(0.2, 0.4)
    centre = rng.uniform(size, width - size), rng.uniform(size, height - size)
    corners = outline(thing[0], centre, size, rng.uniform(0, 2 * np.pi))
    ImageDraw.Draw(image).polygon(corners, fill=draw_colour(rng, thing[1]))
    return image


def _write_imagenet(folder: Path, num_train: int, num_val: int, size: int, seed: int) -> None:
    """Write the data set into an empty folder; images cycle through the classes."""
    for split, (name, count) in enumerate((('train', num_train), ('val', num_val))):
        for synset in CLASSES:
            (folder / name / synset).mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng([seed, split, i])
            synset = list(CLASSES)[i % len(CLASSES)]
            image = draw_picture(rng, *draw_size(rng, size), *CLASSES[synset])
            image.save(folder / name / synset / f'{synset}_{i}.JPEG', quality=92)


generate_imagenet = partial(generate, 'imagenet', _write_imagenet)
