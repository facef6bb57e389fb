"""Files of LabelMe and of CVAT: shapes on images, as COCO's format has objects.

Datumaro, which converts CVAT's, does not install beside this stack, writes masks as crowds, and leaves out
ellipses and rotated boxes; LabelMe's it does not read.
"""

import base64
import math
import os
import posixpath
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmmeta.datasets.transforms import IMAGE_ERRORS
from mmmeta.runtime.run import encode_mask
from mmmeta.utils.errors import UsageError, counted, shorten
from mmmeta.validation.objects import LIMIT, read_json

from .folders import IMAGE_SUFFIXES, Progress, image_size, list_files

OPTION = '--annotations'
# What has no area, as LabelMe and CVAT call it.
WITHOUT_AREA = ('point', 'points', 'line', 'linestrip', 'polyline', 'cuboid', 'skeleton', 'tag')
# Corners of a polygon in place of a circle: up to a radius of 400 pixels within half of one.
CORNERS = 64
SIZE = ('height', 'width')
# Name, box, polygons or RLE, and whether it is a crowd.
Described = tuple[str, list[float], Any, int]


@dataclass(frozen=True)
class Shape:
    """A shape on an image.

    Attributes:
        name (str): Its class.
        box (tuple[float, float, float, float]): Left, top, right and bottom in pixels.
        polygon (tuple[float, ...] | None): Its corners, x and y. Defaults to None.
        mask (np.ndarray | None): Boolean, ``(H, W)`` of the image. Defaults to None.
        group (int | None): Shapes of a group and a class are one object. Defaults to None.
    """

    name: str
    box: tuple[float, float, float, float]
    polygon: tuple[float, ...] | None = None
    mask: np.ndarray | None = None
    group: int | None = None


def read_labelme(
    folder: Path,
    images: Path,
    files: list[str],
    assumed: list[str],
    progress: Progress,
) -> tuple[list[list[Described]], list[str]]:
    """Read LabelMe's files, one for an image, which it names or has the name of.

    Args:
        folder (Path): Their folder.
        images (Path): The folder of the images.
        files (list[str]): The images, relative to it.
        assumed (list[str]): What is left out, and what is taken together, is added.
        progress (callable): Wraps the files while they are read; it is given their number as well.

    Returns:
        tuple[list[list[tuple]], list[str]]: Name, box, polygons or RLE, and 0 for no crowd of the objects of
        each image; and the names of the classes, sorted.

    Raises:
        UsageError: A file is not LabelMe's, or is not one for the image that it names.
    """
    there = _by_stem(list_files(images, IMAGE_SUFFIXES, '--images'))
    paths = [folder / name for name in list_files(folder, ('.json',), OPTION)]
    read: dict[str, tuple[Path, list[Described]]] = {}
    lost: list[Path] = []
    notes: Counter[str] = Counter()
    for path in progress(paths, len(paths)):
        content = read_json(path, 'utf-8-sig')
        if not isinstance(content, dict) or not isinstance(content.get('shapes'), list):
            if isinstance(content, dict) and isinstance(content.get('images'), list):
                raise UsageError(f"{OPTION}: '{path}' is a file of COCO's format: give it, not its folder")
            raise UsageError(f"{OPTION}: '{path}' has no list of shapes, as LabelMe's files have")
        image = _image_of(path, content.get('imagePath'), folder, images, there)
        if image is None:
            lost.append(path)
            continue
        if image in read:
            raise UsageError(
                f"{OPTION}: '{read[image][0]}' and '{path}' are both of the image '{image}': remove one"
            )
        size = image_size(images / image)
        _check_size(path, image, (content.get('imageHeight'), content.get('imageWidth')), size)
        shapes: list[Shape] = []
        for part in content['shapes']:
            try:
                shapes += _read_shape(part, size, notes)
            except ValueError as error:
                raise UsageError(f"{OPTION}: '{path}' has {error}") from error
        read[image] = path, _join_groups(shapes, f"'{path}'", notes)
    if not read:
        raise UsageError(
            f"{OPTION}: no file of '{folder}' is of an image below '{images}', such as '{lost[0]}': give the "
            'folder of the images (--images)'
        )
    if lost:
        assumed.append(
            f"{len(lost)} of {len(paths)} files of '{folder}' have no image below '{images}', such as "
            f"'{lost[0]}', and are not used"
        )
    _say_notes(notes, assumed)
    objects = [read[name][1] if name in read else [] for name in files]
    return objects, sorted({name for part in objects for name, *_ in part})


