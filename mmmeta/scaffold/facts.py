"""What a person says of a data set, and what a look at it finds."""

from dataclasses import dataclass, field
from pathlib import Path

from mmmeta.utils.errors import counted

from .folders import Progress
from .masks import Labels

PARTS = ('train', 'val', 'test')


@dataclass(frozen=True)
class Options:
    """What a person says; see :func:`~mmmeta.apis.new`."""

    images: Path
    labels: Path | None
    val_images: Path | None
    val_labels: Path | None
    test_images: Path | None
    test_labels: Path | None
    val_fraction: float
    classes: str | None
    ignore: list[str] | None
    method: str | None
    size: int | None
    batch_size: int | None
    epochs: int | None
    skip_missing: bool
    progress: Progress
    channels: int | None = None
    in_range: tuple[float, float] | None = None
    inherits: bool = False


@dataclass(frozen=True)
class Pixels:
    """How images are read that are not of 8 bits of red, green and blue.

    Attributes:
        channels (int): Channels that are read.
        dtype (str): What is stored, as NumPy names it.
        in_range (tuple[float, float] | None): Values that become 0 and 255.
        mean (list[float]): Mean of each channel, after that.
        std (list[float]): Standard deviation of each channel.
    """

    channels: int
    dtype: str
    in_range: tuple[float, float] | None
    mean: list[float]
    std: list[float]


@dataclass
class Split:
    """The images of training, of validation or of the test.

    Attributes:
        images (Path): Their folder.
        names (list[str]): The images, relative to the folder; without their endings where they have maps.
        labels (Path): The folder of their maps, or the folder or file of their objects; that of the images
            where these are in folders of classes.
        is_listed (bool): Whether a list of the images is written beside the config. Defaults to False.
        is_written (bool): Whether a file of their objects is written beside the config, instead of reading
            ``labels``. Defaults to False.
    """

    images: Path
    names: list[str]
    labels: Path
    is_listed: bool = False
    is_written: bool = False


@dataclass
class Facts:
    """What a look at a data set finds.

    Attributes:
        splits (dict[str, Split]): Images for training, ``'train'``, for validation, ``'val'``, and if there
            are some for the test, ``'test'``.
        classes (list[str]): Names of the classes, in their order.
        sizes (list[tuple[int, int]]): Height and width of all images.
        count (int): Images that a network is trained on.
        method (str): The method that fits, if none is given.
        beside (dict[str, str]): Files that are written beside the config: ends of their names, and contents.
        found (list[str]): What a person should know, in sentences. Defaults to nothing.
        assumed (list[str]): What was assumed, and the options that would say otherwise. Defaults to nothing.
        labels (Labels): What annotation maps store. Defaults to nothing.
        suffixes (tuple[str, str]): Ends of the names of images and of annotation maps. Defaults to none.
        pixels (Pixels | None): How images are read. Defaults to None: as 8 bits of red, green and blue.
    """

    splits: dict[str, Split]
    classes: list[str]
    sizes: list[tuple[int, int]]
    count: int
    method: str
    beside: dict[str, str]
    found: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    labels: Labels = field(default_factory=lambda: Labels([], [], [], None))
    suffixes: tuple[str, str] = ('', '')
    pixels: Pixels | None = None

    def __post_init__(self) -> None:
        self.splits = {name: self.splits[name] for name in PARTS if name in self.splits}


def format_counts(counts: dict[str, int], sizes: list[tuple[int, int]]) -> str:
    """Return how many images each part has, and their sizes."""
    words = dict(val='for validation', test='for the test')
    others = ''.join(f', {counts[name]} {word}' for name, word in words.items() if name in counts)
    said = f'{counted(counts["train"], "image")} for training{others}'
    return f'{said}, of {format_range(sizes)} pixels'


def format_range(sizes: list[tuple[int, int]]) -> str:
    """Return the smallest and the largest size, or the one that all have."""
    least, most = min(sizes, key=lambda s: s[0] * s[1]), max(sizes, key=lambda s: s[0] * s[1])
    said = ['{}x{}'.format(*least), '{}x{}'.format(*most)]
    return ' to '.join(dict.fromkeys(said))
