"""Annotations of objects in COCO's, Pascal VOC's and YOLO's formats, as COCO's."""

import os
import posixpath
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

from mmmeta.utils.errors import UsageError, shorten
from mmmeta.validation.objects import find_missing_values, find_object_errors, read_json

from .folders import MOST_CLASSES, Progress, check_names, image_size, read_text
from .parts import find_yaml, read_yaml
from .shapes import OPTION, Described, find_cvat, parse_xml, read_cvat, read_labelme, refuse_lost


def read_objects(
    annotations: Path,
    images: Path,
    files: list[str],
    names: list[str] | None,
    progress: Progress,
    assumed: list[str],
) -> tuple[dict[str, Any], str, bool]:
    """Read annotations of objects.

    Args:
        annotations (Path): A file of COCO's format or CVAT's, or a folder of Pascal VOC's XML files, YOLO's
            text files or LabelMe's JSON files that lie as the images do.
        images (Path): The folder of the images.
        files (list[str]): The images, relative to it.
        names (list[str] | None): Names of the classes, in the order of YOLO's numbers.
        progress (callable): Wraps the images while their files are read; it is given their number as well.
        assumed (list[str]): What of the files is not used is added.

    Returns:
        tuple[dict, str, bool]: Images, annotations and categories as COCO has them, checked; the name of the
        format; and whether the file can be used as it is.

    Raises:
        UsageError: They are not there, or not in one of these formats.
    """
    cvat = find_cvat(annotations)
    if cvat is not None and cvat.is_file():
        files, objects, listed = read_cvat(cvat, images, files, assumed)
        return _checked_as_coco(images, files, objects, listed, cvat), 'CVAT', False
    if annotations.is_file():
        content = _read_coco(annotations)
        complete = _check_coco(content, annotations, images, files, assumed)
        return content, 'COCO', complete
    if not annotations.is_dir():
        raise UsageError(f"{OPTION}: there is no file or folder '{annotations}'")
    # The root of Pascal VOC's layout has lists of images too, as text.
    annotations = annotations / 'Annotations' if (annotations / 'Annotations').is_dir() else annotations
    endings = Counter(os.path.splitext(name)[1] for _, _, found in os.walk(annotations) for name in found)
    kinds = {'.xml': 'VOC', '.txt': 'YOLO', '.json': 'LabelMe'}
    found = [ending for ending in kinds if endings[ending]]
    if len(found) > 1:  # such as labels.txt beside others
        found = [ending for ending in found if any(_paired(annotations, files, ending))] or found
    if len(found) != 1:
        said = f'both {" and ".join(found)}' if found else f'no {", ".join(kinds)} files: {shorten(endings)}'
        raise UsageError(
            f"{OPTION}: '{annotations}' has {said}; give a file of COCO's format or CVAT's, or one kind "
            '(Datumaro converts others: docs/your_data.md)'
        )
    kind = kinds[found[0]]
    if kind == 'LabelMe':
        objects, listed = read_labelme(annotations, images, files, assumed, progress)
        return _checked_as_coco(images, files, objects, listed, annotations), kind, False
    read = _read_voc if kind == 'VOC' else _read_yolo
    content = read(annotations, images, files, names, progress)
    _refuse_first(find_object_errors(content, str(annotations)))
    return content, kind, False


def _checked_as_coco(
    images: Path, files: list[str], objects: list[list[Described]], names: list[str], path: Path
) -> dict[str, Any]:
    check_names(names, f"'{path}'")
    content = _as_coco(images, files, objects, names)
    _refuse_first(find_object_errors(content, str(path)))
    return content


def _read_coco(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path, 'utf-8-sig')
    except UsageError as error:
        formats = "VOC's .xml, YOLO's .txt or LabelMe's .json"
        raise UsageError(f'{OPTION}: {error}, or the folder of {formats} files') from error
    if isinstance(content, dict) and isinstance(content.get('shapes'), list):
        raise UsageError(f"{OPTION}: '{path}' is one of LabelMe's files: give the folder of all")
    return content