def _by_stem(files: Sequence[str]) -> dict[str, list[str]]:
    """Files by their names without the endings."""
    named: dict[str, list[str]] = {}
    for name in files:
        named.setdefault(os.path.splitext(name)[0], []).append(name)
    return named


def _image_of(path: Path, named: Any, folder: Path, images: Path, there: dict[str, list[str]]) -> str | None:
    """The image that a file of LabelMe's names, or has the name of; None if it is not there.

    Names are compared with those of the images alone, so that none leads out of their folder.
    """
    inside = path.relative_to(folder)
    alike = there.get(inside.with_suffix('').as_posix(), [])
    places = ['']
    if isinstance(named, str) and '\0' not in named:
        named = named.replace('\\', '/')  # of Windows
        absolute = os.path.normpath(os.path.join(os.path.abspath(path.parent), named))
        places = [
            os.path.relpath(absolute, os.path.abspath(images)).replace(os.sep, '/'),
            *(
                posixpath.normpath(posixpath.join(inside.parent.as_posix(), name))
                for name in (named, posixpath.basename(named))
            ),
        ]
    image = next((place for place in places if place in there.get(os.path.splitext(place)[0], ())), None)
    if image is not None and alike and image not in alike:
        raise UsageError(
            f"{OPTION}: '{path}' has the name of the image '{alike[0]}', and its imagePath names '{image}': "
            'correct one of them'
        )
    return image or next(iter(alike), None)


def _read_shape(part: Any, size: tuple[int, int], notes: Counter[str]) -> Iterator[Shape]:
    """A shape of LabelMe's; nothing of one without an area.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(part, dict):
        raise ValueError(f'a shape that is not an object with keys: {shorten([repr(part)[:60]])}')
    name, kind, group = part.get('label'), part.get('shape_type') or 'polygon', part.get('group_id')
    if not isinstance(name, str) or not name.strip():
        raise ValueError('a shape without a label')
    if kind in WITHOUT_AREA:
        notes[kind] += 1
        return
    points = part.get('points')
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise ValueError(f"a shape '{name}' whose points are not pairs of numbers")
    values = _check_numbers([value for point in points for value in point], name)
    least = dict(polygon=3, rotation=3, oriented_rectangle=3, rectangle=2, circle=2, mask=2)
    if not isinstance(kind, str) or kind not in least:
        raise ValueError(f"a shape '{name}' of type {kind!r}, and types are {shorten([*least, 'line'], 9)}")
    if len(points) < least[kind]:
        said = f'{counted(len(points), "point")}, and {least[kind]} are the least'
        raise ValueError(f"a {kind} '{name}' of {said}")
    group = group if isinstance(group, int) else None
    if kind == 'circle':
        x, y, *edge = values[:4]
        radius = math.dist((x, y), edge)
        yield _outlined(name, _ellipse(x, y, radius, radius, 0), group)
    elif kind == 'rectangle':
        yield Shape(name, _bounds(values), group=group)
    elif kind == 'mask':
        left, top, right, bottom = map(int, _bounds(values))
        mask = _decode_mask(part.get('mask'), (right - left + 1, bottom - top + 1), name)
        yield _masked(name, mask, left, top, size, group)
    else:
        yield _outlined(name, values, group)


def _decode_mask(text: Any, size: tuple[int, int], name: str) -> np.ndarray:
    """The mask of a shape of LabelMe's, a PNG file of the size of its box."""
    try:
        with Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=['PNG']) as image:
            found = image.size
            mask = np.asarray(image.convert('L')) > 0 if found == size else None
    except IMAGE_ERRORS as error:
        raise ValueError(f"a mask '{name}' that is not a PNG file in base64") from error
    if mask is None:
        raise ValueError(f"a mask '{name}' of {found[0]}x{found[1]} pixels in a box of {size[0]}x{size[1]}")
    return mask


