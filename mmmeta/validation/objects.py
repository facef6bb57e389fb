"""Files of COCO's format: what their readers take for granted."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import ne
from pathlib import Path
from reprlib import Repr
from typing import Any

from mmengine.config import Config

from mmmeta.config.inspection import bare_model
from mmmeta.config.literals import is_unicode
from mmmeta.datasets.images import stored_size
from mmmeta.datasets.transforms import IMAGE_ERRORS
from mmmeta.engine.hooks import inner_datasets
from mmmeta.utils.errors import UsageError, shorten

from .finding import Finding

# Share of boxes beyond the border of their images with which they are taken for corners, not sizes.
MOST_OUTSIDE = 0.1
# Share of crowds from which on a file is likely to have objects among them.
MOST_CROWDS = 0.5
# Images of a file whose size is compared with that of the file, evenly spread.
SIZES = 32
# Bytes of an annotation file that is read once more when a run starts: some thousand objects, in less than
# half a second.
SMALL = 2**22
# Of coordinates and sizes in pixels, which COCO's tools hold in 32 bits.
LIMIT = 2**31
Parsed = dict[str, tuple[dict[str, Any], list[str]]]
KEYS = ('images', 'annotations', 'categories')


def read_json(path: str | Path, encoding: str = 'utf-8') -> Any:
    """Read a JSON file.

    Args:
        path (str | Path): The file.
        encoding (str): Its encoding. Defaults to ``'utf-8'``, without a byte order mark, as COCO's tools read
            it.

    Raises:
        UsageError: It cannot be read, is not JSON, or is nested deeper than Python can follow.
    """
    try:
        return json.loads(Path(path).read_text(encoding))
    except RecursionError as error:
        raise UsageError(f"'{path}' is not JSON of COCO's format: it is nested too deeply") from error
    except (ValueError, OSError) as error:
        raise UsageError(f"'{path}' is not JSON ({error}): give a file of COCO's format") from error


def find_object_errors(content: Any, path: str) -> Iterator[tuple[str, bool]]:
    """What is wrong with a file of COCO's format.

    Args:
        content (dict): What is in it.
        path (str): Its name.

    Yields:
        tuple[str, bool]: One sentence for each kind of mistake, with the first place, and whether MMDetection
        can read the file nevertheless; after one without which nothing else can be said, no more.
    """
    missing = [key for key in KEYS if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        yield f"'{path}' has no list of {', '.join(missing)}, as COCO's format has", False
        return
    for kind in KEYS:
        odd = next((part for part in content[kind] if not isinstance(part, dict)), _NONE)
        if odd is not _NONE:
            yield f"{kind} of '{path}' has {_shown(odd)}, which is not an object with keys", False
            return
    for image in content['images']:
        problem = _image_problem(image)
        if problem:
            name = image['file_name'] if image.get('file_name') is not None else image.get('id')
            yield f"image {_shown(name)} of '{path}' {problem}", False
            return
    for kind in KEYS:
        ids = [part.get('id') for part in content[kind]]
        odd = [i for i in ids if not _is_whole(i)]
        # Whole floats, as pandas writes them, count as the whole numbers that they equal.
        unreadable = [i for i in odd if not isinstance(i, str) and not (type(i) is float and i.is_integer())]
        if odd:
            shown = _shown((unreadable or odd)[0])
            yield f"{kind} of '{path}' have the id {shown}, and ids are whole numbers", not unreadable
        if unreadable:
            return
        twice = [i for i, count in Counter(map(str, ids)).items() if count > 1]
        if twice:
            yield f"{kind} of '{path}' share the id {shorten(twice)}: give each its own", False
            return
    for category in content['categories']:
        name = category.get('name')
        if not name or not isinstance(name, str):
            problem = f'has the name {_shown(name)}, and names are text' if name else 'has no name'
            yield f"category {category['id']} of '{path}' {problem}", False
            return
    for part in content['annotations']:
        for key in ('image_id', 'category_id'):
            if isinstance(part.get(key), (list, dict)):
                odd = f'{key}={_shown(part[key])}'
                yield f"object {part['id']} of '{path}' has {odd}, and ids are whole numbers", False
                return
    used = {part.get('category_id') for part in content['annotations']}
    names = Counter(category['name'] for category in content['categories'] if category['id'] in used)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        yield f"categories of '{path}' share the name {shorten(twice)}: rename them", False
    if not content['annotations']:
        yield f"'{path}' has no objects", True
    if any(part['id'] == 0 for part in content['annotations']):
        yield (
            f"an object of '{path}' has the id 0, which COCO's metric takes for none: count objects from 1",
            True,
        )
    yield from _find_box_errors(content, path)


_NONE = object()
_repr = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60


def _shown(value: Any) -> str:
    """A value of a file as an error shows it, which may be long or deep."""
    return _repr.repr(value)


def _is_whole(value: Any) -> bool:
    """Whether a value is a whole number that 64 bits hold, as an identifier is."""
    return type(value) is int and abs(value) < 2**63


def _are_numbers(values: Any) -> bool:
    """Whether values are a list of finite numbers of pixels."""
    if not isinstance(values, list) or not {*map(type, values)} <= {int, float}:
        return False
    # NaN differs from itself; without one, the least and the greatest hold for all.
    return (
        not any(map(ne, values, values)) and -LIMIT < min(values, default=0) <= max(values, default=0) < LIMIT
    )


def _image_problem(image: dict[str, Any]) -> str | None:
    lacks = [key for key in ('id', 'file_name', 'height', 'width') if image.get(key) is None]
    if lacks:
        return f'lacks {", ".join(lacks)}'
    name = image['file_name']
    if not isinstance(name, str) or not name or '\0' in name:
        return f'has file_name={_shown(name)}, which is not the name of a file'
    if not is_unicode(name):
        return 'has a file_name that is not text in UTF-8: rename the file'
    for key in ('height', 'width'):
        if not _are_numbers([image[key]]) or image[key] < 1:
            return f'has {key}={_shown(image[key])}, which is not a number of pixels'
    return None


def _find_box_errors(content: dict[str, Any], path: str) -> Iterator[tuple[str, bool]]:
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    outside = outside_swapped = boxes = 0
    short = None
    for part in content['annotations']:
        image, category = part.get('image_id'), part.get('category_id')
        if image not in sizes:
            yield f"object {part['id']} of '{path}' is in image {_shown(image)}, which is not there", True
            return
        if category not in categories:
            yield (
                f"object {part['id']} of '{path}' is of category {_shown(category)}, which is none of "
                f'{shorten(map(repr, sorted(categories, key=lambda i: str(i).zfill(9))), 8)}',
                False,
            )
            return
        width, height = sizes[image]
        problem = _object_problem(part) or _outline_problem(part.get('segmentation'), height, width)
        if problem:
            yield f"object {part['id']} of '{path}' {problem}", False
            return
        if short is None and _has_short_polygon(part.get('segmentation')):
            short = part['id']
        boxes += 1
        left, top, right, bottom = part['bbox']
        right, bottom = left + right, top + bottom
        before = left < -2 or top < -2
        outside += before or right > width + 2 or bottom > height + 2
        outside_swapped += before or right > height + 2 or bottom > width + 2
    if short is not None:
        yield _explain_polygon(short, path), True
    if outside > MOST_OUTSIDE * boxes and not outside_swapped:
        yield (
            f"{outside} of {boxes} boxes of '{path}' reach beyond their image, and none does with width and "
            "height of its images swapped: swap the file's width and height",
            False,
        )
    elif outside > MOST_OUTSIDE * boxes:
        yield (
            f"{outside} of {boxes} boxes of '{path}' reach beyond their image; COCO's are left, top, width, "
            'height in pixels, and corners have to be converted',
            False,
        )


def _object_problem(part: dict[str, Any]) -> str | None:
    """What is wrong with the box and the values of an object."""
    box, area, crowd = (part.get(key) for key in ('bbox', 'area', 'iscrowd'))
    if not isinstance(box, list) or len(box) != 4 or not _are_numbers(box):
        return f'has no box of four numbers: bbox={_shown(box)}'
    if box[2] < 0 or box[3] < 0:
        return f'has a box of negative width or height: bbox={_shown(box)}'
    # The area of a large image is beyond the limit of its sides.
    if area is not None and not (type(area) in (int, float) and 0 <= area < LIMIT**2):
        return f'has area={_shown(area)}, which is not a number of pixels'
    if crowd is not None and (isinstance(crowd, (list, dict)) or crowd not in (0, 1)):
        return f'has iscrowd={_shown(crowd)}, which is 0 or 1'
    return None


def _outline_problem(outline: Any, height: float, width: float) -> str | None:
    """What is wrong with the segmentation of an object, polygons or RLE; nothing if there is none."""
    if not outline:
        return None
    if isinstance(outline, list):
        odd = next((polygon for polygon in outline if not _are_numbers(polygon)), _NONE)
        if odd is _NONE:
            return None
        return f'has a segmentation that is not a list of polygons, each a list of numbers: {_shown(odd)}'
    if not isinstance(outline, dict):
        return f'has segmentation={_shown(outline)}, which is neither polygons nor RLE'
    size, counts = outline.get('size'), outline.get('counts')
    if size != [height, width]:
        return f'has an RLE (segmentation) of size {_shown(size)} in an image of {[height, width]}'
    runs: Any = decode_runs(counts) if isinstance(counts, str) else counts
    if not _are_numbers(runs) or {*map(type, runs)} != {int} or min(runs) < 0 or sum(runs) != height * width:
        return 'has an RLE (segmentation) whose counts are not those of its size'
    return None


def _has_short_polygon(outline: Any) -> bool:
    return isinstance(outline, list) and any(len(polygon) < 6 or len(polygon) % 2 for polygon in outline)


def _explain_polygon(number: Any, path: str) -> str:
    return (
        f"object {number} of '{path}' has a polygon (segmentation) that is not x and y of three points or "
        "more, and COCO's metric cannot read it: take it out"
    )


def decode_runs(text: str) -> list[int] | None:
    """Decode the counts of a compressed RLE, which COCO's tools do without looking at its bounds.

    Args:
        text (str): Six bits a character from ``'0'`` on: five of a number, the lowest first, and whether it
            goes on. From the fourth run on, numbers are differences to the last but one.

    Returns:
        list[int] | None: Lengths of the runs; None if the text is something else.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - ord('0')
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return None if shift else runs


