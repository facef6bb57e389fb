"""Names of the classes of classifiers, and colours of those of segmentors and detectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.model import BaseModel


def class_names(model: BaseModel) -> Sequence[str]:
    """Names of the classes of a classifier.

    Args:
        model (BaseModel): A classifier of :func:`~mmmeta.apis.build_model`.

    Returns:
        Sequence[str]: Those of the data that its config tests on; else of ImageNet-1K, for 1000, or
        ImageNet-21K, for 21841; numbers for others.
    """
    names, num_classes = known_class_names(model), model.head.num_classes
    if names is not None:
        return names
    if num_classes == 21841:
        from timm.data import ImageNetInfo

        info = ImageNetInfo('imagenet-22k')
        return [info.index_to_description(i) for i in range(num_classes)]
    return [str(i) for i in range(num_classes)]


def known_class_names(model: BaseModel) -> Sequence[str] | None:
    """Return the names of a classifier's classes that are known without timm, or None.

    Args:
        model (BaseModel): A model of :func:`~mmmeta.apis.build_model`.
    """
    num_classes = getattr(getattr(model, 'head', None), 'num_classes', None)
    dataset = (model.cfg.get('test_dataloader') or {}).get('dataset') or {}
    named = (dataset.get('metainfo') or {}).get('classes')
    if isinstance(named, (list, tuple)) and len(named) == num_classes:
        return named
    if num_classes == 1000:
        from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

        return IMAGENET_CATEGORIES
    return None


def class_colours(metainfo: dict[str, Any], own: dict[str, Any], scope: str) -> list[tuple[int, ...]]:
    """Return a colour for each class, as the data sets of the packages have them, which are not built here.

    Args:
        metainfo (dict): ``classes``, and ``palette`` where a config gives one.
        own (dict): ``METAINFO`` of the class of the data set.
        scope (str): ``'mmseg'``, whose data sets keep the colours of names that they know; or ``'mmdet'``,
            whose classes have the colours of their places.
    """
    classes, palette = metainfo['classes'], list(metainfo.get('palette') or own.get('palette') or ())
    # As both packages draw them, with other limits.
    colours = np.random.RandomState(42).randint(0, 255 if scope == 'mmseg' else 256, (len(classes), 3))
    if metainfo.get('palette') or scope == 'mmdet':
        colours = [*palette, *colours[len(palette) :]]
    elif palette:
        known = dict(zip(own['classes'], palette, strict=True))
        colours = [known.get(name, colour) for name, colour in zip(classes, colours, strict=True)]
    return [tuple(int(value) for value in colour) for colour in colours[: len(classes)]]