def read_cvat(
    path: Path, images: Path, files: list[str], assumed: list[str]
) -> tuple[list[str], list[list[Described]], list[str]]:
    """Read an XML file of CVAT's, "CVAT for images".

    Args:
        path (Path): The file.
        images (Path): The folder of the images.
        files (list[str]): The images that are wanted, relative to it.
        assumed (list[str]): What is left out, and what is taken together, is added.

    Returns:
        tuple[list[str], list[list[tuple]], list[str]]: Those images of ``files`` that are in the file; name,
        box, polygons or RLE, and 0 for no crowd of the objects of each; and the names of the classes, in
        the order of the file.

    Raises:
        UsageError: It is something else, or images are not below the folder.
    """
    there = set(list_files(images, IMAGE_SUFFIXES, '--images'))
    root = _read_cvat_root(path)
    notes: Counter[str] = Counter()
    read: dict[str, list[Described]] = {}
    lost, wanted = [], set(files)
    for element in root.iter('image'):
        name = _cvat_name(element, there)
        if name not in there:
            lost.append(name)
        elif name in read:
            raise UsageError(f"{OPTION}: '{path}' has the image '{name}' twice: remove one")
        elif name in wanted:
            size, place = image_size(images / name), f"image '{name}' of '{path}'"
            try:
                given = [_number(element, key) if key in element.attrib else None for key in SIZE]
                shapes = [shape for part in element for shape in _read_element(part, size, notes)]
            except ValueError as error:
                raise UsageError(f'{OPTION}: {place} has {error}') from error
            _check_size(path, name, given, size)
            read[name] = _join_groups(shapes, place, notes)
    refuse_lost(lost, len(read) + len(lost), path, images)
    _say_notes(notes, assumed)
    listed = [found.strip() for label in root.iter('label') if (found := label.findtext('name'))]
    used = sorted({name for part in read.values() for name, *_ in part})
    names = [name for name in files if name in read]
    return names, [read[name] for name in names], [*dict.fromkeys([*listed, *used])]


def cvat_subsets(path: Path, images: Path) -> dict[str, set[str]]:
    """Images of each subset in an XML file of CVAT's, with ``''`` for none, relative to their folder."""
    there = set(list_files(images, IMAGE_SUFFIXES, '--images'))
    subsets: dict[str, set[str]] = {}
    for element in _read_cvat_root(path).iter('image'):
        subsets.setdefault(element.get('subset', ''), set()).add(_cvat_name(element, there))
    return subsets


def find_cvat(labels: Path | None) -> Path | None:
    """Return the XML file of CVAT's that labels are, or that lies in their folder; None if there is none."""
    if labels is None or not labels.is_dir():
        return labels if labels is not None and labels.suffix.lower() == '.xml' else None
    path = labels / 'annotations.xml'
    return path if path.is_file() and parse_xml(path).tag == 'annotations' else None


def refuse_shapes(labels: Path | None) -> None:
    """Refuse files of shapes or objects where annotation maps are wanted.

    Args:
        labels (Path | None): A file or folder.

    Raises:
        UsageError: It is such a file, or has them and no image.
    """
    if labels is None or not labels.exists():
        return
    files = (name for _, _, names in os.walk(labels) for name in names) if labels.is_dir() else [labels.name]
    endings = {os.path.splitext(name)[1].lower() for name in files}
    found = endings & {'.json', '.xml'}
    if found and endings.isdisjoint(IMAGE_SUFFIXES):
        raise UsageError(
            f"--masks: '{labels}' has {' and '.join(sorted(found))} files, and the labels of all pixels are "
            'wanted as images: export masks (of CVAT "Segmentation mask 1.1", LabelMe\'s labelme2voc.py), or '
            'learn objects with their masks (new det)'
        )


def _read_cvat_root(path: Path) -> ElementTree.Element:
    root = parse_xml(path)
    if root.tag != 'annotations':
        raise UsageError(
            f"{OPTION}: '{path}' is not CVAT's: its first element is {root.tag[:60]!r}, not 'annotations'; "
            "give the folder of Pascal VOC's .xml files"
        )
    if root.find('track') is not None:
        raise UsageError(
            f'{OPTION}: \'{path}\' is "CVAT for video", which numbers frames and names no images: export the '
            'task as "CVAT for images 1.1", which has the tracks frame by frame'
        )
    if root.find('image') is None:
        raise UsageError(f'{OPTION}: \'{path}\' has no image: export the task as "CVAT for images 1.1"')
    return root


def _cvat_name(element: ElementTree.Element, there: set[str]) -> str:
    """The image of an element: the folder of its subset may stand in front of its name."""
    name = element.get('name', '').replace('\\', '/')
    with_subset = posixpath.join(element.get('subset', ''), name)
    return next((p for p in map(posixpath.normpath, (name, with_subset)) if p in there), name)