def find_missing_values(content: dict[str, Any], path: str, metric: bool = True) -> Iterator[str]:
    """Values of objects that MMDetection and COCO's metric read, and some files lack.

    Args:
        content (dict): What is in the file.
        path (str): Its name.
        metric (bool): Whether the metric reads it. Defaults to True.
    """
    objects = [part for part in content['annotations'] if not part.get('ignore')]
    for key, value in (('area', 'the area in pixels'), *((('iscrowd', '0'),) if metric else ())):
        lacks = sum(part.get(key) is None for part in objects)
        if lacks:
            said = f'{lacks} of {len(objects)} objects'
            yield f"{said} of '{path}' lack '{key}', which is read: write {value}"


def check_objects(cfg: Config, name: str, dataset: Any, parsed: Parsed) -> Iterator[Finding]:
    """Check the annotations of a data set of MMDetection that is built, and what is left of them.

    Args:
        cfg (Config): The config.
        name (str): Name of its data loader.
        dataset (Dataset): The data set.
        parsed (dict): What :func:`parsed_once` gives.
    """
    path = str(getattr(dataset, 'ann_file', None))
    if path not in parsed:
        return
    content, warnings = parsed[path]
    key = f'{name}.dataset.ann_file'
    evaluated = content['annotations'] if _evaluates_masks(cfg, name) else []
    fails = next(find_short_polygons(evaluated, path), None)
    for text in warnings:
        yield Finding(key, text, is_warning=text != fails)
    if name != 'train_dataloader':
        yield from (Finding(key, text) for text in find_missing_values(content, path))
    yield from _check_crowds(key, content['annotations'], path)
    yield from _check_outside(key, content, path)
    yield from _check_image_sizes(key, dataset)
    roi_head = bare_model(cfg).get('roi_head')
    objects = [part for part in content['annotations'] if not part.get('iscrowd')]
    without = sum(not part.get('segmentation') for part in objects)
    if isinstance(roi_head, dict) and roi_head.get('mask_head') and without:
        yield Finding(
            key,
            f"model.roi_head.mask_head learns masks, and {without} of {len(objects)} objects of '{path}' "
            'have no segmentation: add them, or take a detector without masks',
        )
    if not len(dataset):
        yield Finding(
            f'{name}.dataset',
            f"none of the {len(content['images'])} images of '{path}' is left for {name}: none has an object "
            f'of the classes {shorten(dataset.metainfo["classes"], 3)} (metainfo, filter_cfg)',
        )


