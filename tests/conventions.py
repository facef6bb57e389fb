"""The generated data sets with labels as people have them."""

import json
import shutil
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement

import numpy as np
from PIL import Image

# Labels of the generated maps, 0 for "other", and what the conventions store for each.
LABELS = (0, 3, 4, 9, 10, 37, 42, 115, 120, 143)
PALETTE = [0, 0, 0, *np.random.default_rng(0).integers(1, 255, 3 * (len(LABELS) - 1)).tolist()]
COLOURS = np.array(PALETTE, np.uint8).reshape(-1, 3)


def _as_is(places: np.ndarray) -> Image.Image:
    return Image.fromarray(np.array(LABELS, np.uint8)[places])


def _palette(places: np.ndarray) -> Image.Image:
    image = Image.fromarray(places.astype(np.uint8), 'P')
    image.putpalette(PALETTE)
    return image


def _ignored_at_the_end(places: np.ndarray) -> Image.Image:
    """0 to 8, and 255 for "other"."""
    return Image.fromarray(np.where(places == 0, 255, places - 1).astype(np.uint8))


def _wide(places: np.ndarray) -> Image.Image:
    return Image.fromarray((np.array(LABELS) * 100).astype(np.uint16)[places])


def _binary(places: np.ndarray) -> Image.Image:
    """Things are 255."""
    return Image.fromarray(np.where(np.isin(places, (0, 1, 2, 4)), 0, 255).astype(np.uint8))


# Name: how a map is stored, arguments of `new`, and the number of classes.
MASKS = {
    'sparse': (_as_is, ('--ignore', '0'), 9),
    'sparse, 0 a class': (_as_is, ('--ignore', 'none'), 10),
    'palette': (_palette, (), 10),
    'ignored 255': (_ignored_at_the_end, (), 9),
    'colours': (lambda places: Image.fromarray(COLOURS[places]), ('--ignore', '0,0,0'), 9),
    '16 bits': (_wide, ('--ignore', '0'), 9),
    '0 and 255': (_binary, (), 2),
}


def store_masks(ade_root: Path, folder: Path, convention: str) -> Path:
    """Write images and maps into ``images`` and ``masks``, each with ``train`` and ``val``."""
    store = MASKS[convention][0]
    for part, own in (('training', 'train'), ('validation', 'val')):
        shutil.copytree(ade_root / 'images' / part, folder / 'images' / own)
        masks = folder / 'masks' / own
        masks.mkdir(parents=True)
        for path in (ade_root / 'annotations' / part).iterdir():
            with Image.open(path) as image:
                places = np.searchsorted(LABELS, np.asarray(image))
            store(places).save(masks / path.name)
    return folder


def store_voc(coco_root: Path, folder: Path) -> Path:
    """Write the objects in Pascal VOC's format."""

    def write(path: Path, image: dict, objects: list) -> None:
        root = Element('annotation')
        SubElement(root, 'filename').text = image['file_name']
        for name, (x, y, w, h) in objects:
            part = SubElement(root, 'object')
            SubElement(part, 'name').text = name
            box = SubElement(part, 'bndbox')
            for key, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), (x, y, x + w, y + h), strict=True):
                SubElement(box, key).text = str(value + 1)
        ElementTree(root).write(path.with_suffix('.xml'))

    return _store_objects(coco_root, folder, 'Annotations', write)


def store_yolo(coco_root: Path, folder: Path) -> Path:
    """Write the objects in YOLO's format, with the names in a YAML file."""
    names = []

    def write(path: Path, image: dict, objects: list) -> None:
        width, height, lines = image['width'], image['height'], []
        for name, (x, y, w, h) in objects:
            if name not in names:
                names.append(name)
            numbers = (x + w / 2) / width, (y + h / 2) / height, w / width, h / height
            lines.append(' '.join([str(names.index(name)), *map(str, numbers)]))
        path.with_suffix('.txt').write_text('\n'.join(lines))

    root = _store_objects(coco_root, folder, 'labels', write)
    (root / 'data.yaml').write_text(f'names: {names}\n')
    return root


def _store_objects(coco_root: Path, folder: Path, name: str, write) -> Path:
    for part, own in (('train2017', 'train'), ('val2017', 'val')):
        shutil.copytree(coco_root / part, folder / 'images' / own)
        (folder / name / own).mkdir(parents=True)
        content = json.loads((coco_root / f'annotations/instances_{part}.json').read_text())
        names = {category['id']: category['name'] for category in content['categories']}
        for image in content['images']:
            objects = [
                (names[part['category_id']], part['bbox'])
                for part in content['annotations']
                if part['image_id'] == image['id'] and not part['iscrowd']
            ]
            write(folder / name / own / image['file_name'], image, objects)
    return folder
