"""What there is: families, configs with the papers' results and what they cost, and published weights."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from mmmeta.analysis.complexity import count_config
from mmmeta.analysis.paper_tables import Result, printed_results
from mmmeta.errors import UsageError
from mmmeta.models import FAMILIES
from mmmeta.resources import PACKAGE, find_root
from mmmeta.weights import ZOO, find_by_config

from .config import load_config

COUNTS = PACKAGE / 'analysis/counts.csv'
FIRST, SECOND = 'arXiv:2111.11418', 'arXiv:2210.13452'
TITLES = {
    FIRST: 'MetaFormer Is Actually What You Need for Vision',
    SECOND: 'MetaFormer Baselines for Vision',
}
# Name of a method: the task, the data set and the size of the image that is counted on.
TASKS = {
    'imagenet': ('Image Classification', 'ImageNet-1K', None),
    'fpn': ('Semantic Segmentation', 'ADE20K', (512, 2048)),
    'upernet': ('Semantic Segmentation', 'ADE20K', (512, 2048)),
    'retinanet': ('Object Detection', 'COCO', (800, 1280)),
    'mask_rcnn': ('Instance Segmentation', 'COCO', (800, 1280)),
    'cascade_mask_rcnn': ('Instance Segmentation', 'COCO', (800, 1280)),
}


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


def find_configs() -> list[str]:
    """All configs in the folders of the papers' models, relative to the root."""
    root = find_root()
    paths = [*root.glob('configs/imagenet/*.py'), *root.glob('configs/*.py')]
    return sorted(path.relative_to(root).as_posix() for path in paths)


def _family_of(name: str) -> str:
    """The family that a config's name contains."""
    return next(cls.__name__ for family, cls in FAMILIES.items() if family in name.split('_'))


def _task_of(config: str) -> tuple[str, str, tuple[int, int]]:
    """Task, data set and image size of a config."""
    if 'imagenet/' in config:
        side = 384 if '_384' in config else 224
        dataset = 'ImageNet-21K' if config.endswith('_in21k.py') else 'ImageNet-1K'
        return TASKS['imagenet'][0], dataset, (side, side)
    name = Path(config).stem
    method = max((method for method in TASKS if name.startswith(method)), key=len)
    return TASKS[method]


def count_all() -> Iterator[dict[str, Any]]:
    """Count every config; a row of ``counts.csv`` for each."""
    for config in find_configs():
        shape = _task_of(config)[2]
        count = count_config(load_config(str(find_root() / config)), shape)
        yield dict(config=config, height=shape[0], width=shape[1], params=count.params, macs=count.macs)


def write_counts(rows: Iterator[dict[str, Any]]) -> None:
    """Write ``counts.csv``."""
    rows = list(rows)
    with open(COUNTS, 'w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def list_models(pattern: str = '') -> list[Model]:
    """The configs of ours, with what the papers print and what they cost.

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
        task, dataset, shape = _task_of(config)
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
                weights=find_by_config(name),
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


METRICS = {
    'top-1': 'Top 1 Accuracy',
    'AP box': 'box AP',
    'AP mask': 'mask AP',
    'mIoU': 'mIoU',
    'mIoU*': 'mIoU*',
    'mIoU, not aligned': 'mIoU (not aligned)',
    'mIoU*, ms+flip': 'mIoU* (ms+flip)',
    'mIoU, ms+flip, not aligned': 'mIoU (ms+flip, not aligned)',
}


def _metafile(family: str, models: list[Model]) -> dict[str, Any]:
    """The metafile of a family, as MIM and Papers with Code read it."""
    source = FIRST if family == 'PoolFormer' else SECOND
    entries = []
    for model in models:
        metrics = {METRICS[r.metric]: float(r.printed) for r in model.results if r.metric in METRICS}
        entry = {
            'Name': model.name,
            'In Collection': family,
            'Config': model.config,
            'Metadata': {
                'Parameters': model.params,
                # One multiply-accumulate is two operations.
                'FLOPs': 2 * model.macs,
                'MACs': model.macs,
                'Image size': list(model.shape),
            },
        }
        if metrics:
            entry['Results'] = [{'Task': model.task, 'Dataset': model.dataset, 'Metrics': metrics}]
        if model.weights:
            place = next((p for p in ZOO[model.weights].places if p.startswith('http')), None)
            entry['Weights'] = place or ZOO[model.weights].places[0]
        entries.append(entry)
    collection = {
        'Name': family,
        'Metadata': {'Architecture': ['MetaFormer', family]},
        'Paper': {'URL': f'https://arxiv.org/abs/{source.removeprefix("arXiv:")}', 'Title': TITLES[source]},
        'README': 'docs/model_zoo.md',
        'Code': {'URL': 'mmmeta/models/backbones/families.py'},
    }
    return {'Collections': [collection], 'Models': entries}


def _page(models: list[Model]) -> str:
    """The page of the documentation that lists all."""
    lines = [
        '# Model zoo',
        '',
        "Every config, what its paper prints and what it costs. Results are the papers'; nothing here was",
        'trained by this project. Parameters and multiply-accumulates (G, at the given size) are counted by',
        '`tools/analysis_tools/get_flops.py`. This page, the metafiles and `model-index.yml` are written by',
        '`tools/model_zoo.py`; `python -m mmmeta list` prints the same.',
    ]
    for family in (cls.__name__ for cls in FAMILIES.values()):
        lines += [
            '',
            f'## {family}',
            '',
            '| config | data | size | params (M) | MACs (G) | printed results (%) | weights |',
            '|---|---|---|---|---|---|---|',
        ]
        for model in models:
            if model.family != family:
                continue
            printed = '; '.join(dict.fromkeys(f'{r.metric} {r.printed}' for r in model.results))
            weights = f'`mmmeta://{model.weights}`' if model.weights else ''
            size = f'{model.shape[0]}x{model.shape[1]}'
            costs = f'{model.params / 1e6:.1f} | {model.macs / 1e9:.1f}'
            config = f'`{model.config.removeprefix("configs/")}`'
            lines.append(f'| {config} | {model.dataset} | {size} | {costs} | {printed} | {weights} |')
    return '\n'.join(lines) + '\n'


def render_zoo() -> dict[str, str]:
    """The files of the model zoo.

    Returns:
        dict[str, str]: Text by path, relative to the root: a metafile for each family, ``model-index.yml``
        and ``docs/model_zoo.md``.
    """
    models = list_models()
    files = {}
    for family, cls in FAMILIES.items():
        content = _metafile(cls.__name__, [model for model in models if model.family == cls.__name__])
        text = yaml.safe_dump(content, sort_keys=False, width=110)
        files[f'configs/metafiles/{family}.yml'] = text
    files['model-index.yml'] = yaml.safe_dump({'Import': list(files)}, sort_keys=False)
    files['docs/model_zoo.md'] = _page(models)
    return files