def _read_element(part: ElementTree.Element, size: tuple[int, int], notes: Counter[str]) -> Iterator[Shape]:
    """A shape of CVAT's; nothing of one without an area, or outside of the image.

    Raises:
        ValueError: It is something else.
    """
    kind, name = part.tag, part.get('label', '').strip()
    if kind in WITHOUT_AREA:
        notes[kind] += 1
        return
    if part.get('outside') == '1':
        notes['outside'] += 1
        return
    if kind not in ('box', 'polygon', 'mask', 'ellipse'):
        raise ValueError(f'a shape of type {kind[:60]!r}, and types are box, polygon, mask, ellipse')
    if not name:
        raise ValueError(f'a {kind} without a label')
    group = int(_number(part, 'group_id', '0')) or None
    turned = _number(part, 'rotation', '0')
    if kind == 'box':
        left, top, right, bottom = (_number(part, key) for key in ('xtl', 'ytl', 'xbr', 'ybr'))
        if right < left or bottom < top:
            raise ValueError(f"a box '{name}' that is not xtl <= xbr, ytl <= ybr")
        if not turned:
            yield Shape(name, (left, top, right, bottom), group=group)
            return
        corners = (left, top, right, top, right, bottom, left, bottom)
        yield _outlined(name, _turn(corners, (left + right) / 2, (top + bottom) / 2, turned), group)
    elif kind == 'ellipse':
        x, y, across, down = (_number(part, key) for key in ('cx', 'cy', 'rx', 'ry'))
        yield _outlined(name, _ellipse(x, y, across, down, turned), group)
    elif kind == 'polygon':
        pairs = [point.split(',') for point in part.get('points', '').split(';')]
        if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"a polygon '{name}' that is not x and y of three points or more")
        values = _check_numbers([_parse(value, name) for pair in pairs for value in pair], name)
        yield _outlined(name, values, group)
    else:
        left, top, width, height = (_whole(part, key) for key in ('left', 'top', 'width', 'height'))
        try:
            runs = [int(run) for run in part.get('rle', '').split(',')]
        except ValueError as error:
            raise ValueError(f"a mask '{name}' whose rle is not whole numbers") from error
        # Before it is unpacked; runs go along the rows of the box, the first one outside of the object.
        if min(runs) < 0 or sum(runs) != width * height or width > size[1] or height > size[0]:
            raise ValueError(f"a mask '{name}' whose rle is not that of {width}x{height} pixels of the image")
        flat = np.repeat(np.arange(len(runs)) % 2 > 0, runs)
        yield _masked(name, flat.reshape(height, width), left, top, size, group)


def _number(part: ElementTree.Element, key: str, default: str | None = None) -> float:
    return _check_numbers([_parse(part.get(key, default), key)], key)[0]


def _whole(part: ElementTree.Element, key: str) -> int:
    value = _number(part, key)
    if value % 1:
        raise ValueError(f"{value} for '{key}', which is not a whole number")
    return int(value)


def _parse(text: str | None, name: str) -> float:
    try:
        return float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(text)[:60]!r} for '{name[:60]}', which is not a number") from error


def _check_numbers(values: Sequence[Any], name: str) -> tuple[float, ...]:
    """Numbers of pixels, as floats."""
    if not all(type(value) in (int, float) and -LIMIT < value < LIMIT for value in values):
        raise ValueError(f"a value of '{name[:60]}' that is not a number of pixels")
    return tuple(map(float, values))


def _bounds(values: Sequence[float]) -> tuple[float, float, float, float]:
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])


