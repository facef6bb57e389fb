"""Look at a folder of images for each class."""

from collections import Counter

from mmmeta.utils.errors import UsageError, counted, shorten

from . import folders
from .facts import Facts, Options, Split, format_counts
from .parts import find_parts


def look_at_folders(options: Options) -> Facts:
    """Look at a folder of images for each class.

    Raises:
        UsageError: There are no two of them, or images lie elsewhere.
    """
    assumed: list[str] = []
    parts = find_parts('cls', options, assumed)
    train = parts['train'].images
    if not train.is_dir():
        raise UsageError(f"there is no folder '{train}'")
    classes = sorted(path.name for path in train.iterdir() if path.is_dir() and not path.name.startswith('.'))
    folders.check_names(classes, f"folders of '{train}'")
    if len(classes) < 2:
        raise UsageError(
            f"'{train}' has {len(classes)} folders, and a classifier needs one for each of two classes or "
            'more'
        )
    splits: dict[str, Split] = {}
    sizes: list[tuple[int, int]] = []
    for name, part in parts.items():
        folder = part.images
        files = folders.list_files(folder, folders.IMAGE_SUFFIXES, 'DIR')
        stray = [file for file in files if file.partition('/')[0] not in classes or '/' not in file]
        if stray:
            raise UsageError(
                f"{len(stray)} images are in no folder of a class, such as '{folder / stray[0]}': the "
                f"classes are the folders of '{train}'"
            )
        sizes += [folders.image_size(folder / file) for file in files]
        # In lists, since folders are read by other rules: hidden ones, other suffixes, other classes.
        splits[name] = Split(folder, files, folder, is_listed=True)
    if 'val' not in parts:
        kept, held = folders.hold_out(splits['train'].names, options.val_fraction)
        splits.update(train=Split(train, kept, train, True), val=Split(train, held, train, True))
    counts = Counter(file.partition('/')[0] for file in splits['train'].names)
    empty = [name for name in classes if not counts[name]]
    if empty:
        raise UsageError(f'no image for training is in {shorten(empty)}')
    numbers = {name: i for i, name in enumerate(classes)}
    for name, use in (('val', 'validation'), ('test', 'the test')):
        present = {file.partition('/')[0] for file in splits[name].names} if name in splits else set(classes)
        if present < set(classes):
            absent = [one for one in classes if one not in present]
            assumed.append(f'no image for {use} is of {shorten(absent)}, whose accuracy is not measured')
    return Facts(
        splits,
        classes=classes,
        sizes=sizes,
        count=sum(counts.values()),
        method='classifier',
        beside={
            f'{k}.txt': folders.list_lines(
                f'{file} {numbers[file.partition("/")[0]]}' for file in split.names
            )
            for k, split in splits.items()
        },
        found=[
            format_counts({name: len(split.names) for name, split in splits.items()}, sizes),
            f'{len(classes)} classes, each with {counted(min(counts.values()), "image")} or more: '
            f'{shorten(classes, 8)}',
        ],
        assumed=assumed,
    )
