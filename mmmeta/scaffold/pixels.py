"""How images are stored: depth, channels, and the mean and standard deviation of what a network gets."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mmmeta.runtime.run import RuntimeProblem, Stored, read_pixels, rescale, stored_as
from mmmeta.utils.errors import UsageError, counted

from .facts import Facts, Options, Pixels

# Images whose pixels are measured, at most.
SAMPLE = 200


def examine_pixels(facts: Facts, options: Options) -> Pixels | None:
    """Read how all images are stored, and measure those that are not of 8 bits of red, green and blue.

    Args:
        facts (Facts): What is known of the data; what is found and assumed is added.
        options (Options): What a person says.

    Returns:
        Pixels | None: How they are read; None where MMCV's ``LoadImageFromFile`` loses nothing.

    Raises:
        UsageError: They are not alike, cannot be read, or not as the options say.
    """
    paths = {
        name: [split.images / f'{image}{facts.suffixes[0]}' for image in split.names]
        for name, split in facts.splits.items()
    }
    every = [path for part in paths.values() for path in part]
    with ThreadPoolExecutor() as pool:
        try:
            stored = list(options.progress(pool.map(stored_as, every), len(every)))
        except RuntimeProblem as error:
            raise UsageError(str(error)) from error
    if _is_ordinary(stored, options):
        transparent = sum(one.has_alpha for one in stored)
        if transparent:
            facts.assumed.append(
                f'transparency of {counted(transparent, "image")} is left out (--channels reads it)'
            )
        if all(one.channels == 1 for one in stored):
            facts.assumed.append('grey images are read as three equal channels (--channels 1 for one)')
        return None
    channels = _channels(every, stored, options)
    pixels, low, high = _measure(paths['train'], channels, stored[0].dtype, options)
    facts.found.append(
        f'the images have {stored[0]}, of which {channels} are read, with values from {low:g} to {high:g} '
        '(mmmeta.LoadUnchangedImage; --channels, --in-range)'
    )
    return pixels


def _is_ordinary(stored: Sequence[Stored], options: Options) -> bool:
    ordinary = all(one.is_ordinary for one in stored)
    return ordinary and options.channels in (None, 3) and options.in_range is None


def _channels(paths: Sequence[Path], stored: Sequence[Stored], options: Options) -> int:
    """Return how many channels all images have.

    Raises:
        UsageError: They differ, in their type too, or the option names another number.
    """
    first = stored[0]
    for path, one in zip(paths, stored, strict=True):
        if (one.channels, one.dtype, one.has_alpha) != (first.channels, first.dtype, first.has_alpha):
            raise UsageError(f"'{paths[0]}' has {first}, and '{path}' has {one}: store all images alike")
    allowed = dict.fromkeys((first.channels - first.has_alpha, first.channels))
    channels = options.channels or next(iter(allowed))
    if channels not in allowed:
        raise UsageError(
            f'--channels {channels}: the images have {first}: give {" or ".join(map(str, allowed))}'
        )
    return channels


def _measure(
    paths: Sequence[Path], channels: int, dtype: str, options: Options
) -> tuple[Pixels, float, float]:
    """Measure images for training, evenly spread; with the lowest and the highest value.

    Raises:
        UsageError: A value is not finite, or all are clipped.
    """
    chosen = paths[:: -(-len(paths) // SAMPLE)]
    count, low, high = 0, np.inf, -np.inf
    sums, squares = np.zeros(channels), np.zeros(channels)
    for path in options.progress(chosen, len(chosen)):
        try:
            values = rescale(read_pixels(path, channels), options.in_range).reshape(-1, channels)
        except RuntimeProblem as error:
            raise UsageError(str(error)) from error
        if not np.isfinite(values).all():
            raise UsageError(
                f"'{path}' has values that are not finite numbers: store a number in their place"
            )
        count += len(values)
        low, high = min(low, values.min()), max(high, values.max())
        sums += values.sum(0, dtype=np.float64)
        squares += np.square(values, dtype=np.float64).sum(0)
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    if not std.all():
        constant = [i for i in range(channels) if not std[i]]
        remedy = 'give another --in-range' if options.in_range else 'save the images without'
        raise UsageError(
            f'channel {constant[0]} of the images for training is {mean[constant[0]]:g} everywhere: {remedy}'
        )
    rounded = [[float(f'{value:.6g}') for value in part] for part in (mean, std)]
    return Pixels(channels, dtype, options.in_range, *rounded), low, high
