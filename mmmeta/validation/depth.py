"""Depth and channels of image files against the steps that read them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from mmmeta.datasets.transforms import IMAGE_ERRORS, read_labels
from mmmeta.engine.hooks import inner_datasets
from mmmeta.runtime.run import RuntimeProblem, Stored, stored_as
from mmmeta.utils.errors import counted, shorten

from .finding import Finding

# Images and annotation maps whose headers are read.
SAMPLE = 64
# Normalised values further than this from 0, or that differ less or more, are odd.
FAR, FLAT, WIDE = 3, 0.05, 5


def check_depth(name: str, dataset: Any, count: int | None = SAMPLE) -> Iterator[Finding]:
    """Find images and annotation maps of which a pipeline reads less than they store, by their headers.

    Args:
        name (str): Name of the data loader.
        dataset (Dataset): The data set, built.
        count (int | None): Images to look at, evenly spread; None for all. Defaults to 64.
    """
    parts = inner_datasets(dataset)
    if parts:
        for part in parts:
            yield from check_depth(name, part, count)
        return
    loaders = {type(step).__name__: step for step in getattr(dataset.pipeline, 'transforms', ())}
    image, maps = loaders.get('LoadImageFromFile'), loaders.get('LoadAnnotations')
    maps = maps if hasattr(dataset, 'reduce_zero_label') else None
    if getattr(dataset, 'backend_args', None) or not hasattr(dataset, 'get_data_info'):
        return
    step = 1 if count is None else max(1, len(dataset) // count)
    infos = [dataset.get_data_info(i) for i in range(0, len(dataset), step)]
    for checked, loader, key in ((explain_lost, image, 'img_path'), (_explain_map, maps, 'seg_map_path')):
        paths = [info[key] for info in infos if isinstance(info.get(key), str)] if loader else []
        found = (checked(path, vars(loader)) for path in paths)
        text, is_warning = next((one for one in found if one), (None, False))
        if text is not None:
            yield Finding(f'{name}.dataset.pipeline', text, is_warning)


def _stored(path: str) -> Stored | None:
    """Return how an image is stored; None where it is not an image on the disk, which other checks report."""
    try:
        return stored_as(path)
    except RuntimeProblem:
        return None


def explain_lost(path: str, step: dict[str, Any]) -> tuple[str, bool] | None:
    """Return a sentence if MMCV's ``LoadImageFromFile`` reads less than is stored.

    Args:
        path (str): The image.
        step (dict): The arguments of the transform.

    Returns:
        tuple[str, bool] | None: The sentence, and whether channels alone are left out, as may be meant.
    """
    stored = _stored(path)
    backend, kind = step.get('imdecode_backend', 'cv2'), step.get('color_type', 'color')
    if stored is None or backend not in ('cv2', 'pillow', None):
        return None
    channels = stored.channels - stored.has_alpha
    if kind.startswith('unchanged'):
        lost = stored.readers[0] not in ('PIL', 'cv2') or (backend == 'pillow' and stored.readers[0] != 'PIL')
        read = 'does not read that'
    else:
        lost = stored.dtype != 'uint8' or (kind.startswith('color') and channels not in (1, 3))
        read = 'reads 8 bits of ' + ('red, green and blue' if kind.startswith('color') else 'grey')
    if not lost:
        return None
    return (
        f"'{path}' has {stored}, and LoadImageFromFile with color_type='{kind}' {read}: write "
        f"dict(type='mmmeta.LoadUnchangedImage', channels={channels}), model.backbone.in_channels={channels} "
        'and the mean and standard deviation of your images, as python -m mmmeta new does',
        stored.dtype == 'uint8' and not kind.startswith('unchanged'),
    )


def _explain_map(path: str, step: dict[str, Any]) -> tuple[str, bool] | None:
    """Return a sentence if labels do not fit into the 8 bits that MMSegmentation keeps."""
    stored = _stored(path)
    if stored is None or stored.dtype == 'uint8':
        return None
    try:
        with open(path, 'rb') as file:
            labels = np.unique(read_labels(file.read()))
    except IMAGE_ERRORS:
        return None
    # -1 becomes 255, as it is meant.
    changed = labels[(labels < -1) | (labels > 255)]
    if not changed.size:
        return None
    return (
        f"'{path}' has the labels {shorten(labels.tolist())}, and LoadAnnotations keeps 8 bits, in which "
        f"{changed[0]} becomes {changed[0] % 256}: write dict(type='mmmeta.LoadMappedLabels', labels=[...], "
        'ignore=[...]) in its place',
        False,
    )


def describe_inputs(
    name: str, inputs: list[Tensor], preprocessor: dict[str, Any]
) -> tuple[str, Iterator[Finding]]:
    """Describe what a pipeline gives a network, and find values that it is not normalised for.

    Args:
        name (str): Name of the data loader.
        inputs (list[Tensor]): Images of its pipeline, ``(C, H, W)``, of equal channels.
        preprocessor (dict): The data preprocessor's config, which has their mean and standard deviation.
    """
    values = np.concatenate([one.flatten(1).double().numpy() for one in inputs], 1)
    mean, std = values.mean(1), values.std(1)
    numbers = [' '.join(f'{value:.4g}' for value in part) for part in (mean, std)]
    fact = (
        f'images of {name}: {counted(len(values), "channel")}, values from {values.min():.4g} to '
        f'{values.max():.4g}, mean {numbers[0]}, standard deviation {numbers[1]}'
    )
    return fact, _check_values(name, mean, std, preprocessor)


def _check_values(
    name: str, mean: np.ndarray, std: np.ndarray, preprocessor: dict[str, Any]
) -> Iterator[Finding]:
    known = preprocessor.get('mean'), preprocessor.get('std')
    if not all(isinstance(part, (list, tuple)) and len(part) in (1, len(mean)) for part in known):
        return
    given_mean, given_std = (np.asarray(part, float) for part in known)
    if preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb') or preprocessor.get('rgb_to_bgr'):
        mean, std = mean[::-1], std[::-1]
    centre, spread = (mean - given_mean) / given_std, std / given_std
    # Of images of one value, as some at an end of a data set are, nothing is known.
    is_flat = (spread > 0) & (spread < FLAT)
    odd = np.flatnonzero((np.abs(centre) > FAR) | is_flat | (spread > WIDE))
    if odd.size:
        i = int(odd[0])
        yield Finding(
            'data_preprocessor.mean',
            f'images of {name} have in channel {i} the mean {mean[i]:.4g} and the standard deviation '
            f'{std[i]:.4g}, and the data preprocessor has mean={given_mean[i % len(given_mean)]:g} and '
            f'std={given_std[i % len(given_std)]:g}: normalised they are {centre[i]:.2g} and '
            f'{spread[i]:.2g}; give those of your images',
            is_warning=True,
        )
