"""What a person says of a data set, and what a look at it finds."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmmeta.utils.errors import UsageError

from . import folders
from .masks import Labels


@dataclass(frozen=True)
class Options:
    """What a person says; see :func:`~mmmeta.apis.new`."""

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


@dataclass
class Split:
    """The images of training or of validation.

    Attributes:
        images (Path): Their folder.
        names (list[str]): The images, relative to the folder; without their endings where they have maps.
        labels (Path | None): The folder of their maps, or their file of COCO's format. Defaults to None:
            written beside the config.
        is_listed (bool): Whether a list of the images is written beside the config. Defaults to False.
    """

    images: Path
    names: list[str]
    labels: Path | None = None
    is_listed: bool = False


@dataclass
class Facts:
    """What a look at a data set finds.

    Attributes:
        train (Split): Images for training.
        val (Split): Images for validation.
        classes (list[str]): Names of the classes, in their order.
        sizes (list[tuple[int, int]]): Height and width of all images.
        count (int): Images that a network is trained on.
        method (str): The method that fits, if none is given.
        beside (dict[str, str]): Files that are written beside the config: ends of their names, and contents.
        found (list[str]): What a person should know, in sentences. Defaults to nothing.
        assumed (list[str]): What was assumed, and the options that would say otherwise. Defaults to nothing.
        labels (Labels | None): What annotation maps store. Defaults to None: there are none.
        suffixes (tuple[str, str]): Ends of the names of images and of annotation maps. Defaults to none.
    """

    train: Split
    val: Split
    classes: list[str]
    sizes: list[tuple[int, int]]
    count: int
    method: str
    beside: dict[str, str]
    found: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    labels: Labels | None = None
    suffixes: tuple[str, str] = ('', '')


def find_splits(options: Options, folder: Path, assumed: list[str]) -> tuple[Path, Path | None]:
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


def find_label_splits(options: Options, option: str) -> tuple[Path, Path]:
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


def format_range(sizes: list[tuple[int, int]]) -> str:
    """Return the smallest and the largest size, or the one that all have."""
    least, most = min(sizes, key=lambda s: s[0] * s[1]), max(sizes, key=lambda s: s[0] * s[1])
    said = ['{}x{}'.format(*least), '{}x{}'.format(*most)]
    return ' to '.join(dict.fromkeys(said))