def _check_coco(
    content: dict[str, Any], path: Path, images: Path, files: list[str], assumed: list[str]
) -> bool:
    """Check what COCO's readers take for granted; whether nothing had to be added."""
    renumbered = _count_from_one(content)
    _refuse_first(find_object_errors(content, str(path)))
    there = set(files)
    parted = _part_folders(content, there)
    names = [posixpath.normpath(image['file_name']) for image in content['images']]
    refuse_lost([name for name in names if name not in there], len(names), path, images)
    if parted:
        assumed.append(f'backslashes in file_name of {parted} images part folders, as on Windows')
    marked = path.read_bytes()[: len(BOM_UTF8)] == BOM_UTF8  # which COCO's tools do not read
    complete = not (renumbered or parted or marked or any(find_missing_values(content, str(path))))
    for part in content['annotations']:
        for key, value in (('area', part['bbox'][2] * part['bbox'][3]), ('iscrowd', 0)):
            if part.get(key) is None:
                part[key] = value
    return complete


def _count_from_one(content: Any) -> bool:
    """Give objects new numbers where one has 0, which COCO's metric takes for none; whether that was so."""
    parts = content.get('annotations') if isinstance(content, dict) else None
    if not isinstance(parts, list) or not any(isinstance(p, dict) and p.get('id') == 0 for p in parts):
        return False
    for number, part in enumerate(parts, 1):
        part['id'] = number
    return True


def _part_folders(content: dict[str, Any], there: set[str]) -> int:
    """Write slashes into names in which backslashes part folders, as on Windows; how many there are."""
    windows = [
        image
        for image in content['images']
        if '\\' in image['file_name'] and posixpath.normpath(image['file_name']) not in there
    ]
    for image in windows:
        image['file_name'] = image['file_name'].replace('\\', '/')
    return len(windows)


def _refuse_first(errors: Iterator[tuple[str, bool]]) -> None:
    for error, _ in errors:
        raise UsageError(f'{OPTION}: {error}')


def _paired(annotations: Path, files: list[str], suffix: str) -> list[Path | None]:
    """The annotation file of each image; None where there is none."""
    paths = [(annotations / name).with_suffix(suffix) for name in files]
    return [path if path.is_file() else None for path in paths]


def _read_voc(
    annotations: Path,
    images: Path,
    files: list[str],
    names: list[str] | None,
    progress: Progress,
) -> dict[str, Any]:
    """Pascal VOC's: pixels are counted from 1; a difficult object is a crowd, which is not learnt."""
    paths = _paired(annotations, files, '.xml')
    if not any(paths):
        raise UsageError(f"{OPTION}: no .xml file of '{annotations}' has the name of an image")
    objects: list[list[Described]] = []
    for path in progress(paths, len(paths)):
        objects.append([])
        for part in parse_xml(path).iter('object') if path else []:
            name = (part.findtext('name') or '').strip()
            try:
                corners = (part.findtext(f'bndbox/{key}') or '' for key in ('xmin', 'ymin', 'xmax', 'ymax'))
                x1, y1, x2, y2 = (float(corner) - 1 for corner in corners)
            except ValueError as error:
                raise UsageError(f"{OPTION}: '{path}' has an object without a box (bndbox)") from error
            if not all(map(isfinite, (x1, y1, x2, y2))) or x2 < x1 or y2 < y1:
                raise UsageError(
                    f"{OPTION}: '{path}' has an object whose box (bndbox) is not xmin <= xmax, ymin <= ymax"
                )
            if not name:
                raise UsageError(f"{OPTION}: '{path}' has an object without a name")
            difficult = int((part.findtext('difficult') or '').strip().lower() in ('1', 'true'))
            objects[-1].append((name, [x1, y1, x2 - x1, y2 - y1], None, difficult))
    found = sorted({name for part in objects for name, *_ in part})
    unknown = sorted(set(found) - set(names or found))
    if unknown:
        raise UsageError(f"--classes lacks {shorten(unknown)}, which '{annotations}' has")
    return _as_coco(images, files, objects, names or found)


def _read_yolo(
    annotations: Path,
    images: Path,
    files: list[str],
    names: list[str] | None,
    progress: Progress,
) -> dict[str, Any]:
    """YOLO's: a line for each object, its class and its box or its outline, over the size of the image."""
    paths = _paired(annotations, files, '.txt')
    if not any(paths):
        raise UsageError(f"{OPTION}: no .txt file of '{annotations}' has the name of an image")
    names = names or _yolo_names(annotations)
    objects: list[list[tuple[int, list[float], list[list[float]] | None, int]]] = []
    for name, path in progress(list(zip(files, paths, strict=True)), len(files)):
        objects.append([])
        if not path:
            continue
        height, width = image_size(images / name)
        for number, line in enumerate(read_text(path).splitlines(), 1):
            if line.strip():
                objects[-1].append(_parse_line(f"'{path}', line {number}", line, width, height))
    numbers = sorted({part[0] for parts in objects for part in parts})
    if names is None and numbers and numbers[-1] >= MOST_CLASSES:
        raise UsageError(
            f"{OPTION}: '{annotations}' has class {numbers[-1]}, and {MOST_CLASSES} classes are the most: "
            'name them (--classes), or mend the number'
        )
    if names is None:
        names = [f'class_{i}' for i in range(numbers[-1] + 1)] if numbers else []
    if numbers and numbers[-1] >= len(names):
        raise UsageError(
            f"{OPTION}: '{annotations}' has class {numbers[-1]}, and {len(names)} names are numbers up to "
            f'{len(names) - 1}: give more (--classes)'
        )
    named: list[list[Described]] = [
        [(names[number], box, outline, crowd) for number, box, outline, crowd in parts] for parts in objects
    ]
    return _as_coco(images, files, named, names)


