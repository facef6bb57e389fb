"""Metafiles, ``model-index.yml`` and the page of the model zoo, from configs and the papers' tables."""

import csv
from collections.abc import Iterator
from typing import Any

import yaml
from mmengine.config import Config

from mmmeta.analysis.complexity import count_config
from mmmeta.models import FAMILIES
from mmmeta.resources import resource_root
from mmmeta.weights import ZOO

from .config import iter_dicts, load_config
from .listing import COUNTS, Model, list_models, task_of

FIRST, SECOND = 'arXiv:2111.11418', 'arXiv:2210.13452'
TITLES = {
    FIRST: 'MetaFormer Is Actually What You Need for Vision',
    SECOND: 'MetaFormer Baselines for Vision',
}
METRIC_NAMES = {
    'top-1': 'Top 1 Accuracy',
    'AP box': 'box AP',
    'AP mask': 'mask AP',
    'mIoU': 'mIoU',
    'mIoU*': 'mIoU*',
    'mIoU, not aligned': 'mIoU (not aligned)',
    'mIoU*, ms+flip': 'mIoU* (ms+flip)',
    'mIoU, ms+flip, not aligned': 'mIoU (ms+flip, not aligned)',
}


def list_configs() -> list[str]:
    """All configs in the folders of the papers' models, relative to the root."""
    root = resource_root()
    paths = [*root.glob('configs/imagenet/*.py'), *root.glob('configs/*.py')]
    return sorted(path.relative_to(root).as_posix() for path in paths)


def count_all() -> Iterator[dict[str, Any]]:
    """Count every config; a row of ``counts.csv`` for each."""
    for config in list_configs():
        shape = task_of(config)[2]
        count = count_config(load_config(str(resource_root() / config)), shape)
        yield dict(config=config, height=shape[0], width=shape[1], params=count.params, macs=count.macs)


def write_counts(rows: Iterator[dict[str, Any]]) -> None:
    """Write ``counts.csv``."""
    rows = list(rows)
    with open(COUNTS, 'w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def _recipe(cfg: Config) -> dict[str, Any]:
    """Length of the training of a config, its batch and its crops, in pixels."""
    recipe = {}
    for key, name in (('max_epochs', 'Epochs'), ('max_iters', 'Iterations')):
        if key in cfg.train_cfg:
            recipe[name] = cfg.train_cfg[key]
    recipe['Batch Size'] = cfg.auto_scale_lr.base_batch_size
    for step in iter_dicts(cfg.train_dataloader.dataset.pipeline):
        # Sides that are drawn from a range, or of the crop.
        if step.get('crop_type') == 'absolute_range':
            recipe['Crop range'] = list(step['crop_size'])
        elif step.get('type') == 'RandomCrop':
            recipe['Crop'] = list(step['crop_size'])
        elif step.get('type') == 'RandomResizedCrop':
            recipe['Crop'] = [step['scale']] * 2
    return recipe


def _metafile(family: str, models: list[Model]) -> dict[str, Any]:
    """The metafile of a family, as MIM and Papers with Code read it."""
    source = FIRST if family == 'PoolFormer' else SECOND
    entries = []
    for model in models:
        metrics = {
            METRIC_NAMES[r.metric]: float(r.printed) for r in model.results if r.metric in METRIC_NAMES
        }
        entry = {
            'Name': model.name,
            'In Collection': family,
            'Config': model.config,
            'Metadata': {
                **_recipe(load_config(str(resource_root() / model.config))),
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


def render_zoo() -> Iterator[tuple[str, str]]:
    """Render the files of the model zoo.

    Yields:
        tuple[str, str]: Path, relative to the root, and text: of a metafile for each family, of
        ``model-index.yml`` and of ``docs/model_zoo.md``.
    """
    models = list_models()
    paths = []
    for family, cls in FAMILIES.items():
        content = _metafile(cls.__name__, [model for model in models if model.family == cls.__name__])
        paths.append(f'configs/metafiles/{family}.yml')
        yield paths[-1], yaml.safe_dump(content, sort_keys=False, width=110)
    yield 'model-index.yml', yaml.safe_dump({'Import': paths}, sort_keys=False)
    yield 'docs/model_zoo.md', _page(models)
