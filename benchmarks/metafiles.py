"""Metafiles, ``model-index.yml`` and the page of the model zoo, from configs and the papers' tables."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import yaml
from mmengine.config import Config

from benchmarks.families import Panel
from mmmeta.analysis.complexity import count_config
from mmmeta.apis.listing import COUNTS, Model, list_models, task_of
from mmmeta.config.inspection import iter_dicts
from mmmeta.config.loading import load_config
from mmmeta.models import FAMILIES
from mmmeta.utils.atomic import written
from mmmeta.utils.resources import resource_root
from mmmeta.weights import ZOO

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
    with written(COUNTS) as draft, open(draft, 'w', newline='') as file:
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


METHODS = dict(
    mask2former='Mask2Former',
    dino='DINO',
    rtmdet='RTMDet',
    segformer='SegFormer',
    upernet='UperNet',
    fpn='Semantic FPN',
    cascade_mask_rcnn='Cascade Mask R-CNN',
    mask_rcnn='Mask R-CNN',
    retinanet='RetinaNet',
)
HEAD = """\
# Model zoo

Every config, what its paper prints (%) and what it costs. Results are the papers'; nothing here was trained
by this project. Parameters (M) and multiply-accumulates (G, of the given image) are counted by
`tools/analysis_tools/get_flops.py`. A click on the head of a column sorts by it. `python -m mmmeta list`
prints the same.

![Results of the papers over multiply-accumulates](images/families.png)
"""
# Sections: title, text, task, data sets of the table, and what the columns of results are called.
SECTIONS = (
    (
        'Semantic segmentation',
        'One scale; multiply-accumulates of 512x2048 pixels (ADE20K) and of 1024x2048 (Cityscapes). The '
        'configs are in `configs/`. Those without a result are recipes for what people train today, made '
        'with `python -m mmmeta swap`: no published result.',
        'Semantic Segmentation',
        {'mIoU': 'mIoU'},
    ),
    (
        'Detection and instance segmentation',
        'COCO val2017; multiply-accumulates of 800x1280 pixels, of RTMDet of 640x640. The configs are in '
        '`configs/`. Those without a result are recipes as above: no published result.',
        ('Instance Segmentation', 'Object Detection'),
        {'AP box': 'AP box', 'AP mask': 'AP mask'},
    ),
    (
        'Classification',
        'ImageNet-1K, one crop; multiply-accumulates of the given image. The configs are '
        'in `configs/imagenet/`; `mmmeta://NAME` without `_in1k` is where the weights are.',
        'Image Classification',
        {'top-1': 'top-1'},
    ),
)
FPN_HEAD = """\
### As MMSegmentation tests them

MMSegmentation's zoo prints these for its own trainings of the same configs, whose [weights](weights.md) are
at `mmmeta://NAME`: with images whose sides are multiples of 32 (aligned), as they are, and with six scales
and flips.
"""
FPN_COLUMNS = {
    'mIoU*': 'aligned',
    'mIoU*, ms+flip': 'aligned, ms+flip',
    'mIoU, not aligned': 'as they are',
    'mIoU, ms+flip, not aligned': 'as they are, ms+flip',
}


def _method_of(model: Model) -> str:
    """The method in the name of a config; nothing for classifiers."""
    name = model.config.removeprefix('configs/')
    return next((METHODS[key] for key in METHODS if name.startswith(f'{key}_')), '')


def _sort_key(model: Model) -> tuple[str, int, str, int]:
    """By method, family and size."""
    families = [cls.__name__ for cls in FAMILIES.values()]
    return _method_of(model), families.index(model.family), model.dataset, model.macs


def _table(models: list[Model], metrics: dict[str, str], costs: bool = True) -> list[str]:
    """Lines of a table with a row for each model."""
    sizes = len({model.shape for model in models}) > 1
    methods = len({_method_of(model) for model in models}) > 1
    columns = ['name', *(['method'] if methods else []), *(['image'] if sizes else [])]
    columns += ['params', 'MACs'] if costs else []
    lines = [f'| {" | ".join([*columns, *metrics.values()])} |']
    left = 2 if methods else 1
    lines.append('|' + '---|' * left + '--:|' * (len(columns) + len(metrics) - left))
    for model in models:
        printed = {result.metric: result.printed for result in model.results}
        name = model.config.rpartition('/')[2].removesuffix('.py')
        cells = [f'`{name}`', *([_method_of(model)] if methods else [])]
        cells += ['x'.join(map(str, dict.fromkeys(model.shape)))] if sizes else []
        cells += [f'{model.params / 1e6:.1f}', f'{model.macs / 1e9:.1f}'] if costs else []
        cells += [printed.get(metric, '') for metric in metrics]
        lines.append(f'| {" | ".join(cells)} |')
    return lines


def _page(models: list[Model]) -> str:
    """The page of the documentation that lists all."""
    lines = [HEAD]
    for title, text, task, metrics in SECTIONS:
        own = sorted((model for model in models if model.task in task), key=_sort_key)
        lines += [f'## {title}', '', text, '', *_table(own, metrics), '']
        if task == 'Semantic Segmentation':
            own = [model for model in own if _method_of(model) == 'Semantic FPN' and model.results]
            lines += [FPN_HEAD, *_table(own, FPN_COLUMNS, costs=False), '']
    return '\n'.join(lines)


def result_panels() -> list[Panel]:
    """The papers' results on the three data sets, for a picture."""
    panels = []
    for title, dataset, macs, metric in (
        ('ImageNet-1K top-1 (%)', 'ImageNet-1K', '224x224', 'top-1'),
        ('ADE20K mIoU (%)', 'ADE20K', '512x2048', 'mIoU'),
        ('COCO box AP (%)', 'COCO', '800x1280', 'AP box'),
    ):
        lines = defaultdict(list)
        for model in list_models():
            result = next((r.printed for r in model.results if r.metric == metric), None)
            # Of the classifiers those that were trained on ImageNet-1K alone, at this size.
            other = dataset == 'ImageNet-1K' and ('in21' in model.name or model.shape != (224, 224))
            if model.dataset != dataset or result is None or other:
                continue
            size = next(part for part in model.name.split('_') if re.fullmatch(r'[smb]\d\d', part))
            lines[model.family, _method_of(model)].append((model.macs / 1e9, float(result), size))
        panels.append(Panel(title, macs, lines))
    return panels


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
