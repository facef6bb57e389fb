"""Read images as they are stored, and annotation maps with sparse labels, palettes and colours."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform, LoadAnnotations
from mmengine import fileio
from PIL import Image, UnidentifiedImageError

from mmmeta.registry import TRANSFORMS
from mmmeta.runtime.run import DAMAGE, RuntimeProblem, read_pixels, rescale
from mmmeta.utils.errors import UsageError, shorten

Label = int | tuple[int, ...]
IGNORED = 255
# What Pillow raises for damaged files, by format and place of the damage, and our reader.
IMAGE_ERRORS = (*DAMAGE, Image.DecompressionBombError, RuntimeProblem)


def read_labels(content: bytes) -> np.ndarray:
    """Labels as an annotation image stores them.

    Args:
        content (bytes): The file. Palette images give their indices, those of one channel their values, of 32
            bits too, those of three or four the colours; two images of equal content give equal labels.

    Returns:
        np.ndarray: int64, ``(H, W)``; colours as ``red * 65536 + green * 256 + blue``, see :func:`code_of`.
    """
    with Image.open(io.BytesIO(content)) as image:
        if image.mode == 'LA':
            image = image.getchannel(0)
        if image.format == 'PNG' and content[24] == 16 and content[25]:  # of which Pillow keeps 8
            raise ValueError('labels of 16 bits in colours')
        if image.mode == 'F':
            stored = np.asarray(image)
            labels = stored.astype(np.int64)
            if (labels != stored).any():
                raise ValueError(f'labels that are not whole numbers, such as {stored[labels != stored][0]}')
            return labels
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


@TRANSFORMS.register_module()
class LoadUnchangedImage(BaseTransform):
    """Load an image as it is stored, of any number of channels and up to 16 bits, instead of as 8-bit BGR.

    Channels are in the order of the file, red first: write ``bgr_to_rgb=False`` for the data preprocessor,
    and the mean and standard deviation of your images.

    Args:
        channels (int): Channels that each image has to have; transparency beyond these is left out.
        in_range (tuple[float, float] | None): Values that become 0 and 255, in 8 bits; what is below or above
            is clipped. Defaults to None: values stay as they are.

    Adds ``img``, ``(H, W, channels)``: uint8 where 8 bits are stored or ``in_range`` is given, else float32,
    which holds each value of 16 bits; ``img_shape`` and ``ori_shape``.

    Raises:
        UsageError: An image is damaged, has other channels, or is read by a package that is not installed.
    """

    def __init__(self, channels: int, in_range: tuple[float, float] | None = None) -> None:
        super().__init__()
        if channels < 1:
            raise UsageError(f'LoadUnchangedImage: channels={channels}: give a positive number')
        if in_range is not None and not in_range[0] < in_range[1]:
            raise UsageError(f'LoadUnchangedImage: in_range={in_range}: give the lower value first')
        self.channels, self.in_range = channels, in_range

    def transform(self, results: dict) -> dict:
        """Load an image."""
        try:
            pixels = read_pixels(results['img_path'], self.channels)
        except RuntimeProblem as error:
            raise UsageError(str(error)) from error
        results['img'] = rescale(pixels, self.in_range)
        results['img_shape'] = results['ori_shape'] = pixels.shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(channels={self.channels}, in_range={self.in_range})'


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
