"""Look at images with annotation maps."""

from collections import Counter
from pathlib import Path

from mmmeta.utils.errors import UsageError, shorten

from . import folders
from .facts import PARTS, Facts, Options, Split, format_counts
from .masks import examine_masks
from .parts import Part, find_parts
from .shapes import refuse_shapes


def look_at_maps(options: Options) -> Facts:
    """Look at images and annotation maps.

    Raises:
        UsageError: Images or maps are missing, or contradict each other.
    """
    assumed: list[str] = []
    refuse_shapes(options.labels)
    if options.labels is None or not options.labels.is_dir():
        missing = f": there is no folder '{options.labels}'" if options.labels else ' names their folder'
        raise UsageError(f'--masks{missing}')
    parts = find_parts('seg', options, assumed)
    splits: dict[str, Split] = {}
    paths: list[Path] = []
    images: list[Path] = []
    suffixes = ('', '')
    for name, part in parts.items():
        stems, suffixes, complete = _pair_files(options, part, suffixes)
        splits[name] = Split(part.images, stems, part.labels, not complete)
        paths += [part.labels / f'{stem}{suffixes[1]}' for stem in stems]
        images += [part.images / f'{stem}{suffixes[0]}' for stem in stems]
    if 'val' not in parts:
        train = splits['train']
        kept, held = folders.hold_out(train.names, options.val_fraction)
        for name, stems in (('train', kept), ('val', held)):
            splits[name] = Split(train.images, stems, train.labels, True)
    sizes = [folders.image_size(path) for path in images]
    names = folders.read_names(options.classes)
    labels = examine_masks(paths, sizes, names, options.ignore, options.progress)
    count = len(splits['train'].names)
    found = [
        format_counts({name: len(splits[name].names) for name in PARTS if name in splits}, sizes),
        f'{len(labels.names)} classes: {shorten(labels.names, 8)}',
    ]
    if labels.is_mapped:
        stored = [f'{label} for {name}' for label, name in zip(labels.classes, labels.names, strict=True)]
        found.append(
            f'the masks store {shorten(stored, 4)}: the config reads these as classes 0 '
            f'{"and" if len(labels.names) == 2 else "to"} {len(labels.names) - 1} (mmmeta.LoadMappedLabels); '
            'no file is changed'
        )
    return Facts(
        splits,
        classes=labels.names,
        sizes=sizes,
        count=count,
        method='upernet',
        beside={
            f'{k}.txt': folders.list_lines(split.names) for k, split in splits.items() if split.is_listed
        },
        found=found,
        assumed=assumed + labels.assumed,
        labels=labels,
        suffixes=suffixes,
    )


def _pair_files(
    options: Options, part: Part, suffixes: tuple[str, str]
) -> tuple[list[str], tuple[str, str], bool]:
    """Names of images that have a map, the endings of both, and whether these are all images.

    Raises:
        UsageError: Images have no map.
    """
    folder, maps = part.images, part.labels
    images = part.list_files('--images')
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
    if suffixes not in (('', ''), (of_image, end)):
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
    return paired, (of_image, end), not lost and not inside and part.names is None
