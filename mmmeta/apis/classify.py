"""Classify pictures with the published models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from PIL import UnidentifiedImageError

from mmmeta.config.pipelines import without_annotations
from mmmeta.datasets.classes import class_names
from mmmeta.runtime.run import RuntimeProblem, read_pixels
from mmmeta.utils.errors import UsageError

# How many times as long as its shorter side an image may be: of others pipelines leave no row, or fill the
# memory with what they enlarge.
MAX_RATIO = 100


@dataclass(frozen=True)
class ClassPrediction:
    """A class that is predicted for an image.

    Attributes:
        label (int): Class.
        name (str): Its name.
        score (float): Predicted probability.
    """

    label: int
    name: str
    score: float


def find_images(path: str) -> list[str]:
    """Find the image at a path, or those in a folder, that MMCV reads.

    Raises:
        UsageError: There is no image, or a file is not an image, is too large, or too elongated.
    """
    given = Path(path)
    if not given.exists():
        raise UsageError(f"there is no image '{path}': give a file or a folder")
    files = sorted(file for file in given.iterdir() if file.is_file()) if given.is_dir() else [given]
    images = []
    for file in files:
        try:
            height, width = read_pixels(file).shape[:2]
        except RuntimeProblem as error:
            if given.is_dir() and isinstance(error.__cause__, UnidentifiedImageError):
                continue  # other files are allowed beside images
            raise UsageError(str(error)) from error
        if max(height, width) > MAX_RATIO * min(height, width):
            raise UsageError(
                f"'{file}' has {height}x{width} pixels: cut it into parts, of which no side is more than "
                f'{MAX_RATIO} times as long as the other'
            )
        images.append(str(file))
    if not images:
        raise UsageError(f"there is no image in '{path}': give a file or a folder with some")
    return images


def classify(
    model: BaseModel, images: Sequence[str], top: int = 5
) -> Iterator[tuple[str, list[ClassPrediction]]]:
    """Classify pictures one after the other.

    Args:
        model (BaseModel): A classifier of :func:`~mmmeta.apis.build_model`.
        images (Sequence[str]): Files.
        top (int): Number of predictions per image. Defaults to 5.

    Yields:
        tuple[str, list[ClassPrediction]]: The file, and the most likely classes, the likeliest first.

    Raises:
        UsageError: ``top`` is not positive.
    """
    if top < 1:
        raise UsageError(f'top={top}: give a positive number')
    init_default_scope(model.cfg.default_scope)
    pipeline = Compose(without_annotations(model.cfg.test_dataloader.dataset.pipeline))
    names = class_names(model)
    for image in images:
        with torch.no_grad():
            (sample,) = model.test_step(pseudo_collate([pipeline(dict(img_path=image))]))
        scores = sample.pred_score
        values, labels = scores.topk(min(top, len(scores)))
        yield (
            image,
            [
                ClassPrediction(int(label), names[int(label)], float(value))
                for value, label in zip(values, labels, strict=True)
            ],
        )
