"""What the generated data sets show: textured grounds and shapes on them.

A ground is defined by texture (smooth, grain, tiles), a shape by outline and colour together: a warm disc is
another thing than a cold disc or a warm square, so that neither colour nor outline alone is enough.
"""

import numpy as np
from PIL import Image

GROUNDS = ('sky', 'grass', 'floor')
OBJECTS = tuple((shape, hue) for shape in ('disc', 'square', 'triangle') for hue in ('warm', 'cold'))
HUES = dict(warm=(0, 40), cold=(140, 185))  # of 256


def draw_texture(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the texture of a ground; identified by its pattern, not by its hue.

    Args:
        kind (str): One of ``GROUNDS``.
        height (int): Height in pixels.
        width (int): Width in pixels.
        rng (np.random.Generator): Random number generator; equal states give equal textures.

    Returns:
        np.ndarray: ``(height, width, 3)``, to be clipped to 0 to 255.
    """
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


def outline(shape: str, centre: tuple[float, float], size: float, angle: float) -> list[tuple[float, float]]:
    """Corners of a shape as (x, y).

    Args:
        shape (str): ``'disc'``, ``'square'`` or ``'triangle'``.
        centre (tuple[float, float]): Its centre, (x, y).
        size (float): Distance of the corners from the centre in pixels.
        angle (float): Rotation in radians.
    """
    corners = {'triangle': 3, 'square': 4, 'disc': 32}[shape]
    turns = angle + np.arange(corners) * 2 * np.pi / corners
    return [(centre[0] + size * np.cos(t), centre[1] + size * np.sin(t)) for t in turns]


def draw_grounds(
    rng: np.random.Generator, height: int, width: int
) -> tuple[Image.Image, list[tuple[str, slice]]]:
    """Draw two grounds above each other.

    Args:
        rng (np.random.Generator): Random number generator; equal states give equal pictures.
        height (int): Height in pixels.
        width (int): Width in pixels.

    Returns:
        tuple[Image, list[tuple[str, slice]]]: The RGB image, and the name and the rows of each ground.
    """
    above, below = rng.permutation(GROUNDS)[:2]
    horizon = int(height * rng.uniform(0.3, 0.7))
    grounds = [(str(above), slice(0, horizon)), (str(below), slice(horizon, height))]
    pixels = np.empty((height, width, 3))
    for kind, rows in grounds:
        pixels[rows] = draw_texture(kind, rows.stop - rows.start, width, rng)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), grounds


def draw_colour(rng: np.random.Generator, temperature: str) -> tuple[int, int, int]:
    """Draw a random RGB colour: ``'warm'`` or ``'cold'``, strong and bright."""
    hsv = (int(rng.integers(*HUES[temperature])), int(rng.integers(180, 256)), int(rng.integers(160, 256)))
    return Image.new('HSV', (1, 1), hsv).convert('RGB').getpixel((0, 0))


def draw_size(rng: np.random.Generator, short_side: int) -> tuple[int, int]:
    """Height and width of an image: one in five upright, the long side up to 1.5 times the short one."""
    sides = short_side, int(short_side * rng.uniform(1.0, 1.5))
    return sides if rng.random() < 0.8 else sides[::-1]