def _turn(values: Sequence[float], x: float, y: float, degrees: float) -> tuple[float, ...]:
    """Turn points clockwise about another one."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points = ((a - x, b - y) for a, b in zip(values[::2], values[1::2], strict=True))
    return tuple(value for a, b in points for value in (x + a * cos - b * sin, y + a * sin + b * cos))


def _ellipse(x: float, y: float, rx: float, ry: float, degrees: float) -> tuple[float, ...]:
    angles = [2 * math.pi * i / CORNERS for i in range(CORNERS)]
    points = tuple(value for a in angles for value in (x + rx * math.cos(a), y + ry * math.sin(a)))
    return _turn(points, x, y, degrees)


def _outlined(name: str, values: tuple[float, ...], group: int | None) -> Shape:
    return Shape(name, _bounds(values), polygon=values, group=group)


def _masked(name: str, mask: np.ndarray, left: int, top: int, size: tuple[int, int], group: Any) -> Shape:
    """A mask of a part of the image, on the whole of it."""
    height, width = mask.shape
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise ValueError(f"a mask '{name}' that reaches beyond the image")
    if not mask.any():
        raise ValueError(f"a mask '{name}' without a pixel")
    whole = np.zeros(size, bool)
    whole[top : top + height, left : left + width] = mask
    return Shape(name, _box_of(whole), mask=whole, group=group)


def _box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _join_groups(shapes: list[Shape], place: str, notes: Counter[str]) -> list[Described]:
    """The objects of an image: outlines of one group and class are one object; boxes stay as they are.

    Raises:
        UsageError: A group has outlines of several kinds.
    """
    objects: dict[Any, list[Shape]] = {}
    for number, shape in enumerate(shapes):
        objects.setdefault(number if shape.group is None else (shape.name, shape.group), []).append(shape)
    described = []
    for parts in objects.values():
        first = parts[0]
        kinds = {(shape.polygon is not None, shape.mask is not None) for shape in parts}
        if len(kinds) > 1:
            raise UsageError(
                f"{OPTION}: {place} has the group {first.group} of '{first.name}' with shapes of several "
                'kinds, and a group is one object: draw it with polygons, or with masks'
            )
        if kinds == {(False, False)}:
            described += [(shape.name, _as_box(shape.box), None, 0) for shape in parts]
            continue
        notes['groups'] += len(parts) > 1
        outline: Any = [list(shape.polygon) for shape in parts if shape.polygon is not None]
        box = _bounds([value for shape in parts for value in shape.box])
        if first.mask is not None:
            outline = encode_mask(np.logical_or.reduce([shape.mask for shape in parts]))
        described.append((first.name, _as_box(box), outline, 0))
    return described


def _as_box(box: tuple[float, float, float, float]) -> list[float]:
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]


def _check_size(path: Path, image: str, given: Sequence[Any], size: tuple[int, int]) -> None:
    """Compare the size that a file gives an image, if it does, with that of the image."""
    if None not in given and tuple(given) != size:
        said = f"'{path}' gives '{image}' height and width {repr(tuple(given))[:60]}"
        raise UsageError(
            f'{OPTION}: {said}, and the image is {size}: shapes lie beside the objects; take the images that '
            'were annotated'
        )


def _say_notes(notes: Counter[str], assumed: list[str]) -> None:
    """Say which shapes are left out, and which are taken together."""
    without = [f'{notes[kind]} of type {kind}' for kind in WITHOUT_AREA if notes[kind]]
    if without:
        assumed.append(f'what has no area is left out: {shorten(without, len(without))}')
    if notes['outside']:
        assumed.append(f'{counted(notes["outside"], "shape")} outside of the image (CVAT) are left out')
    if notes['groups']:
        assumed.append(f'{counted(notes["groups"], "group")} of shapes of one class are an object each')


def refuse_lost(lost: Sequence[str], count: int, path: Path, images: Path) -> None:
    """Refuse images of a file that are not below their folder, and name the folder if it is the one above.

    Args:
        lost (Sequence[str]): Their names in the file.
        count (int): Images in the file.
        path (Path): The file.
        images (Path): The folder.

    Raises:
        UsageError: There are such.
    """
    if not lost:
        return
    name = lost[0]
    above = not posixpath.isabs(name) and '..' not in name.split('/') and (images.parent / name).is_file()
    remedy = 'give the folder that file_name is relative to (--images)'
    raise UsageError(
        f"{OPTION}: {len(lost)} of {count} images of '{path}' are not below '{images}', such as '{name}': "
        + (f"they are below '{images.parent}', give that (--images)" if above else remedy)
    )


class _Builder(ElementTree.TreeBuilder):
    """Builds no tree of a file with a document type, which alone can define entities."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError('it has a <!DOCTYPE>, which no annotation tool writes: take it out')


def parse_xml(path: Path) -> ElementTree.Element:
    """Read an XML file, without entities and without another file.

    Raises:
        UsageError: It is not XML, or has a document type.
    """
    try:
        return ElementTree.parse(path, ElementTree.XMLParser(target=_Builder())).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two of its encoding
        raise UsageError(f"{OPTION}: '{path}' is not XML ({error})") from error
