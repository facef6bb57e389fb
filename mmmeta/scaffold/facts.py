"""What a person says of a data set, and what a look at it finds."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmmeta.utils.errors import counted

from .masks import Labels


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
    progress: Callable[[Iterable, int], Iterator]
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
        test (Split | None): Images for the test. Defaults to None: those for validation.
        pixels (Pixels | None): How images are read. Defaults to None: as 8 bits of red, green and blue.
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
    test: Split | None = None
    pixels: Pixels | None = None

    @property
    def splits(self) -> dict[str, Split]:
        """The parts that the data set has, by their names."""
        parts = dict(train=self.train, val=self.val, test=self.test)
        return {name: split for name, split in parts.items() if split is not None}


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
