"""Which images are for training, for validation and for the test."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from mmmeta.utils.errors import UsageError, shorten

from . import folders
from .facts import PARTS, Options
from .shapes import cvat_subsets, find_cvat

# Folders of lists below Pascal VOC's ImageSets, by task.
IMAGE_SETS = dict(seg='Segmentation', det='Main')
OPTIONS = dict(seg='--masks', det='--annotations')


@dataclass(frozen=True)
class Part:
    """Where the images of a part of a data set are.

    Attributes:
        images (Path): Their folder.
        labels (Path): The folder or file of their labels; that of the images for folders of classes.
        names (frozenset[str] | None): The images, relative to the folder and without their endings. Defaults
            to None: all in the folder.
        description (Path | None): YAML file of YOLO's that names the classes. Defaults to None.
    """

    images: Path
    labels: Path
    names: frozenset[str] | None = None
    description: Path | None = None

    def list_files(self, option: str) -> list[str]:
        """The images, relative to their folder; see :func:`~mmmeta.scaffold.folders.list_files`."""
        files = folders.list_files(self.images, folders.IMAGE_SUFFIXES, option)
        return files if self.names is None else [name for name in files if stem_of(name) in self.names]


def stem_of(name: str) -> str:
    """The name of a file without its ending."""
    return os.path.splitext(name)[0]


def find_parts(task: str, options: Options, assumed: list[str]) -> dict[str, Part]:
    """Find the parts of a data set: those that options name, folders, Pascal VOC's lists, YOLO's YAML file.

    Args:
        task (str): ``'seg'``, ``'det'`` or ``'cls'``.
        options (Options): What a person says.
        assumed (list[str]): Which parts are used, and what is there and is not used, is added.

    Returns:
        dict[str, Part]: ``'train'``, and ``'val'`` and ``'test'`` where there are such. Images for the test
        are in no other part.

    Raises:
        UsageError: A part is missing, or images are in two of them.
    """
    whole = Part(options.images, options.labels or options.images)
    is_file = options.labels is not None and options.labels.is_file() and not is_yaml(options.labels)
    parts: dict[str, Part] = {}
    if task == 'det' and is_yaml(options.labels):
        parts = _in_yaml(options, assumed)
    elif task == 'det' and (cvat := find_cvat(options.labels)) is not None and cvat.is_file():
        is_file, parts = True, _in_subsets(cvat, options.images, assumed)
    elif not is_file and options.images.is_dir():
        parts = _in_folders(task, whole, assumed)
        parts = parts or (_in_image_sets(task, whole, options, assumed) if task in IMAGE_SETS else {})
        parts = parts or (_in_yaml(options, assumed) if task == 'det' else {})
    parts = parts or dict(train=whole)
    for name, images, labels in (
        ('val', options.val_images, options.val_labels),
        ('test', options.test_images, options.test_labels),
    ):
        if images is not None or labels is not None:
            if is_file and labels is None:
                raise UsageError(
                    f'--{name}-images {images}: name their annotations too (--{name}-annotations)'
                )
            parts[name] = Part(images or whole.images, labels or whole.labels)
    if 'val' not in parts:
        assumed.append(
            f'{options.val_fraction:.0%} of the images, evenly spread, are held out for validation '
            '(--val-fraction, --val-images)'
        )
    return {name: parts[name] for name in PARTS if name in parts}


def _in_folders(task: str, whole: Part, assumed: list[str]) -> dict[str, Part]:
    """The parts that have a folder each."""
    found = folders.find_splits(whole.images)
    if not found:
        return {}
    labels = folders.find_splits(whole.labels)
    parts = {}
    for name, folder in found.items():
        images = whole.images / folder
        if task == 'cls':
            if name == 'test' and not any(path.is_dir() for path in images.iterdir()):
                assumed.append(f"'{images}' has no folders of classes, and is not used")
                continue
            parts[name] = Part(images, images)
        elif name in labels:
            parts[name] = Part(images, whole.labels / labels[name])
        elif name == 'test':
            assumed.append(f"'{images}' has no labels in '{whole.labels}', and is not used")
        else:
            raise UsageError(
                f"{OPTIONS[task]}: '{whole.images}' has folders for training and validation, and "
                f"'{whole.labels}' has not: lay both out alike"
            )
    words = dict(train='for training', val='for validation', test='for the test')
    used = [f"'{found[name]}' is {words[name]}" for name in parts]
    assumed.append(f'{", ".join(used)} (--val-images, --test-images)' if task != 'cls' else ', '.join(used))
    kept = {*found.values()}
    others = sorted(
        path.name
        for path in whole.images.iterdir()
        if path.is_dir() and path.name not in kept and not path.name.startswith('.') and path != whole.labels
    )
    if others:
        assumed.append(f"other folders of '{whole.images}' are not used: {shorten(others)}")
    return parts


def _in_image_sets(task: str, whole: Part, options: Options, assumed: list[str]) -> dict[str, Part]:
    """The parts that Pascal VOC's lists name, in ``ImageSets`` beside the images or the labels."""
    images, labels = whole.images, whole.labels
    places = [images.absolute().parent, labels, labels.absolute().parent]
    folder = next((p / 'ImageSets' / IMAGE_SETS[task] for p in places if (p / 'ImageSets').is_dir()), None)
    if folder is None or not images.is_dir():
        return {}
    lists = {name: folder / f'{name}.txt' for name in ('train', 'val', 'trainval', 'test')}
    names = {name: _read_list(path) for name, path in lists.items() if path.is_file()}
    if 'train' not in names and 'trainval' in names:
        names['train'] = names['trainval'] - names.get('val', frozenset())
        lists['train'] = lists['trainval']
    names.pop('trainval', None)
    if 'train' not in names:
        if names:
            raise UsageError(
                f"'{folder}' has {shorten(sorted(names))} and neither train.txt nor trainval.txt: add it"
            )
        return {}
    there = {stem_of(file) for file in folders.list_files(images, folders.IMAGE_SUFFIXES, '--images')}
    for name, listed in list(names.items()):
        lost = sorted(listed - there)
        if len(lost) == len(listed) and name == 'test':
            assumed.append(f"no image of '{lists[name]}' is in '{images}': it is not used")
            del names[name]
        elif lost and not options.skip_missing:
            raise UsageError(
                f"{len(lost)} of {len(listed)} images of '{lists[name]}' are not in '{images}', such as "
                f"'{lost[0]}': add them, or take them out of the list"
            )
    _check_apart(names, lists)
    used = [lists[name].name for name in PARTS if name in names]
    assumed.append(f"the parts are those of '{folder}': {', '.join(used)} (--val-images, --test-images)")
    rest = there.difference(*names.values())
    if rest:
        assumed.append(f'{len(rest)} of {len(there)} images are in none of these lists, and are not used')
    return {name: Part(images, labels, listed & there) for name, listed in names.items()}


