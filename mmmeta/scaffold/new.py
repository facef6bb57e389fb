"""Write a config for people's own data after a look at them."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from mmmeta.config.backbones import GLOBAL_ATTENTION, WINDOW, known_backbones
from mmmeta.config.literals import check_config_path
from mmmeta.models import FAMILIES
from mmmeta.utils.atomic import written_together
from mmmeta.utils.errors import UsageError, nearest, shorten
from mmmeta.weights import ZOO, is_remote

from . import folders, text
from .boxes import read_objects
from .masks import examine_masks

METHODS = dict(
    seg=('upernet', 'fpn'), det=('retinanet', 'mask_rcnn', 'cascade_mask_rcnn'), cls=('classifier',)
)
BATCH_SIZES = dict(seg=4, det=2, cls=32)
# Pixels of crops (seg), of the short side (det), of the side (cls): limits, and the multiple.
SIZES = dict(seg=(64, 512), det=(128, 800), cls=(64, 224))
STEP = 32
# Images for training, and epochs: fewer images are seen more often.
EPOCHS = ((20000, 12), (2000, 36), (0, 100))


@dataclass
class Created:
    """What was written.

    Attributes:
        config (Path): The config.
        files (list[Path]): Lists of images or converted annotations beside it.
        facts (list[str]): What the data are.
        assumed (list[str]): What was assumed, and the options that would say otherwise.
    """

    config: Path
    files: list[Path] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Options:
    """What a user said; see :func:`new`."""

    images: Path
    labels: Path | None
    val_images: Path | None
    val_labels: Path | None
    val_fraction: float
    classes: str | None
    ignore: list[str] | None
    method: str | None
    size: int | None
    batch_size: int | None
    epochs: int | None
    skip_missing: bool
    progress: Callable[[Iterable, int], Iterator]


def _progress(values: Iterable, count: int) -> Iterator:
    """No bar."""
    return iter(values)


def new(
    task: str,
    images: str | Path,
    labels: str | Path | None = None,
    out: str | Path | None = None,
    *,
    backbone: str = 'caformer_s18',
    weights: str | None = None,
    method: str | None = None,
    classes: str | None = None,
    ignore: list[str] | None = None,
    val_images: str | Path | None = None,
    val_labels: str | Path | None = None,
    val_fraction: float = 0.1,
    size: int | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    skip_missing: bool = False,
    force: bool = False,
    progress: Callable[[Iterable, int], Iterator] = _progress,
    verify: Callable[[Path], None] = lambda config: None,
) -> Created:
    """Look at a data set and write a config that trains on it, as ``python -m mmmeta new`` does.

    Args:
        task (str): ``'seg'``, ``'det'`` or ``'cls'``.
        images (str | Path): Folder of the images. With folders ``train`` and ``val`` in it (or ``training``,
            ``valid`` and the like) these are the two parts. For ``'cls'`` it holds a folder for each class.
        labels (str | Path | None): Folder of annotation maps (``'seg'``), laid out as the images are; file
            of COCO's format, or folder of Pascal VOC's or YOLO's files (``'det'``). Defaults to None
            (``'cls'``).
        out (str | Path | None): The config. Defaults to None: ``my_<method>_<backbone>.py``.
        backbone (str): Family and member. Defaults to ``'caformer_s18'``.
        weights (str | None): Location of the backbone's weights, or ``'none'`` for random ones. Defaults to
            None: those published for ImageNet-1K.
        method (str | None): ``'upernet'`` or ``'fpn'``; ``'retinanet'``, ``'mask_rcnn'`` or
            ``'cascade_mask_rcnn'``. Defaults to None: UperNet; Mask R-CNN where all objects have masks, else
            RetinaNet.
        classes (str | None): Names of the classes: separated by commas, or a file with one in each line,
            which may say what is stored for it (``road:7``). Defaults to None: from the data.
        ignore (list[str] | None): Stored labels that are no class, or ``['none']``. Defaults to None: where
            only one meaning is possible, that.
        val_images (str | Path | None): Images for validation, where ``images`` has no parts. Defaults to
            None.
        val_labels (str | Path | None): Their labels. Defaults to None: ``labels``, with ``val_images``.
        val_fraction (float): Without any of these: share of the images that is held out. Defaults to 0.1.
        size (int | None): Side of the crops, short side of the images or side of the images in pixels, by
            task. Defaults to None: by the images, up to 512, 800 or 224.
        batch_size (int | None): Images of an iteration. Defaults to None: 4, 2 or 32.
        epochs (int | None): How often each image is seen. Defaults to None: 12 to 100, by their number.
        skip_missing (bool): Leave images without a mask out. Defaults to False: they are an error.
        force (bool): Write over files that exist. Defaults to False.
        progress (callable): Wraps files while they are read; it is given their number as well.
        verify (callable): Called with the config when all files are written. Where it raises, or the process
            is ended by a signal, what was there before is there again. Defaults to nothing.

    Returns:
        Created: The config, and what was assumed. Nothing is written if an error is raised.

    Raises:
        UsageError: A folder is missing or empty, data contradict each other, or a name is unknown.
    """
    if task not in METHODS:
        raise UsageError(f"'{task}' is no task: choose {', '.join(METHODS)}")
    if method is not None and method not in METHODS[task]:
        raise UsageError(f"--method {method}: for '{task}' choose {', '.join(METHODS[task])}")
    for option, value in (('--size', size), ('--batch-size', batch_size), ('--epochs', epochs)):
        if value is not None and value < 1:
            raise UsageError(f'{option} {value}: give a positive number')
    arch, weights = _check_backbone(backbone, weights)
    options = Options(
        Path(images),
        None if labels is None else Path(labels),
        None if val_images is None else Path(val_images),
        None if val_labels is None else Path(val_labels),
        *(val_fraction, classes, ignore, method, size, batch_size, epochs, skip_missing, progress),
    )
    read = {'seg': _segmentation, 'det': _detection, 'cls': _classification}[task]
    data, facts, assumed = read(options)
    if data.get('largest', 0) <= GLOBAL_ATTENTION or 'attention' not in arch['token_mixers']:
        data['window'] = None
    path = check_config_path(out or f'my_{data["method"]}_{backbone}.py')
    if path.suffix != '.py':
        raise UsageError(f"--out '{path}': a config is a .py file")
    beside = {path.with_name(f'{path.stem}_{end}'): content for end, content in data.pop('beside').items()}
    there = [str(file) for file in (path, *beside) if os.path.exists(file)]
    folder = next((file for file in (path, *beside) if os.path.isdir(file)), None)
    if folder:
        raise UsageError(f"--out: '{folder}' is a folder; name a file")
    if there and not force:
        raise UsageError(f'{shorten(there)} is there: choose another --out, or --force')
    if not os.path.isdir(path.parent):
        raise UsageError(f"--out: there is no folder '{path.parent}'")
    config = text.write_config(task, path, backbone, arch['dims'], weights, data)
    with written_together({**beside, path: config}):
        verify(path)
    assumed.append(_say_weights(weights))
    if not Path(images).is_absolute():
        assumed.append('paths of the data are relative to the folder that commands are run in')
    return Created(path, list(beside), facts, assumed)


def _check_backbone(backbone: str, weights: str | None) -> tuple[dict[str, Any], str | None]:
    """The arch of a backbone, and the location of its weights.

    Raises:
        UsageError: There is none of that name.
    """
    family, _, size = backbone.rpartition('_')
    known = known_backbones()
    if backbone not in known:
        meant = nearest(backbone, known)
        said = f'is it {meant}?' if meant else f'choose one of {shorten(known, len(known))}'
        raise UsageError(f"--backbone '{backbone}' is none of ours: {said}")
    if weights is None:
        weights = f'mmmeta://{backbone}'
    if weights.startswith('mmmeta://') and weights.removeprefix('mmmeta://') not in ZOO:
        raise UsageError(
            f"--weights '{weights}': list the published ones with python -m mmmeta list --weights"
        )
    if weights != 'none' and not is_remote(weights) and not Path(weights).expanduser().is_file():
        raise UsageError(f"--weights: there is no file '{weights}'; give a file, a URL, mmmeta:// or none")
    return FAMILIES[family].resolve_arch(size), None if weights == 'none' else weights


def _say_weights(weights: str | None) -> str:
    if weights is None:
        return 'the backbone begins with random weights (--weights)'
    return f'the backbone begins with {weights} (--weights, or none)'


def _side(options: Options, task: str, sizes: list[tuple[int, int]], assumed: list[str]) -> int:
    """Side of the crops or images in pixels, a multiple of the stride."""
    if options.size is not None:
        if options.size % STEP:
            raise UsageError(f'--size {options.size}: give a multiple of {STEP}')
        return options.size
    low, high = SIZES[task]
    short = median(min(size) for size in sizes)
    side = int(min(max(round(short / STEP) * STEP, low), high))
    assumed.append(f'images are used at {side} pixels; the middle one has {short:.0f} (--size)')
    return side


def _schedule(options: Options, task: str, count: int, assumed: list[str]) -> dict[str, int]:
    """Batch size and epochs."""
    batch = min(options.batch_size or BATCH_SIZES[task], count)
    if task == 'seg':
        batch = max(batch, 2)  # pooled maps of one pixel are normalised over the batch
    epochs = options.epochs or next(epochs for least, epochs in EPOCHS if count >= least)
    # Of segmentors, which are trained by iterations; else the last batch of an epoch may be smaller.
    iterations = max(count * epochs // batch, 1) if task == 'seg' else -(-count // batch) * epochs
    assumed.append(
        f'{epochs} epochs of {count} images in batches of {batch}: {iterations} iterations (--epochs, '
        '--batch-size)'
    )
    return dict(batch_size=batch, epochs=epochs, iterations=iterations)


def _splits(options: Options, folder: Path, assumed: list[str]) -> tuple[Path, Path | None]:
    """The folders of images for training and for validation; None if they are to be held out."""
    if options.val_images is not None:
        return folder, options.val_images
    splits = folders.find_splits(folder) if folder.is_dir() else None
    if splits is None:
        assumed.append(
            f'{options.val_fraction:.0%} of the images, evenly spread, are held out for validation '
            '(--val-fraction, --val-images)'
        )
        return folder, None
    assumed.append(f"'{splits[0]}' is for training and '{splits[1]}' for validation (--val-images)")
    return folder / splits[0], folder / splits[1]


def _label_splits(options: Options, option: str) -> tuple[Path, Path]:
    """The folders of labels for training and for validation, of images that have both.

    Raises:
        UsageError: There are no such folders.
    """
    splits = folders.find_splits(options.labels)
    if splits is None:
        raise UsageError(
            f"{option}: '{options.images}' has folders for training and validation, and '{options.labels}' "
            'has not: lay both out alike'
        )
    return options.labels / splits[0], options.labels / splits[1]


def _segmentation(options: Options) -> tuple[dict[str, Any], list[str], list[str]]:
    """Look at images and annotation maps."""
    facts, assumed = [], []
    if options.labels is None or not options.labels.is_dir():
        missing = f": there is no folder '{options.labels}'" if options.labels else ' names their folder'
        raise UsageError(f'--masks{missing}')
    train, val = _splits(options, options.images, assumed)
    train_maps, val_maps = options.labels, options.val_labels or options.labels
    if options.val_images is None and val is not None:
        train_maps, val_maps = _label_splits(options, '--masks')
    parts, beside, paths, images = {}, {}, [], []
    suffixes = None
    for name, folder, maps in (('train', train, train_maps), ('val', val, val_maps)):
        if folder is None:
            continue
        stems, suffixes, complete = _pair_files(options, folder, maps, suffixes)
        parts[name] = dict(images=folder, masks=maps, stems=stems, listed=not complete)
        paths += [maps / f'{stem}{suffixes[1]}' for stem in stems]
        images += [folder / f'{stem}{suffixes[0]}' for stem in stems]
    if val is None:
        kept, held = folders.hold_out(parts['train']['stems'], options.val_fraction)
        parts['val'] = {**parts['train'], 'stems': held, 'listed': True}
        parts['train'].update(stems=kept, listed=True)
    for name, part in parts.items():
        if part['listed']:
            beside[f'{name}.txt'] = folders.list_lines(part['stems'])
    sizes = [folders.image_size(path) for path in images]
    names = folders.read_names(options.classes)
    found = examine_masks(paths, sizes, names, options.ignore, options.progress)
    count = len(parts['train']['stems'])
    facts += [
        f'{count} images for training, {len(parts["val"]["stems"])} for validation, of '
        f'{_range(sizes)} pixels',
        f'{len(found.names)} classes: {shorten(found.names, 8)}',
    ]
    if found.is_mapped:
        facts.append(
            f'labels are mapped while they are read: {shorten(found.classes, 4)} to 0 to '
            f'{len(found.names) - 1}'
        )
    side = _side(options, 'seg', sizes, assumed)
    data = dict(
        method=options.method or 'upernet',
        parts=parts,
        beside=beside,
        suffixes=suffixes,
        labels=found,
        side=side,
        # Short sides are scaled to the crops.
        largest=side * max(max(size) / min(size) for size in sizes),
        window=WINDOW,
        **_schedule(options, 'seg', count, assumed),
    )
    return data, facts, assumed + found.assumed


def _pair_files(
    options: Options, folder: Path, maps: Path, suffixes: tuple[str, str] | None
) -> tuple[list[str], tuple[str, str], bool]:
    """Names of images that have a map, the endings of both, and whether these are all images.

    Raises:
        UsageError: Images have no map.
    """
    images = folders.list_files(folder, folders.IMAGE_SUFFIXES, '--images')
    inside = maps != folder and maps.is_relative_to(folder)
    if inside:
        below = maps.relative_to(folder).as_posix() + '/'
        images = [image for image in images if not image.startswith(below)]
    masks = set(folders.list_files(maps, folders.IMAGE_SUFFIXES, '--masks'))
    of_image = folders.suffix_of(images, '--images')
    stems = [name.removesuffix(of_image) for name in images]
    # Maps may have more at the end of their name, such as _labelIds.png.
    ends = Counter(
        mask[len(stem) :] for stem in stems[:50] for mask in sorted(masks) if mask.startswith(stem)
    ).most_common(2)
    if not ends:
        raise UsageError(
            f"--masks: no file below '{maps}' has the name of an image, such as '{stems[0]}': lay the masks "
            'out as the images are, with the same names'
        )
    end = ends[0][0]
    if len(ends) > 1 and ends[1][1] == ends[0][1] and len(stems) > 1:
        raise UsageError(
            f"--masks: '{maps}' has several files for an image, which end in {end} and {ends[1][0]}: move "
            'those that are no maps of classes elsewhere'
        )
    if suffixes not in (None, (of_image, end)):
        raise UsageError(
            f'images and masks of training end in {suffixes}, and those of validation in {(of_image, end)}: '
            'rename them'
        )
    paired = [stem for stem in stems if f'{stem}{end}' in masks]
    lost = [stem for stem in stems if f'{stem}{end}' not in masks]
    if lost and not options.skip_missing:
        raise UsageError(
            f"--masks: {len(lost)} of {len(stems)} images have no mask, such as '{maps}/{lost[0]}{end}': add "
            'them, or leave these images out (--skip-missing)'
        )
    return paired, (of_image, end), not lost and not inside


def _range(sizes: list[tuple[int, int]]) -> str:
    least, most = min(sizes, key=lambda s: s[0] * s[1]), max(sizes, key=lambda s: s[0] * s[1])
    said = ['{}x{}'.format(*least), '{}x{}'.format(*most)]
    return ' to '.join(dict.fromkeys(said))


def _detection(options: Options) -> tuple[dict[str, Any], list[str], list[str]]:
    """Look at images and objects."""
    facts, assumed = [], []
    if options.labels is None or not options.labels.exists():
        missing = (
            f": there is no file or folder '{options.labels}'" if options.labels else ' names their file'
        )
        raise UsageError(f'--annotations{missing}')
    names = folders.read_names(options.classes)
    names = [name for name, _ in names] if names else None
    if options.labels.is_file() and options.val_labels is None:
        train, val = options.images, None  # one file: held out from it
        assumed.append(
            f'{options.val_fraction:.0%} of the images, evenly spread, are held out for validation '
            '(--val-fraction, --val-annotations)'
        )
    elif options.val_labels is not None:
        train, val = options.images, options.val_images or options.images
    else:
        train, val = _splits(options, options.images, assumed)
    train_file, val_file = options.labels, options.val_labels
    if val is not None and val_file is None:
        train_file, val_file = _label_splits(options, '--annotations')
    contents, beside, parts = {}, {}, {}
    for name, folder, file in (('train', train, train_file), ('val', val, val_file)):
        if folder is None:
            continue
        files = folders.list_files(folder, folders.IMAGE_SUFFIXES, '--images')
        contents[name], kind, usable = read_objects(file, folder, files, names, options.progress)
        parts[name] = dict(images=folder, file=file if usable else None)
    if val is None:
        listed = contents['train']['images']
        # Of those that have objects: a validation without any measures nothing.
        shown = {part['image_id'] for part in contents['train']['annotations']}
        order = sorted(image['file_name'] for image in listed if image['id'] in shown)
        held = set(folders.hold_out(order, options.val_fraction)[1])
        for name in ('val', 'train'):
            inside = [image for image in listed if (image['file_name'] in held) == (name == 'val')]
            contents[name] = _part_of(contents['train'], inside)
            parts[name] = dict(images=train, file=None)
    used = [_used_categories(content) for content in contents.values()]
    present = list(dict.fromkeys(name for part in used for name in part))
    names = names or _class_order(contents, present, assumed)
    folders.check_names(names, f"'{options.labels}'")
    listed = {category['name'] for content in contents.values() for category in content['categories']}
    nowhere = [name for name in names if name not in listed]
    if nowhere:
        meant = nearest(nowhere[0], listed)
        hint = f"is it '{meant}'?" if meant else f'categories are {shorten(sorted(listed), 8)}'
        raise UsageError(f"--classes: no category is called '{nowhere[0]}': {hint}")
    for part in contents:
        _complete_categories(contents[part], names, parts[part])
    unknown = [name for name in present if name not in names]
    if unknown and options.classes is not None:
        assumed.append(f'objects of {shorten(unknown)} are left out, as --classes does not name them')
    masked = _check_outlines(contents.values(), options.method, assumed)
    for name, part in parts.items():
        if part['file'] is None:
            beside[f'{name}.json'] = json.dumps(contents[name])
    sizes = [(i['height'], i['width']) for content in contents.values() for i in content['images']]
    counts = [len(contents[name]['images']) for name in ('train', 'val')]
    objects = sum(len(content['annotations']) for content in contents.values())
    facts += [
        f'{counts[0]} images for training, {counts[1]} for validation, of {_range(sizes)} pixels, with '
        f'{objects} objects in the format of {kind}',
        f'{len(names)} classes: {shorten(names, 8)}',
    ]
    side = _side(options, 'det', sizes, assumed)
    method = options.method or ('mask_rcnn' if masked else 'retinanet')
    # MMDetection does not train on images without objects.
    known = {c['id'] for c in contents['train']['categories'] if c['name'] in names}
    count = len(
        {part['image_id'] for part in contents['train']['annotations'] if part['category_id'] in known}
    )
    if not count:
        raise UsageError(f'no image for training has an object of {shorten(names)}')
    data = dict(
        method=method,
        parts=parts,
        beside=beside,
        names=names,
        side=side,
        largest=side * 5 // 3,
        window=WINDOW,
        **_schedule(options, 'det', count, assumed),
    )
    return data, facts, assumed


def _part_of(content: dict[str, Any], images: list[dict[str, Any]]) -> dict[str, Any]:
    ids = {image['id'] for image in images}
    annotations = [part for part in content['annotations'] if part['image_id'] in ids]
    return dict(images=images, annotations=annotations, categories=content['categories'])


def _complete_categories(content: dict[str, Any], names: list[str], part: dict[str, Any]) -> None:
    """Give a file the categories that only the other part has; MMDetection would count them otherwise."""
    own = {category['name'] for category in content['categories']}
    number = max((category['id'] for category in content['categories']), default=0)
    for name in names:
        if name not in own:
            number += 1
            content['categories'] = [*content['categories'], dict(id=number, name=name)]
            part['file'] = None  # written beside the config


def _used_categories(content: dict[str, Any]) -> list[str]:
    """Names of the categories that objects have, by their identifiers."""
    used = {part['category_id'] for part in content['annotations']}
    categories = sorted(content['categories'], key=lambda category: category['id'])
    return [category['name'] for category in categories if category['id'] in used]


def _class_order(contents: dict[str, dict], present: list[str], assumed: list[str]) -> list[str]:
    """Names of the classes: the categories that have objects, as the file orders them."""
    ordered = sorted(contents['train']['categories'], key=lambda category: category['id'])
    listed = [category['name'] for category in ordered]
    empty = [name for name in listed if name not in present]
    if empty:
        assumed.append(f'categories without objects, {shorten(empty)}, are no classes (--classes)')
    return [name for name in dict.fromkeys([*listed, *present]) if name in present]


def _check_outlines(contents: Iterable[dict[str, Any]], method: str | None, assumed: list[str]) -> bool:
    """Whether all objects have outlines.

    Raises:
        UsageError: They have not, and the method needs them.
    """
    objects = [part for content in contents for part in content['annotations'] if not part['iscrowd']]
    without = sum(not part.get('segmentation') for part in objects)
    if without and method in ('mask_rcnn', 'cascade_mask_rcnn'):
        raise UsageError(
            f'--method {method} learns masks, and {without} of {len(objects)} objects have none '
            '(segmentation): choose retinanet'
        )
    if method is None and 0 < without < len(objects):
        assumed.append(f'{without} of {len(objects)} objects have no mask: boxes alone (--method)')
    elif method is None and objects and not without:
        assumed.append('all objects have masks: boxes and masks are learnt (--method retinanet for boxes)')
    return bool(objects) and not without


def _classification(options: Options) -> tuple[dict[str, Any], list[str], list[str]]:
    """Look at a folder for each class."""
    facts, assumed = [], []
    train, val = _splits(options, options.images, assumed)
    if not train.is_dir():
        raise UsageError(f"there is no folder '{train}'")
    classes = sorted(path.name for path in train.iterdir() if path.is_dir() and not path.name.startswith('.'))
    folders.check_names(classes, f"folders of '{train}'")
    if len(classes) < 2:
        raise UsageError(
            f"'{train}' has {len(classes)} folders, and a classifier needs one for each of two classes or "
            'more'
        )
    parts, beside, sizes = {}, {}, []
    for name, folder in (('train', train), ('val', val)):
        if folder is None:
            continue
        files = folders.list_files(folder, folders.IMAGE_SUFFIXES, 'DIR')
        stray = [file for file in files if file.partition('/')[0] not in classes or '/' not in file]
        if stray:
            raise UsageError(
                f"{len(stray)} images are in no folder of a class, such as '{folder / stray[0]}': the "
                f"classes are the folders of '{train}'"
            )
        sizes += [folders.image_size(folder / file) for file in files]
        parts[name] = dict(images=folder, files=files)
    if val is None:
        kept, held = folders.hold_out(parts['train']['files'], options.val_fraction)
        parts = dict(train=dict(images=train, files=kept), val=dict(images=train, files=held))
    for name, part in parts.items():
        # In lists, since folders are read by other rules: hidden ones, other suffixes, other classes.
        part['listed'] = True
        numbers = {name: i for i, name in enumerate(classes)}
        lines = (f'{file} {numbers[file.partition("/")[0]]}' for file in part['files'])
        beside[f'{name}.txt'] = folders.list_lines(lines)
    counts = Counter(file.partition('/')[0] for file in parts['train']['files'])
    empty = [name for name in classes if not counts[name]]
    if empty:
        raise UsageError(f'no image for training is in {shorten(empty)}')
    facts += [
        f'{sum(counts.values())} images for training, {len(parts["val"]["files"])} for validation, of '
        f'{_range(sizes)} pixels',
        f'{len(classes)} classes with {min(counts.values())} images or more each: {shorten(classes, 8)}',
    ]
    data = dict(
        method='classifier',
        parts=parts,
        beside=beside,
        names=classes,
        side=_side(options, 'cls', sizes, assumed),
        window=None,
        **_schedule(options, 'cls', sum(counts.values()), assumed),
    )
    return data, facts, assumed
