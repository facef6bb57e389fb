"""Classify pictures with the published models."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from PIL import UnidentifiedImageError

from mmmeta.config.loading import load_config
from mmmeta.datasets.classes import class_names
from mmmeta.registry import MODELS
from mmmeta.runtime.run import RuntimeProblem, read_image
from mmmeta.utils.errors import UsageError
from mmmeta.utils.resources import resource_root
from mmmeta.weights import get_weights, load

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


def zoo_config_path(name: str) -> str:
    """The config of a model of the zoo.

    Args:
        name (str): Such as ``'caformer_s18'`` or ``'convformer_b36_384_in21ft1k'``.

    Returns:
        str: Path of the config.

    Raises:
        UsageError: There is none of that name.
    """
    weights = get_weights(name)
    if weights.num_classes in (0, 150):
        kind = 'a segmentor' if weights.num_classes else 'a backbone without a classifier'
        raise UsageError(f"'{name}' is {kind}: choose a classifier, such as {weights.family}_{weights.size}")
    training = name.removeprefix(f'{weights.family}_{weights.size}')
    suffix = {'': '_in1k', '_384': '_384_in1k'}.get(training, training)
    return str(resource_root() / f'configs/imagenet/{weights.family}_{weights.size}{suffix}.py')


def build_classifier(
    name: str,
    weights: str | os.PathLike | None = None,
    device: str = 'cpu',
    options: dict | None = None,
    trusted: bool = False,
) -> BaseModel:
    """Build a published classifier with its weights.

    Args:
        name (str): Name in the zoo, such as ``'caformer_s18'``, or path of a config.
        weights (str | os.PathLike | None): Path, URL, ``timm://...`` or ``mmmeta://...``, in any layout;
            ``'none'`` for the network before training. Defaults to None: those that are published under
            ``name``.
        device (str): Device of the model. Defaults to ``'cpu'``.
        options (dict | None): Overrides of the config, as in ``--cfg-options``. Defaults to None.
        trusted (bool): Whether code in the weights may run. Defaults to False.

    Returns:
        BaseModel: MMPretrain's ``ImageClassifier`` in eval mode; its config under ``_config``.

    Raises:
        UsageError: The name is unknown, or the weights cannot be read or are not exactly those of the model.
    """
    is_config = name.endswith('.py')
    if is_config and weights is None:
        raise UsageError(f"'{name}' is a config, and no weights are published for it: give a checkpoint")
    cfg = load_config(name if is_config else zoo_config_path(name), options)
    if not cfg.get('test_dataloader'):  # ImageNet-21K has no images to test on; they are those of 1K
        cfg.test_dataloader = load_config(
            zoo_config_path(Path(name).stem.removesuffix('_in21k'))
        ).test_dataloader
    location = weights or f'mmmeta://{name}'
    init_default_scope(cfg.default_scope)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    model = MODELS.build(cfg.model)
    model._config = cfg
    if weights == 'none':
        draw_weights(model)
        return model.to(device).eval()
    load(model, location, trusted=trusted)
    return model.to(device).eval()


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
            height, width = read_image(file).shape[:2]
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
        model (BaseModel): What :func:`build_classifier` returns.
        images (Sequence[str]): Files.
        top (int): Number of predictions per image. Defaults to 5.

    Yields:
        tuple[str, list[ClassPrediction]]: The file, and the most likely classes, the likeliest first.

    Raises:
        UsageError: ``top`` is not positive.
    """
    from mmpretrain.apis import ImageClassificationInferencer

    if top < 1:
        raise UsageError(f'top={top}: give a positive number')
    inferencer = ImageClassificationInferencer(model)
    names = class_names(model)
    for image in images:
        scores = torch.from_numpy(inferencer(image)[0]['pred_scores'])
        values, labels = scores.topk(min(top, len(scores)))
        yield (
            image,
            [
                ClassPrediction(int(label), names[int(label)], float(value))
                for value, label in zip(values, labels, strict=True)
            ],
        )


def draw_weights(model: BaseModel) -> None:
    """Draw random weights, without MMEngine's line for each tensor."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)  # logging.disable would silence this logger for good
    try:
        model.init_weights()
    finally:
        logger.setLevel(level)