def _check_crowds(key: str, objects: list[dict[str, Any]], path: str) -> Iterator[Finding]:
    """Objects that MMDetection leaves out of training: crowds, and boxes without a size."""
    crowds = sum(bool(part.get('iscrowd')) for part in objects)
    if objects and crowds >= MOST_CROWDS * len(objects):
        yield Finding(
            key,
            f"{crowds} of {len(objects)} objects of '{path}' are crowds (iscrowd: 1), from which nothing is "
            'learnt: write iscrowd: 0 for each that is a single object',
            is_warning=crowds < len(objects),
        )
    empty = [part['id'] for part in objects if 0 in part['bbox'][2:]]
    if empty:
        yield Finding(
            key,
            f"{len(empty)} of {len(objects)} objects of '{path}' have a box of zero width or height, such as "
            f'object {empty[0]}, and are left out: take them out of the file, or draw their boxes again',
            is_warning=True,
        )


def list_outside(content: dict[str, Any]) -> list[dict[str, Any]]:
    """List objects whose boxes lie wholly outside of their image.

    Args:
        content (dict): What is in a file of COCO's format.
    """
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    return [part for part in content['annotations'] if _lies_outside(part, sizes.get(part.get('image_id')))]


def _lies_outside(part: dict[str, Any], size: tuple[float, float] | None) -> bool:
    box = part.get('bbox')
    if size is None or box is None or not _are_numbers(box) or len(box) != 4 or 0 in box[2:]:
        return False
    left, top, width, height = box
    return left >= size[0] or top >= size[1] or left + width <= 0 or top + height <= 0


