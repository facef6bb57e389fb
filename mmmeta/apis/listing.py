"""Families and configs, with the papers' results and their complexity."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mmmeta.analysis.paper_tables import Result, printed_results
from mmmeta.models import FAMILIES
from mmmeta.utils.errors import UsageError
from mmmeta.utils.resources import PACKAGE
from mmmeta.weights import name_of_config

COUNTS = PACKAGE / 'analysis/counts.csv'
# Ends of names: data sets, what is learnt from them, and the size of the image that is counted on.
DATASETS = {
    'ade20k': ('ADE20K', 'Semantic Segmentation', (512, 2048)),
    'cityscapes': ('Cityscapes', 'Semantic Segmentation', (1024, 2048)),
    'coco': ('COCO', 'Instance Segmentation', (800, 1280)),
}
# Methods of boxes alone; that of RTMDet is counted on its own size, as its authors do.
BOXES = ('retinanet', 'dino', 'rtmdet')
SIZES = dict(rtmdet=(640, 640))


@dataclass(frozen=True)
class Model:
    """A config of ours.

    Attributes:
        name (str): Its name.
        family (str): Family of the backbone, such as ``'CAFormer'``.
        config (str): Path, relative to the root.
        task (str): Such as ``'Semantic Segmentation'``.
        dataset (str): Such as ``'ADE20K'``.
        shape (tuple[int, int]): Height and width of the image that ``macs`` are for.
        params (int): Parameters, counted.
        macs (int): Multiply-accumulates, counted.
        results (tuple[Result, ...]): What the papers print.
        weights (str | None): Name in the zoo of the published weights of the whole model.
    """

    name: str
    family: str
    config: str
    task: str
    dataset: str
    shape: tuple[int, int]
    params: int
    macs: int
    results: tuple[Result, ...]
    weights: str | None


def _family_of(name: str) -> str:
    """The family that a config's name contains."""
    return next(cls.__name__ for family, cls in FAMILIES.items() if family in name.split('_'))


def task_of(config: str) -> tuple[str, str, tuple[int, int]]:
    """Task, data set and image size of a config."""
    if 'imagenet/' in config:
        side = 384 if '_384' in config else 224
        dataset = 'ImageNet-21K' if config.endswith('_in21k.py') else 'ImageNet-1K'
        return 'Image Classification', dataset, (side, side)
    method, *_, end = Path(config).stem.split('_')
    dataset, task, shape = DATASETS[end]
    return 'Object Detection' if method in BOXES else task, dataset, SIZES.get(method, shape)


def list_models(pattern: str = '') -> list[Model]:
    """Our configs, with the papers' results and their complexity.

    Args:
        pattern (str): Part of the name, in which ``*`` stands for anything. Defaults to ``''``: all.

    Returns:
        list[Model]: Sorted by path.

    Raises:
        UsageError: None matches.
    """
    with open(COUNTS, newline='') as file:
        counts = {row['config']: row for row in csv.DictReader(file)}
    results = defaultdict(list)
    for result in printed_results():
        results[result.config].append(result)
    models = []
    for config in counts:
        name = Path(config).stem
        if not fnmatch(name, f'*{pattern.lower()}*'):
            continue
        task, dataset, shape = task_of(config)
        count = counts[config]
        models.append(
            Model(
                name=name,
                family=_family_of(name),
                config=config,
                task=task,
                dataset=dataset,
                shape=shape,
                params=int(count['params']),
                macs=int(count['macs']),
                results=tuple(results[config]),
                weights=name_of_config(name),
            )
        )
    if not models:
        raise UsageError(f"no config has '{pattern}' in its name: list all with python -m mmmeta list")
    return models


def list_archs(pattern: str = '') -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The named archs of the families.

    Args:
        pattern (str): Part of the name of the family. Defaults to ``''``: all.

    Yields:
        tuple[str, str, dict]: Family, name of the arch, and its settings.

    Raises:
        UsageError: No family has that in its name.
    """
    found = [cls for family, cls in FAMILIES.items() if pattern.lower() in family]
    if not found:
        names = ', '.join(cls.__name__ for cls in FAMILIES.values())
        raise UsageError(f"no family has '{pattern}' in its name: choose from {names}")
    for cls in found:
        for name, arch in cls.arch_table.items():
            yield cls.__name__, name, {**cls.arch_settings, **arch}
