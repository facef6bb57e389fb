"""Files of COCO's format: what their readers take for granted."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.fileio import load

from mmmeta.errors import UsageError, shorten

from .finding import Finding, bare_model

# Share of boxes beyond the border of their images with which they are taken for corners, not sizes.
MOST_OUTSIDE = 0.1
Parsed = dict[str, tuple[dict[str, Any], list[str]]]
KEYS = ('images', 'annotations', 'categories')


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
        odd = next((part for part in content[kind] if not isinstance(part, dict)), None)
        if odd is not None:
            yield f"{kind} of '{path}' has {odd!r}, which is no object with keys", False
            return
    for image in content['images']:
        lacks = [key for key in ('id', 'file_name', 'height', 'width') if image.get(key) is None]
        if lacks:
            name = image.get('file_name', image.get('id'))
            yield f"image {name!r} of '{path}' lacks {', '.join(lacks)}", False
            return
    for kind in KEYS:
        ids = [part.get('id') for part in content[kind]]
        odd = next((i for i in ids if not isinstance(i, int) or isinstance(i, bool)), 0)
        if odd != 0:
            yield f"{kind} of '{path}' have the id {odd!r}, and ids are whole numbers", odd is not None
        twice = [i for i, count in Counter(map(str, ids)).items() if count > 1]
        if twice:
            yield f"{kind} of '{path}' share the id {shorten(twice)}: give each its own", False
            return
    unnamed = [category['id'] for category in content['categories'] if not category.get('name')]
    if unnamed:
        yield f"category {unnamed[0]} of '{path}' has no name", False
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


def _find_box_errors(content: dict[str, Any], path: str) -> Iterator[tuple[str, bool]]:
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    outside = boxes = 0
    for part in content['annotations']:
        image, category, box = (part.get(key) for key in ('image_id', 'category_id', 'bbox'))
        if image not in sizes:
            yield f"object {part['id']} of '{path}' is in image {image!r}, which is not there", True
            return
        if category not in categories:
            yield (
                f"object {part['id']} of '{path}' is of category {category!r}, which is none of "
                f'{shorten(map(repr, sorted(categories, key=lambda i: str(i).zfill(9))), 8)}',
                False,
            )
            return
        numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)
        if not numbers:
            yield f"object {part['id']} of '{path}' has no box of four numbers: bbox={box!r}", False
            return
        boxes += 1
        width, height = sizes[image]
        outside += box[0] + box[2] > width + 2 or box[1] + box[3] > height + 2
    if outside > MOST_OUTSIDE * boxes:
        yield (
            f"{outside} of {boxes} boxes of '{path}' reach beyond their image; COCO's are left, top, width, "
            'height in pixels, and corners have to be converted',
            False,
        )


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
    path = getattr(dataset, 'ann_file', None)
    if str(path) not in parsed:
        return
    content, warnings = parsed[str(path)]
    key = f'{name}.dataset.ann_file'
    for text in warnings:
        yield Finding(key, text, is_warning=True)
    if name != 'train_dataloader':
        yield from (Finding(key, text) for text in find_missing_values(content, path))
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
            content = load(path)
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
