"""Annotation maps: which labels they store, and what is a class, what is left out."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from mmmeta.datasets.transforms import IGNORED, IMAGE_ERRORS, Label, colour_of, read_labels
from mmmeta.utils.errors import UsageError, shorten

from .folders import Progress

# Values of a map without smoothed edges.
MOST_LABELS = 255


@dataclass
class Labels:
    """What the maps of a data set store.

    Attributes:
        classes (list[Label]): What is stored for each class, in the order of the classes.
        ignore (list[Label]): What is stored where there is no class.
        names (list[str]): Names of the classes.
        palette (list[tuple[int, ...]] | None): Their colours, if the maps have them.
        assumed (list[str]): What was assumed, and the options that would say otherwise.
        unusual (bool): Whether MMSegmentation would read the files as something else. Defaults to False.
    """

    classes: list[Label]
    ignore: list[Label]
    names: list[str]
    palette: list[tuple[int, ...]] | None
    assumed: list[str] = field(default_factory=list)
    unusual: bool = False

    @property
    def is_mapped(self) -> bool:
        """Whether stored labels are not those of the classes."""
        return (
            self.unusual
            or self.classes != list(range(len(self.classes)))
            or not set(self.ignore) <= {IGNORED}
        )


@dataclass(frozen=True)
class _StoredMap:
    is_colour: bool
    values: frozenset[int]
    size: tuple[int, int]
    palette: tuple[int, ...] | None
    unusual: bool


def _look(path: Path) -> _StoredMap:
    try:
        with Image.open(path) as image:
            is_colour = image.mode not in ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'LA', 'F')
            palette = tuple(image.getpalette() or ()) if image.mode == 'P' else None
            unusual = image.mode in ('LA', 'F')
        labels = read_labels(path.read_bytes())
    except IMAGE_ERRORS as error:
        raise UsageError(f"--masks: '{path}' cannot be read as an image ({error})") from error
    return _StoredMap(is_colour, frozenset(map(int, np.unique(labels))), labels.shape, palette, unusual)


def examine_masks(
    paths: Sequence[Path],
    sizes: Sequence[tuple[int, int]],
    names: list[tuple[str, str | None]] | None,
    ignore: list[str] | None,
    progress: Progress,
) -> Labels:
    """Read all annotation maps, and say what they store.

    Args:
        paths (Sequence[Path]): The maps.
        sizes (Sequence[tuple[int, int]]): Height and width of the image of each.
        names (list[tuple[str, str | None]] | None): As ``read_names`` returns them.
        ignore (list[str] | None): Stored labels, or colours such as ``255,255,255``, that are no class;
            ``['none']`` for none; None to find out.
        progress (callable): Wraps the maps while they are read; it is given their number as well.

    Raises:
        UsageError: They are no annotation maps, of another size than the images, or what they mean has to
            be said by an option.
    """
    lossy = [path for path in paths if path.suffix.lower() in ('.jpg', '.jpeg')]
    if lossy:
        raise UsageError(
            f"--masks: '{lossy[0]}' is a JPEG file, whose compression changes labels: write PNG files"
        )
    with ThreadPoolExecutor() as pool:
        maps = list(progress(pool.map(_look, paths), len(paths)))
    other = [i for i, part in enumerate(maps) if part.size != tuple(sizes[i])]
    if other:
        (height, width), (of_image, by) = maps[other[0]].size, sizes[other[0]]
        raise UsageError(
            f'--masks: {len(other)} of {len(maps)} have another size than their image, such as '
            f"'{paths[other[0]]}': {height}x{width} pixels instead of {of_image}x{by}"
        )
    kinds = {part.is_colour for part in maps}
    if len(kinds) > 1:
        odd = next(path for path, part in zip(paths, maps, strict=True) if part.is_colour)
        raise UsageError(f"--masks: some have one channel, and '{odd}' has colours: convert them to one kind")
    stored = sorted(frozenset().union(*(part.values for part in maps)))
    if len(stored) > MOST_LABELS:
        raise UsageError(
            f'--masks: {len(stored)} different values, which are no labels of classes: smoothed edges, a '
            f"lossy format or photographs ('{paths[0]}' is the first)"
        )
    if kinds == {True}:
        labels = _interpret([colour_of(value) for value in stored], names, ignore)
        labels.palette = [colour for colour in labels.classes if isinstance(colour, tuple)]
        return labels
    labels = _interpret(stored, names, ignore)
    labels.unusual = any(part.unusual for part in maps)
    colours = _shared_palette(maps)
    if all(label in colours for label in labels.classes):
        labels.palette = [colours[label] for label in labels.classes]
    return labels


def _shared_palette(maps: list[_StoredMap]) -> dict[Label, tuple[int, ...]]:
    """Colours of the indices of palette images.

    Raises:
        UsageError: One index has two colours, so that indices mean nothing.
    """
    colours: dict[Label, tuple[int, ...]] = {}
    for part in maps:
        if not part.palette:
            continue
        for i in part.values:
            colour = part.palette[3 * i : 3 * i + 3]
            if colours.setdefault(i, colour) != colour:
                raise UsageError(
                    f'--masks: palettes differ: index {i} is {colours[i]} in one map, {colour} in another; '
                    'save all with one palette, or as colours (RGB)'
                )
    return {i: colour for i, colour in colours.items() if len(colour) == 3}


def _parse_label(text: str, is_colour: bool, option: str) -> Label:
    """A label, or a colour, as a user writes it.

    Raises:
        UsageError: It is neither, or not what the maps have.
    """
    if not is_colour and re.fullmatch(r'-[0-9]{1,6}', text):  # of signed masks
        return int(text)
    # Six digits hold every label and part of a colour.
    numbers = [int(number) for number in re.findall(r'[0-9]{1,6}', text)]
    if not re.fullmatch(r'[0-9,\s]+', text) or len(numbers) != (3 if is_colour else 1):
        wanted = 'a colour such as 128,64,128' if is_colour else 'a label such as 255'
        raise UsageError(f'{option}: {text!r} is not {wanted}, which these masks store')
    return tuple(numbers) if is_colour else numbers[0]


def _interpret(
    stored: list[Label], names: list[tuple[str, str | None]] | None, ignore: list[str] | None
) -> Labels:
    """Which stored labels are classes."""
    numbers = [label for label in stored if isinstance(label, int)]
    is_colour = not numbers
    given = None
    if ignore is not None:
        given = [] if ignore == ['none'] else [_parse_label(text, is_colour, '--ignore') for text in ignore]
    said = [(name, value) for name, value in names or () if value]
    if names and said:
        if len(said) < len(names):
            raise UsageError('--classes: say for each class what the masks store, or for none')
        return _by_name(stored, said, given, is_colour)
    listed = [name for name, _ in names] if names else None
    rest = [label for label in stored if label not in (given or ())]
    assumed = []
    if given is None:
        if is_colour and listed is not None and len(listed) != len(stored):
            raise UsageError(
                f'--classes has {len(listed)} names, and the masks have {len(stored)} colours: '
                f'{shorten(stored, 20)}; say which is which (road:128,64,128 in each line of --classes)'
            )
        given = [*_guess_ignored(numbers, listed)]
        rest = [label for label in stored if label not in given]
        if given:
            assumed.append(f'label {shorten(given)} means no class and is left out (--ignore)')
    if not rest:
        raise UsageError(f'--ignore: all labels of the masks, {shorten(stored)}, are left out')
    named = range(len(listed or ()))
    within = all(isinstance(label, int) and label < len(named) for label in rest)
    if listed is not None and within and not {*given} & {*named}:
        rest = [*named]  # some do not occur
    elif listed is not None and len(listed) != len(rest):
        raise UsageError(
            f'--classes has {len(listed)} names, and the masks have {len(rest)} labels: {shorten(rest, 20)}; '
            'say what is stored for each (road:7), or what is no class (--ignore)'
        )
    if listed is None:
        listed = _default_names(rest)
        assumed.append(f'{len(rest)} classes are named {shorten(listed, 3)} (--classes)')
    if len(rest) < 2:
        raise UsageError(
            f'the masks have one class, label {rest[0]}, and a segmentor tells two or more apart: name the '
            'background a class too (--ignore none)'
        )
    return Labels(rest, given, listed, None, assumed)


def _by_name(
    stored: list[Label], names: list[tuple[str, str]], ignore: list[Label] | None, is_colour: bool
) -> Labels:
    """Labels that the user said one by one."""
    classes = [_parse_label(value, is_colour, '--classes') for _, value in names]
    twice = [label for label in classes if classes.count(label) > 1 or label in (ignore or ())]
    if twice:
        raise UsageError(f'--classes and --ignore: label {twice[0]} is given twice; give each one meaning')
    left = [label for label in stored if label not in classes and label not in (ignore or ())]
    if left and not (ignore is None and left == [IGNORED]):
        raise UsageError(
            f'--classes names {len(classes)} labels, and the masks have others too: {shorten(left, 20)}; '
            'name them, or say that they are no class (--ignore)'
        )
    assumed = [f'label {IGNORED} means no class and is left out (--ignore)'] if left else []
    return Labels(classes, [*(ignore or ()), *left], [name for name, _ in names], None, assumed)


def _guess_ignored(stored: list[int], names: list[str] | None) -> list[int]:
    """Labels that are no class, where nothing else is possible; none of colours.

    Raises:
        UsageError: Several meanings are possible.
    """
    below = [label for label in stored if label < 0]  # numbers that count no class
    if below:
        return [*below, *_guess_ignored(stored[len(below) :], names)]
    if set(stored) <= {0, IGNORED} or stored == list(range(len(stored))):
        return []
    inner = [label for label in stored if label != IGNORED]
    if inner == list(range(len(inner))):
        return stored[len(inner) :]
    if names is not None and IGNORED in stored and max(inner) < len(names):
        return [IGNORED]  # and some classes do not occur
    # Sparse labels: 0 and 255 may be classes, or not.
    doubtful = [label for label in stored if label in (0, IGNORED)]
    if not doubtful:
        return []
    if names is not None:
        fitting = [out for out in ([], [0], [IGNORED], [0, IGNORED]) if set(out) <= set(doubtful)]
        fitting = [out for out in fitting if len(stored) - len(out) == len(names)]
        if len(fitting) == 1:
            return fitting[0]
    either = ' or '.join(map(str, doubtful))
    raise UsageError(
        f'the masks have the labels {shorten(stored, 8)}, and {either} may be a class, or mean that there is '
        f'none: say --ignore {" ".join(map(str, doubtful))}, or --ignore none'
    )


def _default_names(labels: list[Label]) -> list[str]:
    if labels in ([0, 1], [0, IGNORED]):
        return ['background', 'foreground']
    return [
        'color_{:02x}{:02x}{:02x}'.format(*label) if isinstance(label, tuple) else f'class_{label}'
        for label in labels
    ]
