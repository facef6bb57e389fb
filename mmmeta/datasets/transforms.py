"""Annotation maps as people have them: sparse labels, palettes and colours, mapped while they are read."""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmcv.transforms import LoadAnnotations
from mmengine import fileio
from PIL import Image, UnidentifiedImageError

from mmmeta.registry import TRANSFORMS
from mmmeta.utils.errors import UsageError, shorten

Label = int | tuple[int, int, int]
IGNORED = 255
# What Pillow raises for damaged files, by format and place of the damage.
IMAGE_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError),
    *(LookupError, TypeError, zlib.error),
)


def read_labels(content: bytes) -> np.ndarray:
    """Labels as an annotation image stores them.

    Args:
        content (bytes): The file. Palette images give their indices, those of one channel of 1, 8 or 16 bits
            their values, those of three or four the colours; two images of equal content give equal labels.

    Returns:
        np.ndarray: int64, ``(H, W)``; colours as ``red * 65536 + green * 256 + blue``, see :func:`code_of`.
    """
    with Image.open(io.BytesIO(content)) as image:
        if image.mode == 'LA':
            image = image.getchannel(0)
        if image.mode not in ('1', 'L', 'P', 'I', 'I;16', 'I;16B'):
            red, green, blue = np.moveaxis(np.asarray(image.convert('RGB'), dtype=np.int64), -1, 0)
            return (red << 16) + (green << 8) + blue
        return np.asarray(image).astype(np.int64)


def code_of(label: Label) -> int:
    """A colour, red first, as a number; a label as it is."""
    if isinstance(label, int):
        return label
    red, green, blue = label
    return (red << 16) + (green << 8) + blue


@TRANSFORMS.register_module()
class LoadMappedLabels(LoadAnnotations):
    """Load an annotation map whose labels are not those of the classes, in place of ``LoadAnnotations``.

    Args:
        labels (Sequence[int | tuple[int, int, int]]): What the maps store for each class, in the order of the
            classes: labels up to 65535, indices of a palette, or colours (red, green, blue).
        ignore (Sequence[int | tuple[int, int, int]]): What they store where there is no class; the loss and
            the metrics leave these pixels out. Defaults to ().
        backend_args (dict | None): MMEngine's file backend. Defaults to None: the disk.

    Raises:
        UsageError: A label stands twice, a map has one that is in neither list, or is damaged.
    """

    def __init__(
        self, labels: Sequence[Label], ignore: Sequence[Label] = (), backend_args: dict | None = None
    ) -> None:
        super().__init__(with_bbox=False, with_label=False, with_seg=True, backend_args=backend_args)
        self.labels, self.ignore = labels, ignore
        stored = [*map(_as_label, labels), *map(_as_label, ignore)]
        if len(set(stored)) < len(stored):
            twice = sorted(str(label) for label in set(stored) if stored.count(label) > 1)
            raise UsageError(f'LoadMappedLabels: {shorten(twice)} stands twice in labels and ignore')
        if len(labels) > IGNORED:
            raise UsageError(f'LoadMappedLabels: {len(labels)} classes, and MMSegmentation has 255 at most')
        codes = np.array([code_of(label) for label in stored])
        self._order = np.argsort(codes)
        self._codes = codes[self._order]
        self._classes = np.array([*range(len(labels)), *[IGNORED] * len(ignore)], np.uint8)[self._order]

    def _load_seg_map(self, results: dict) -> None:
        path = results['seg_map_path']
        content = fileio.get(path, backend_args=self.backend_args)
        try:
            stored = read_labels(content)
        except IMAGE_ERRORS as error:
            raise UsageError(explain_damage(path, error)) from error
        places = np.searchsorted(self._codes, stored).clip(max=len(self._codes) - 1)
        unknown = self._codes[places] != stored
        if unknown.any():
            value = int(stored[unknown].max())
            said = f'colour {colour_of(value)}' if isinstance(_as_label(self.labels[0]), tuple) else value
            raise UsageError(
                f"'{path}' has the label {said}, which is in neither labels nor ignore of LoadMappedLabels"
            )
        results['gt_seg_map'] = self._classes[places]
        results['seg_fields'].append('gt_seg_map')

    def __repr__(self) -> str:
        return f'{type(self).__name__}(labels={self.labels}, ignore={self.ignore})'


def explain_damage(path: str | Path, error: Exception) -> str:
    """One sentence for an image that cannot be read."""
    reason = 'unknown format' if isinstance(error, UnidentifiedImageError) else error
    return f"'{path}' is damaged or not an image ({reason}): get it again, or take it out of the data set"


def _as_label(label: Label | Sequence[int]) -> Label:
    """A label as a value that can be compared: configs have lists where tuples are meant."""
    return label if isinstance(label, int) else tuple(label)


def colour_of(code: int) -> tuple[int, int, int]:
    """The colour, red first, that :func:`code_of` made a number of."""
    return code >> 16, code >> 8 & 255, code & 255