def _check_outside(key: str, content: dict[str, Any], path: str) -> Iterator[Finding]:
    """Objects of which MMDetection learns nothing, and which no detector finds."""
    outside = list_outside(content)
    if outside:
        first, count = outside[0], len(content['annotations'])
        size = next((i['height'], i['width']) for i in content['images'] if i['id'] == first['image_id'])
        yield Finding(
            key,
            f"{len(outside)} of {count} objects of '{path}' lie outside of their image, "
            f'such as object {first.get("id")} with bbox={first["bbox"]} in {size[0]}x{size[1]} pixels, '
            'where nothing is learnt or found: correct their boxes, or take them out of the file',
            is_warning=True,
        )


def _evaluates_masks(cfg: Config, name: str) -> bool:
    """Whether the metric of a loader's data reads the masks of objects."""
    evaluators = cfg.get(name.replace('dataloader', 'evaluator')) or []
    given = [evaluators] if isinstance(evaluators, dict) else evaluators
    return name != 'train_dataloader' and any('segm' in (one.get('metric') or ()) for one in given)


def find_short_polygons(objects: Iterable[dict[str, Any]], path: str) -> Iterator[str]:
    """Name objects with a polygon that COCO's metric cannot read.

    Args:
        objects (Iterable[dict]): Objects in COCO's format.
        path (str): The file that they are in.
    """
    short = (part for part in objects if _has_short_polygon(part.get('segmentation')))
    yield from (_explain_polygon(part['id'], path) for part in short)


