"""Baseline of semantic segmentation results."""

from pathlib import Path

import numpy as np
from PIL import Image

from mmmeta.utils.errors import UsageError


def most_common_class_miou(folder: str | Path) -> float:
    """The mIoU of predicting the most common class everywhere.

    Args:
        folder (str | Path): Annotations in ADE20K's convention: PNG files, 0 = other (ignored), 1 to 150.

    Returns:
        float: mIoU in percent, averaged over the classes that occur, as MMSegmentation's ``IoUMetric`` does.

    Raises:
        UsageError: The folder holds no annotation.
    """
    counts = np.zeros(256, np.int64)
    for path in sorted(Path(folder).glob('*.png')):
        with Image.open(path) as annotation:
            counts += np.bincount(np.asarray(annotation).ravel(), minlength=256)
    counts[0] = 0
    if not counts.any():
        raise UsageError(
            f"'{folder}' holds no annotated PNG files: give the folder of the validation annotations"
        )
    return 100 * counts.max() / counts.sum() / np.count_nonzero(counts)