def _in_subsets(path: Path, images: Path, assumed: list[str]) -> dict[str, Part]:
    """The parts that are subsets of images in an XML file of CVAT's; no images are set apart by one alone."""
    subsets = cvat_subsets(path, images)
    part_of = {word: part for part, words in folders.SPLITS.items() for word in words}
    parts: dict[str, Part] = {}
    for subset, names in subsets.items():
        part = part_of.get(subset.lower())
        if part is not None:
            inside = (parts[part].names if part in parts else None) or frozenset()
            parts[part] = Part(images, path, inside | frozenset(map(stem_of, names)))
    if not parts or set(parts) == {'train'} == {part_of.get(subset.lower()) for subset in subsets}:
        return {}
    if 'train' not in parts:
        raise UsageError(
            f"--annotations: '{path}' has the subsets {shorten(sorted(subsets))}, and none for training: "
            'call that Train'
        )
    assumed.append(f"the parts are the subsets of '{path}': {', '.join(parts)} (--val-images, --test-images)")
    others = [
        f"{len(names)} of '{subset}'" for subset, names in subsets.items() if subset.lower() not in part_of
    ]
    if others:
        assumed.append(f'images of other subsets are not used: {shorten(others)}')
    return parts


def _read_list(path: Path) -> frozenset[str]:
    """Names of images, the first word of each line of a list."""
    return frozenset(line.split()[0] for line in folders.read_text(path).splitlines() if line.strip())


def _check_apart(names: dict[str, frozenset[str]], places: dict[str, Any]) -> None:
    """Refuse images that are in two parts."""
    for i, first in enumerate(PARTS):
        for second in PARTS[i + 1 :]:
            both = sorted(names.get(first, frozenset()) & names.get(second, frozenset()))
            if both:
                raise UsageError(
                    f"'{places[first]}' and '{places[second]}' both have {shorten(both, 3)}: take what is in "
                    'two parts out of one'
                )


def read_yaml(path: Path) -> dict[str, Any] | None:
    """The content of a YAML file; None if that is not a mapping.

    All scalars are as they are written: to YAML "no" is False. Aliases and merges stay references.
    """
    try:
        content = yaml.load(folders.read_text(path), yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError):  # of something else
        return None
    return content if isinstance(content, dict) else None