def check_sample(name: str, dataset: Any) -> Iterator[Finding]:
    """Check some images of a data set of MMDetection that is built, and of those inside it.

    A run does so when it starts, at a cost that does not grow with the data; ``check`` reads all annotations.
    Objects outside of their images, which MMDetection does not keep, are looked for in files that are small.

    Args:
        name (str): Name of its data loader.
        dataset (Dataset): The data set.
    """
    for part in inner_datasets(dataset):
        yield from check_sample(name, part)
    if not hasattr(dataset, 'cat_img_map'):
        return
    key = f'{name}.dataset.ann_file'
    yield from _check_image_sizes(key, dataset)
    flags = [one['ignore_flag'] for info in _sample(dataset) for one in info['instances']]
    if flags and all(flags):
        yield Finding(
            key,
            f"all {len(flags)} objects looked at in '{dataset.ann_file}' are crowds (iscrowd: 1), from "
            'which nothing is learnt: write iscrowd: 0 for each that is a single object',
        )
    path = dataset.ann_file
    if not dataset.backend_args and os.path.isfile(path) and os.path.getsize(path) <= SMALL:
        yield from _check_outside(key, read_json(path), path)


def _sample(dataset: Any) -> list[dict[str, Any]]:
    """What a data set has of some images, evenly spread."""
    return [dataset.get_data_info(i) for i in range(0, len(dataset), -(-len(dataset) // SIZES) or 1)]


def _turns(dataset: Any) -> bool:
    """Whether the pipeline of a data set turns images as their EXIF orientation says."""
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    loader = next((one for one in transforms if type(one).__name__ == 'LoadImageFromFile'), None)
    # The two decoders of MMCV that read EXIF do so for these types alone.
    return getattr(loader, 'imdecode_backend', None) in ('cv2', 'pillow', None) and getattr(
        loader, 'color_type', 'color'
    ) in ('color', 'grayscale')


def _check_image_sizes(key: str, dataset: Any) -> Iterator[Finding]:
    """Compare the sizes in a file with those of its images, of which the headers of a few are read."""
    turns = _turns(dataset)
    for image in _sample(dataset):
        file = Path(image['img_path'])
        if not file.is_file():
            continue
        try:
            stored, on_its_side = stored_size(file)
        except IMAGE_ERRORS:
            continue  # what cannot be read is named when it is read
        loaded = stored[::-1] if on_its_side and turns else stored
        size = (image['width'], image['height'])
        if size == loaded:
            continue
        said = f"'{dataset.ann_file}' gives '{file}' width={size[0]} and height={size[1]}"
        if on_its_side and size == loaded[::-1]:
            value = 'color_ignore_orientation' if turns else 'color'
            does = 'turned by its EXIF orientation' if turns else 'not turned by its EXIF orientation'
            remedy = f"write color_type='{value}' into LoadImageFromFile of all pipelines"
            yield Finding(key, f'{said}, and the image is {does} to {loaded} when it is read: {remedy}')
        elif size == loaded[::-1]:
            yield Finding(key, f'{said}, and the image is {loaded}: swap width and height in the file')
        else:
            yield Finding(
                key,
                f'{said}, and the image is {loaded}: boxes lie beside the objects; take the images that were '
                'annotated, or scale sizes, boxes and masks of the file',
            )
        return


class BadObjects(UsageError):
    """An annotation file that its readers would fail on, or read wrongly."""


@contextmanager
def parsed_once() -> Iterator[Parsed]:
    """Let MMDetection's data sets read each annotation file once, and share what was read.

    Yields:
        dict: What was read, by the names of the files: the content, and what is odd in it but can be read.
    """
    parsed: Parsed = {}
    try:
        from mmdet.datasets import CocoDataset
    except ImportError:
        yield parsed
        return
    original = CocoDataset.COCOAPI

    def read(path: str) -> Any:
        if path not in parsed:
            try:
                content = read_json(path)
            except UsageError as error:
                raise BadObjects(str(error)) from error
            if isinstance(content, dict):  # of images that nobody has annotated
                content.setdefault('annotations', [])
            found = list(find_object_errors(content, path))
            errors = [text for text, readable in found if not readable]
            errors = errors or list(find_missing_values(content, path, metric=False))
            if errors:
                raise BadObjects(errors[0])
            parsed[path] = content, [text for text, _ in found]
        api = original()
        api.dataset, _ = parsed[path]
        api.createIndex()
        api.img_ann_map, api.cat_img_map = api.imgToAnns, api.catToImgs  # as its constructor does
        return api

    CocoDataset.COCOAPI = staticmethod(read)
    try:
        yield parsed
    finally:
        CocoDataset.COCOAPI = original
