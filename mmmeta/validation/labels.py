"""Annotation maps of a segmentation data set against the classes, and pairs of images and maps."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image

from mmmeta.config.literals import is_unicode
from mmmeta.config.pipelines import ANNOTATION_LOADERS
from mmmeta.datasets.images import shown_size
from mmmeta.datasets.transforms import IMAGE_ERRORS, explain_damage
from mmmeta.engine.hooks import inner_datasets
from mmmeta.utils.errors import UsageError, shorten

from .finding import Finding

PNG_BEGIN, PNG_END = b'\x89PNG\r\n\x1a\n', b'IEND\xaeB`\x82'
# Maps for each class with which a class that never occurs is odd.
MAPS_PER_CLASS = 10


@dataclass(frozen=True)
class _Map:
    """What is in an annotation map, after ``reduce_zero_label`` and ``label_map``."""

    path: str
    shape: tuple[int, ...]
    image_size: tuple[int, int] | None
    values: tuple[int, ...]


def _loader(dataset: Any) -> Any:
    """The transform that loads annotations, or None."""
    transforms = getattr(dataset.pipeline, 'transforms', ())
    return next((t for t in transforms if type(t).__name__ in ANNOTATION_LOADERS), None)


def _read_map(dataset: Any, loader: Any, index: int) -> _Map:
    info = dataset.get_data_info(index)
    info['seg_fields'] = []
    labels = NamedDamage(loader)(info)['gt_seg_map']
    return _Map(
        info['seg_map_path'], labels.shape, size_of(info.get('img_path')), tuple(map(int, np.unique(labels)))
    )


def size_of(path: str | None) -> tuple[int, int] | None:
    """Height and width of an image, as it is to be seen; None of files of other kinds."""
    try:
        return shown_size(path) if path is not None else None
    except (AttributeError, *IMAGE_ERRORS):
        return None


class NamedDamage:
    """A transform that loads annotation maps, and says which one is damaged where it fails.

    Args:
        loader (callable): The transform, which is called as it is.
    """

    def __init__(self, loader: Callable[[dict], dict]) -> None:
        self.loader = loader

    def __call__(self, results: dict) -> dict:
        """Load a map.

        Raises:
            UsageError: Its file is damaged. Any other error of the transform is raised as it is.
        """
        try:
            return self.loader(results)
        except UsageError:
            raise
        except Exception as error:
            path = results.get('seg_map_path') or ''
            damage = _find_damage(path) if os.path.isfile(path) else None
            if damage is None:
                raise
            raise UsageError(explain_damage(path, damage)) from error

    def __repr__(self) -> str:
        return repr(self.loader)


def _find_damage(path: str) -> Exception | None:
    """Why Pillow cannot read an image; None if it can."""
    try:
        with Image.open(path) as image:
            image.load()
    except IMAGE_ERRORS as error:
        return error
    return None


def _refuse_cut(paths: Sequence[str | None]) -> None:
    """Refuse PNG files without their beginning or their end, such as of a copy that was ended.

    Raises:
        UsageError: There is one, and it cannot be read.
    """
    files = [path for path in paths if path and path.lower().endswith('.png')]
    chunks = [files[i : i + 256] for i in range(0, len(files), 256)]
    with ThreadPoolExecutor() as pool:  # where files are far away
        cut = pool.map(lambda chunk: [path for path in chunk if not _has_ends(path)], chunks)
    for path in chain.from_iterable(cut):
        damage = _find_damage(path)
        if damage is not None:
            raise UsageError(explain_damage(path, damage))


def _has_ends(path: str) -> bool:
    if not os.path.isfile(path):
        return True  # it is missing, or far away
    with open(path, 'rb', buffering=0) as file:
        if file.read(len(PNG_BEGIN)) != PNG_BEGIN:
            return False
        file.seek(-len(PNG_END), os.SEEK_END)
        return file.read() == PNG_END


def name_damaged_maps(dataset: Any) -> None:
    """Let a data set of segmentation say which annotation map is damaged, in place of its loader's error.

    Args:
        dataset (Dataset): A data set that is built; the loader in its pipeline is wrapped, and those of data
            sets inside.
    """
    for part in inner_datasets(dataset):
        name_damaged_maps(part)
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', None)
    if transforms and hasattr(dataset, 'reduce_zero_label'):
        transforms[:] = [
            NamedDamage(part) if type(part).__name__ in ANNOTATION_LOADERS else part for part in transforms
        ]


class LabelCheck:
    """A transform, the last of a pipeline, that ends a run at a label out of range; others pass unchanged.

    Args:
        num_classes (int): Classes of the head.
        ignore_index (int): Label that the loss leaves out.
        raised (int): By how much labels in files are above those of the head: 1 with ``reduce_zero_label``.
    """

    def __init__(self, num_classes: int, ignore_index: int, raised: int) -> None:
        self.num_classes, self.ignore_index, self.raised = num_classes, ignore_index, raised

    def __call__(self, results: dict) -> dict:
        """Look at the labels of an image.

        Raises:
            UsageError: One is out of range.
        """
        sample: Any = results.get('data_samples')
        labels = getattr(sample, 'gt_sem_seg', None)
        if labels is not None:
            labels = labels.data
            outside = labels[(labels >= self.num_classes) & (labels != self.ignore_index)]
            if outside.numel():
                path = sample.get('seg_map_path') or f'the map of {sample.get("img_path")}'
                allowed = self.num_classes, self.ignore_index, self.raised
                raise UsageError(_explain_label(path, int(outside.max()) + self.raised, *allowed))
        return results


def _explain_label(path: str, label: int, num_classes: int, ignore_index: int, raised: int) -> str:
    as_stored = ' (reduce_zero_label lowers what is stored by one)' if raised else ''
    return (
        f"'{path}' has the label {label}, and {num_classes} classes are labels from {raised} to "
        f'{num_classes - 1 + raised}{as_stored}, with {ignore_index} for what is ignored'
    )


def check_labels(
    name: str,
    dataset: Any,
    num_classes: int,
    ignore_index: int = 255,
    count: int | None = None,
    progress: Callable[[Iterable], Iterator] = iter,
) -> Iterator[Finding]:
    """Check the annotation maps of a data set of MMSegmentation.

    Args:
        name (str): Name of its data loader.
        dataset (BaseSegDataset): The data set.
        num_classes (int): Classes of the head.
        ignore_index (int): Label that the loss leaves out. Defaults to 255.
        count (int | None): Maps to read, evenly spread; of the others PNG files that are cut off are found.
            Defaults to None: all.
        progress (callable): Wraps the maps while they are read. Defaults to ``iter``.

    Raises:
        UsageError: A map is damaged.
    """
    loader, key = _loader(dataset), f'{name}.dataset'
    if loader is None or not len(dataset):
        return
    step = 1 if count is None else max(1, len(dataset) // count)
    indices = range(0, len(dataset), step)
    remote = getattr(dataset, 'backend_args', None) or getattr(loader, 'backend_args', None)
    paths = [] if remote else [dataset.get_data_info(i).get('seg_map_path') for i in indices]
    odd = next((path for path in paths if path and not is_unicode(path)), None)
    if odd is not None:
        yield Finding(f'{key}.data_prefix', f'the path {odd!r} is not text in UTF-8: rename the file')
        return
    missing = [path for path in paths if path and '://' not in path and not os.path.exists(path)]
    if step > 1 and not missing and not remote:  # not all are read
        _refuse_cut([dataset.get_data_info(i).get('seg_map_path') for i in range(len(dataset))])
    if missing:
        yield Finding(
            f'{key}.data_prefix',
            f'{len(missing)} of {len(paths)} images of {name} have no annotation map, such as '
            f"'{missing[0]}': "
            f'add them, look at {key}.seg_map_suffix, or list the images that have one in {key}.ann_file',
        )
        return
    with ThreadPoolExecutor() as pool:
        maps = list(progress(pool.map(lambda i: _read_map(dataset, loader, i), indices)))
    yield from _check_shapes(key, maps)
    yield from _check_values(key, maps, dataset, num_classes, ignore_index)


def _check_shapes(key: str, maps: Sequence[_Map]) -> Iterator[Finding]:
    coloured = [part for part in maps if len(part.shape) != 2]
    if coloured:
        yield Finding(
            f'{key}.pipeline',
            f"'{coloured[0].path}' is a colour image of shape {coloured[0].shape}, and annotation maps have "
            'one channel with the number of the class at each pixel: convert them',
        )
        return
    for part in maps:
        if part.image_size is not None and part.image_size != part.shape:
            yield Finding(
                f'{key}.data_prefix',
                f"'{part.path}' has {part.shape[0]}x{part.shape[1]} pixels, and its image "
                f'{part.image_size[0]}x{part.image_size[1]}: give it the size of its image',
                is_warning=True,
            )
            return


def _stores(path: str, label: int) -> bool:
    """Whether a map has a label in its file, before transforms that map labels to others."""
    try:
        with Image.open(path) as image:
            return bool((np.asarray(image) == label).any())
    except IMAGE_ERRORS:
        return True  # of a format that Pillow does not read


def _check_values(
    key: str, maps: list[_Map], dataset: Any, num_classes: int, ignore_index: int
) -> Iterator[Finding]:
    maps = [part for part in maps if len(part.shape) == 2]
    seen = Counter(value for part in maps for value in part.values)
    outside = [
        (part, value) for part in maps for value in part.values if num_classes <= value != ignore_index
    ]
    raised = 1 if dataset.reduce_zero_label else 0
    if outside:
        part, value = max(outside, key=lambda item: item[1])
        values = sorted({value + raised for _, value in outside})
        said = _explain_label(part.path, value + raised, num_classes, ignore_index, raised)
        yield Finding(
            f'{key}.pipeline', f'{said}; out of range are {shorten(values)}. Map them, or set num_classes'
        )
        return
    classes = dataset.metainfo.get('classes') or ()
    absent = [classes[i] for i in range(min(num_classes, len(classes))) if i not in seen]
    whole = len(maps) == len(dataset)
    two = whole and not raised and set(seen) <= {0, 255} and 255 in seen and num_classes == 2
    if two and any(_stores(part.path, 255) for part in maps):
        is_training = key.startswith('train_dataloader')
        yield Finding(
            f'{key}.pipeline',
            f"the maps, such as '{maps[0].path}', have the labels 0 and 255 alone, and 255 is ignored: "
            f"class 1 ('{shorten(classes[1:2])}') never occurs; "
            + ('store 1 in place of 255' if is_training else 'if 255 is class 1, store 1 in its place'),
            is_warning=not is_training,  # a few maps may have none of it
        )
    elif raised and whole and ignore_index in seen and max(seen.keys() - {ignore_index}) == num_classes - 2:
        yield Finding(
            f'{key}.reduce_zero_label',
            f'the maps have the labels 0 to {num_classes - 1} for {num_classes} classes, and {key} has '
            f"reduce_zero_label=True, which leaves 0 out: class '{shorten(classes[-1:])}' never occurs; "
            'write False if 0 is a class',
            is_warning=True,
        )
    elif absent and whole and len(maps) >= MAPS_PER_CLASS * num_classes:
        yield Finding(
            f'{key}.metainfo',
            f'{len(absent)} of {num_classes} classes occur in none of {len(maps)} maps: '
            + shorten(absent, 10),
            is_warning=True,
        )