def find_yaml(labels: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """YAML files in the folder of YOLO's labels or up to two above it, with their contents."""
    for folder in (labels, *labels.resolve().parents[:2]):
        for path in sorted([*folder.glob('*.yaml'), *folder.glob('*.yml')]):
            content = read_yaml(path)
            if content is not None:
                yield path, content


def is_yaml(path: Path | None) -> TypeGuard[Path]:
    """Whether labels are named by the YAML file of a YOLO data set."""
    return path is not None and path.suffix.lower() in ('.yaml', '.yml')


def _in_yaml(options: Options, assumed: list[str]) -> dict[str, Part]:
    """The parts that the YAML file of a YOLO data set names: that which is given, or one beside the labels.

    Raises:
        UsageError: The one that is given names none.
    """
    given = options.labels if is_yaml(options.labels) else None
    if given is not None:
        path, content = given, read_yaml(given) or {}
        if not content.get('train'):
            raise UsageError(f"--annotations: '{path}' names no images for training (train: images/train)")
    else:
        beside = find_yaml(options.labels) if options.labels and options.labels.is_dir() else ()
        found = next(((path, c) for path, c in beside if c.get('train') and 'names' in c), None)
        if found is None:
            return {}
        path, content = found
    files: dict[str, list[Path]] = {}
    for name in PARTS:
        images = _yaml_images(path, content, name) if content.get(name) else []
        if images:
            files[name] = images
        elif content.get(name) and name == 'train' and given:
            raise UsageError(f"--annotations: '{path}' has train: {content[name]}, where there are no images")
        elif content.get(name):
            assumed.append(f"'{path}' has {name}: {shorten([content[name]])}, where there are no images")
    mine = Path(os.path.abspath(options.images))
    if 'train' not in files or (not given and not all(p.is_relative_to(mine) for p in files['train'])):
        assumed.append(f"the parts of '{path}' are not those of '{options.images}', and are not used")
        return {}
    if files.get('val') == files['train']:
        assumed.append(f"'{path}' names the same images for training and validation: some are held out")
        del files['val']
    places = {name: f'{path}: {name}' for name in PARTS}
    _check_apart({name: frozenset(map(str, images)) for name, images in files.items()}, places)
    parts = {name: _yolo_part(images, path) for name, images in files.items()}
    if 'test' in parts and not parts['test'].labels.is_dir():
        assumed.append(f"the test of '{path}' has no labels ('{parts['test'].labels}'), and is not used")
        del parts['test']
    assumed.append(f"the parts are those of '{path}': {', '.join(parts)} (--val-images, --test-images)")
    return parts


def _yaml_images(path: Path, content: dict[str, Any], name: str) -> list[Path]:
    """Absolute paths of the images that a YAML file names for a part: in folders, or in lists."""
    values = content[name] if isinstance(content[name], list) else [content[name]]
    said = content.get('path', '')
    if not all(isinstance(value, str) for value in (said, *values)):
        raise UsageError(f"'{path}': path and {name} are not names of folders or lists")
    root = path.absolute().parent
    root = root / said if (root / said).is_dir() else root
    found: list[Path] = []
    for value in values:
        place = root / value
        if not place.exists():
            place = root / value.removeprefix('../')  # of tools that count from a folder below
        if place.is_dir():
            found += [place / file for file in folders.list_files(place, folders.IMAGE_SUFFIXES, f"'{path}'")]
        elif place.is_file():
            lines = filter(None, map(str.strip, folders.read_text(place).splitlines()))
            found += [(place.parent if line.startswith('./') else root) / line for line in lines]
    found = [Path(os.path.normpath(file)) for file in found]
    lost = [file for file in found if not file.is_file()]
    if lost:
        raise UsageError(
            f"'{path}' has {name} with {len(lost)} images that are not there, such as '{lost[0]}'"
        )
    return sorted(found)


def _yolo_part(files: Sequence[Path], description: Path) -> Part:
    """A part of these images; their labels lie in the last folder ``labels`` in place of ``images``."""
    folder = Path(os.path.commonpath([file.parent for file in files]))
    place = max((i for i, name in enumerate(folder.parts) if name == 'images'), default=None)
    labels = folder if place is None else Path(*folder.parts[:place], 'labels', *folder.parts[place + 1 :])
    names = frozenset(stem_of(file.relative_to(folder).as_posix()) for file in files)
    return Part(folder, labels, names, description)
