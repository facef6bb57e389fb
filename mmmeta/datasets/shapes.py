"""A small generated data set in the layout of ADE20K, for a first run and for tests.

Scenes have two textured grounds and some shapes on them. A label follows from texture (smooth, grain, tiles)
or from shape and colour together: a warm disc is another class than a cold disc or a warm square, so that
neither colour nor outline alone is enough. Grey crosses are "other": label 0, which ADE20K ignores.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mmmeta.errors import UsageError

# Labels as in ADE20K's annotations: 1 to 150; the names are those of its class list.
GROUNDS = {'sky': 3, 'grass': 10, 'floor': 4}
OBJECTS = {
    ('disc', 'warm'): 120,  # ball
    ('disc', 'cold'): 143,  # plate
    ('square', 'warm'): 42,  # box
    ('square', 'cold'): 9,  # windowpane
    ('triangle', 'warm'): 37,  # lamp
    ('triangle', 'cold'): 115,  # tent
}
OTHER = 0
WARM, COLD = (0, 40), (140, 185)  # hues of 256
MARKER = 'generated.json'


def _ground(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Texture of a ground, ``(height, width, 3)``; its hue says nothing, its pattern does."""
    colour = rng.uniform(70, 170, 3)
    if kind == 'sky':
        shade = np.linspace(-40, 40, height)[:, None] * rng.choice([-1, 1])
        texture = np.broadcast_to(shade, (height, width))
    elif kind == 'grass':
        texture = rng.normal(0, 35, (height, width))
    else:
        tile = int(rng.integers(6, 10))
        rows, columns = np.indices((height, width)) // tile
        texture = ((rows + columns) % 2 * 2.0 - 1) * 30
    return colour + texture[..., None]


def _outline(shape: str, centre: tuple[float, float], size: float, angle: float) -> list[tuple[float, float]]:
    """Corners of a shape as (x, y)."""
    corners = {'triangle': 3, 'square': 4, 'disc': 32}[shape]
    turns = angle + np.arange(corners) * 2 * np.pi / corners
    return [(centre[0] + size * np.cos(t), centre[1] + size * np.sin(t)) for t in turns]


def draw_scene(rng: np.random.Generator, height: int, width: int) -> tuple[Image.Image, Image.Image]:
    """Draw a scene.

    Args:
        rng (np.random.Generator): Source of chance; equal states give equal scenes.
        height (int): Height in pixels.
        width (int): Width in pixels.

    Returns:
        tuple[Image, Image]: The RGB image, and its labels as an 8-bit image (0 = other, 1 to 150).
    """
    above, below = rng.permutation(list(GROUNDS))[:2]
    horizon = int(height * rng.uniform(0.3, 0.7))
    pixels, labels = np.empty((height, width, 3)), np.empty((height, width), np.uint8)
    for kind, rows in ((above, slice(0, horizon)), (below, slice(horizon, height))):
        pixels[rows] = _ground(kind, rows.stop - rows.start, width, rng)
        labels[rows] = GROUNDS[kind]
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    annotation = Image.fromarray(labels)
    on_image, on_annotation = ImageDraw.Draw(image), ImageDraw.Draw(annotation)

    kinds = [list(OBJECTS)[i] for i in rng.permutation(len(OBJECTS))[: rng.integers(3, 6)]]
    for shape, temperature in kinds:
        size = min(height, width) * rng.uniform(0.13, 0.25)
        centre = rng.uniform(size, width - size), rng.uniform(size, height - size)
        outline = _outline(shape, centre, size, rng.uniform(0, 2 * np.pi))
        hue = int(rng.integers(*(WARM if temperature == 'warm' else COLD)))
        hsv = (hue, int(rng.integers(180, 256)), int(rng.integers(160, 256)))
        colour = Image.new('HSV', (1, 1), hsv).convert('RGB').getpixel((0, 0))
        on_image.polygon(outline, fill=colour)
        on_annotation.polygon(outline, fill=OBJECTS[shape, temperature])
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

    The same arguments give the same files. A data set that is there already, complete and made from the same
    arguments, is left as it is; one that was interrupted is never seen under its name.

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
    if num_train < 1 or num_val < 1 or size < 64:
        raise UsageError(
            f'num_train={num_train}, num_val={num_val}, size={size}: give at least one image of each kind, '
            'and at least 64 pixels'
        )
    arguments = dict(num_train=num_train, num_val=num_val, size=size, seed=seed, version=1)
    target = Path(root) / 'ADEChallengeData2016'
    if target.exists():
        marker = target / MARKER
        if not marker.is_file():
            raise UsageError(f"'{target}' exists and was not generated: choose another folder")
        if json.loads(marker.read_text()) == arguments:
            return target
    progress(f'generating {num_train} + {num_val} images in {target}')
    draft = target.with_suffix('.part')
    shutil.rmtree(draft, ignore_errors=True)
    for split, (name, stem, count) in enumerate(
        (('training', 'ADE_train', num_train), ('validation', 'ADE_val', num_val))
    ):
        images, annotations = draft / 'images' / name, draft / 'annotations' / name
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng([seed, split, i])
            sides = size, int(size * rng.uniform(1.0, 1.5))
            height, width = sides if rng.random() < 0.8 else sides[::-1]
            image, annotation = draw_scene(rng, height, width)
            image.save(images / f'{stem}_{i + 1:08d}.jpg', quality=92)
            annotation.save(annotations / f'{stem}_{i + 1:08d}.png')
    (draft / MARKER).write_text(json.dumps(arguments))
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    return target
