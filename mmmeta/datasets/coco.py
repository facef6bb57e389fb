"""A small generated data set in the layout of COCO, for a first run and for tests."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mmmeta.runtime.run import encode_mask

from .layout import generate
from .scenes import OBJECTS, draw_colour, draw_grounds, draw_size, outline

# All 80 categories, as in COCO's own files: configs and metrics rely on them. Identifiers have gaps.
UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
NAMES = (
    'person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign '
    'parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag '
    'tie suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard '
    'tennis_racket bottle wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot '
    'hot_dog pizza donut cake chair couch potted_plant bed dining_table toilet tv laptop mouse remote '
    'keyboard cell_phone microwave oven toaster sink refrigerator book clock vase scissors '
    'teddy_bear hair_drier toothbrush'
)
IDS = (i for i in range(1, 91) if i not in UNUSED)
CATEGORIES = {name.replace('_', ' '): i for name, i in zip(NAMES.split(), IDS, strict=True)}
OBJECT_NAMES = {
    ('disc', 'warm'): 'sports ball',
    ('disc', 'cold'): 'frisbee',
    ('square', 'warm'): 'suitcase',
    ('square', 'cold'): 'tv',
    ('triangle', 'warm'): 'pizza',
    ('triangle', 'cold'): 'kite',
}
# Sizes over the short side of the image; with 160 pixels, COCO's small, medium and large objects occur.
OBJECT_SIZES = (0.06, 0.45)


def _annotate(corners: list[tuple[float, float]]) -> dict[str, Any]:
    """Polygon, box and area of a shape whose corners are all on the image."""
    points = np.round(corners, 2)
    (left, top), (right, bottom) = points.min(0), points.max(0)
    x, y = points.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    box = [round(float(value), 2) for value in (left, top, right - left, bottom - top)]
    return dict(segmentation=[points.ravel().tolist()], bbox=box, area=round(float(area), 2), iscrowd=0)


def draw_coco_scene(
    rng: np.random.Generator, height: int, width: int
) -> tuple[Image.Image, list[dict[str, Any]]]:
    """Draw a scene of up to five objects that do not overlap; one in eight has none, one in six a crowd.

    Args:
        rng (np.random.Generator): Random number generator; equal states give equal scenes.
        height (int): Height in pixels.
        width (int): Width in pixels.

    Returns:
        tuple[Image, list[dict]]: The RGB image, and an annotation for each object and crowd, without
        identifiers.
    """
    image, _ = draw_grounds(rng, height, width)
    on_image = ImageDraw.Draw(image)
    short_side = min(height, width)
    placed: list[tuple[float, float, float]] = []
    annotations: list[dict[str, Any]] = []

    def find_place(size: float) -> tuple[float, float] | None:
        for _ in range(20):
            x, y = rng.uniform(size, width - size), rng.uniform(size, height - size)
            if all(np.hypot(x - a, y - b) > size + other for a, b, other in placed):
                placed.append((x, y, size))
                return x, y
        return None

    empty, crowd = rng.random() < 1 / 8, rng.random() < 1 / 6
    centre = find_place(0.25 * short_side) if crowd and not empty else None
    if centre is not None:
        mask = Image.new('1', image.size)
        shape, temperature = OBJECTS[rng.integers(len(OBJECTS))]
        for turn in rng.uniform(0, 2 * np.pi, 7):
            distance = rng.uniform(0, 0.2) * short_side
            member = centre[0] + distance * np.cos(turn), centre[1] + distance * np.sin(turn)
            corners = outline(shape, member, 0.05 * short_side, rng.uniform(0, 2 * np.pi))
            on_image.polygon(corners, fill=draw_colour(rng, temperature))
            ImageDraw.Draw(mask).polygon(corners, fill=1)
        left, top, right, bottom = mask.getbbox()
        covered = np.asarray(mask)
        annotations.append(
            dict(
                segmentation=encode_mask(covered),
                bbox=[left, top, right - left, bottom - top],
                area=int(covered.sum()),
                iscrowd=1,
                category_id=CATEGORIES[OBJECT_NAMES[shape, temperature]],
            )
        )
    for _ in range(0 if empty else rng.integers(1, 6)):
        shape, temperature = OBJECTS[rng.integers(len(OBJECTS))]
        # As many small as large ones.
        size = short_side * np.exp(rng.uniform(*np.log(OBJECT_SIZES)))
        centre = find_place(size)
        if centre is not None:
            corners = outline(shape, centre, size, rng.uniform(0, 2 * np.pi))
            on_image.polygon(corners, fill=draw_colour(rng, temperature))
            name = OBJECT_NAMES[shape, temperature]
            annotations.append(dict(_annotate(corners), category_id=CATEGORIES[name]))
    return image, annotations


def _write_coco(folder: Path, num_train: int, num_val: int, size: int, seed: int) -> None:
    """Write the data set into an empty folder."""
    (folder / 'annotations').mkdir()
    categories = [dict(id=i, name=name, supercategory='thing') for name, i in CATEGORIES.items()]
    for split, (name, count) in enumerate((('train2017', num_train), ('val2017', num_val))):
        (folder / name).mkdir()
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for i in range(count):
            rng = np.random.default_rng([seed, split, i])
            image, objects = draw_coco_scene(rng, *draw_size(rng, size))
            # Identifiers of the two splits differ, as in COCO.
            image_id = split * num_train + i + 1
            file_name = f'{image_id:012d}.jpg'
            image.save(folder / name / file_name, quality=92)
            images.append(dict(id=image_id, file_name=file_name, height=image.height, width=image.width))
            for annotation in objects:
                annotations.append(dict(annotation, id=len(annotations) + 1, image_id=image_id))
        content = dict(images=images, annotations=annotations, categories=categories)
        (folder / f'annotations/instances_{name}.json').write_text(json.dumps(content))


generate_coco = partial(generate, 'coco', _write_coco)