def _parse_line(
    place: str, line: str, width: int, height: int
) -> tuple[int, list[float], list[list[float]] | None, int]:
    try:
        number, *values = (float(value) for value in line.split())
        number = int(number) if number == int(number) else -1
    except (ValueError, OverflowError) as error:
        raise UsageError(f'{OPTION}: {place}: {line!r} is not class and box') from error
    if number < 0 or len(values) < 4 or len(values) % 2 or len(values) == 5:
        raise UsageError(f'{OPTION}: {place}: {line!r} is not class, centre, width and height, or an outline')
    if not all(-0.01 <= value <= 1.01 for value in values):
        raise UsageError(
            f"{OPTION}: {place}: {line!r}: YOLO's numbers are over the size of the image, 0 to 1"
        )
    if len(values) == 4:
        x, y, w, h = values
        return number, [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height], None, 0
    xs, ys = [x * width for x in values[::2]], [y * height for y in values[1::2]]
    outline = [value for point in zip(xs, ys, strict=True) for value in point]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return number, box, [outline], 0


def _yolo_names(annotations: Path) -> list[str] | None:
    """Names in ``classes.txt`` or the data set's YAML file, in the folder or up to two above it."""
    for folder in (annotations, *annotations.resolve().parents[:2]):
        path = folder / 'classes.txt'
        if path.is_file():
            names = read_text(path).rstrip().splitlines()
            return _checked([name.strip() for name in names], path)
    named = (path for path, content in find_yaml(annotations) if content.get('names'))
    return next(map(yaml_names, named), None)


def yaml_names(path: Path) -> list[str] | None:
    """Names of the classes in the YAML file of a YOLO data set; None where it has none."""
    names = (read_yaml(path) or {}).get('names')
    return _checked(_listed(names, path), path) if names else None


def _listed(names: Any, path: Path) -> list[str]:
    """Names of a YAML file, which are a list, or a dict with a number for each.

    Raises:
        UsageError: They are something else, or numbers are left out.
    """
    if isinstance(names, dict):
        numbered = {int(key): name for key, name in names.items() if re.fullmatch('[0-9]{1,6}', key)}
        if len(numbered) < len(names) or sorted(numbered) != list(range(len(numbered))):
            raise UsageError(
                f"'{path}': names has the keys {shorten(names)}, and classes are numbered from 0 without gaps"
            )
        names = [numbered[number] for number in range(len(numbered))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"'{path}': names is not a list of names, or one name for each number")
    return names


def _checked(names: list[str], path: Path) -> list[str]:
    check_names(names, f"'{path}'")
    return names


def _as_coco(
    images: Path, files: list[str], objects: list[list[Described]], names: list[str]
) -> dict[str, Any]:
    """Images, annotations and categories as COCO has them."""
    numbers = {name: i + 1 for i, name in enumerate(names)}
    content = dict(images=[], annotations=[], categories=[dict(id=i, name=n) for n, i in numbers.items()])
    for image_id, (file_name, parts) in enumerate(zip(files, objects, strict=True), 1):
        height, width = image_size(images / file_name)
        content['images'].append(dict(id=image_id, file_name=file_name, height=height, width=width))
        for name, box, outline, crowd in parts:
            annotation = dict(
                id=len(content['annotations']) + 1,
                image_id=image_id,
                category_id=numbers[name],
                bbox=[round(value, 2) for value in box],
                area=round(box[2] * box[3], 2),
                iscrowd=crowd,
            )
            if isinstance(outline, dict):
                annotation['segmentation'] = outline
            elif outline:
                annotation['segmentation'] = [[round(value, 2) for value in part] for part in outline]
            content['annotations'].append(annotation)
    return content
