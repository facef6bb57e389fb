"""The numbers that the papers print, for comparison with measurements.

The tables in ``paper/`` have a row for each row in print, and under ``config`` the config of its model: a
path in this repository, ``package::path`` for models that the papers compare with, nothing where none is.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAPER_DIR = Path(__file__).parent / 'paper'

# Columns of each table: what is counted, and height and width of the image.
COUNTED = dict(
    imagenet=dict(
        params_m=('params', (224, 224)),
        frozen_params_m=('frozen', (224, 224)),
        macs_g_224=('macs', (224, 224)),
        macs_g_384=('macs', (384, 384)),
    ),
    ade20k=dict(params_m=('params', (512, 2048)), macs_g_512x2048=('macs', (512, 2048))),
    coco=dict(macs_g=('macs', (800, 1280))),
)
# Columns of results: the metric, its key in a record, and the other fields of `Result`; `training` is the end
# of the config's name.
MEASURED: dict[str, dict[str, dict[str, Any]]] = dict(
    ade20k=dict(
        miou=dict(metric='mIoU', key='mIoU'),
        # The configs align test images to multiples of 32; the zoo has results without as well.
        miou_unaligned=dict(
            metric='mIoU, not aligned',
            key='mIoU',
            options=(('test_dataloader.dataset.pipeline.2.size_divisor', 1),),
        ),
        miou_unaligned_ms_flip=dict(
            metric='mIoU, ms+flip, not aligned',
            key='mIoU',
            tta=True,
            options=(('tta_pipeline.1.transforms.1.0.size_divisor', 1),),
        ),
        miou_star=dict(metric='mIoU*', key='mIoU'),
        miou_star_ms_flip=dict(metric='mIoU*, ms+flip', key='mIoU', tta=True),
    ),
    coco={
        f'{level}_{kind}': dict(metric=f'{level.upper()} {kind}', key=f'coco/{name}_mAP{end}', scale=100.0)
        for kind, name in (('box', 'bbox'), ('mask', 'segm'))
        for level, end in (('ap', ''), ('ap50', '_50'), ('ap75', '_75'))
    },
    imagenet={
        f'top1_{column}': dict(metric='top-1', key='accuracy/top1', training=training)
        for column, training in (
            ('224', '_in1k'),
            ('384', '_384_in1k'),
            ('224_in21k', '_in21ft1k'),
            ('384_in21k', '_384_in21ft1k'),
        )
    },
    robustness=dict(
        mce=dict(metric='mCE, ImageNet-C', key='imagenet-c/mCE', test_data='imagenet_c'),
        imagenet_a=dict(metric='top-1, ImageNet-A', key='accuracy/top1', test_data='imagenet_a'),
        imagenet_r=dict(metric='top-1, ImageNet-R', key='accuracy/top1', test_data='imagenet_r'),
        imagenet_sketch=dict(
            metric='top-1, ImageNet-Sketch', key='accuracy/top1', test_data='imagenet_sketch'
        ),
    ),
)


def load_paper_table(name: str) -> list[dict[str, str]]:
    """Read one table of the papers.

    Args:
        name (str): ``'imagenet'``, ``'robustness'``, ``'ade20k'``, ``'coco'`` or ``'speed'``.

    Returns:
        list[dict[str, str]]: A dict for each row, cells as printed; an empty string where nothing is printed.
    """
    with open(PAPER_DIR / f'{name}.csv', newline='') as file:
        return list(csv.DictReader(file))


def _printed_cells(tables: dict[str, dict[str, Any]]) -> Iterator[tuple[dict[str, str], str, Any]]:
    """Row, cell and column of what is printed of our models in some columns of the tables."""
    for table, columns in tables.items():
        for row in load_paper_table(table):
            for name, column in columns.items():
                if row['config'].startswith('configs/') and row[name]:
                    yield row, row[name], column


@dataclass(frozen=True)
class PrintedComplexity:
    """A number that a paper prints of a model's size or cost.

    Attributes:
        source (str): Where it is printed.
        config (str): The config of the model.
        shape (tuple[int, int]): Height and width of the image.
        kind (str): ``'params'`` (millions), ``'frozen'`` (millions), of these those that are not trained, or
            ``'macs'`` (billions).
        text (str): The number as printed.
    """

    source: str
    config: str
    shape: tuple[int, int]
    kind: str
    text: str

    def deviation(self, counted: float) -> float:
        """Relative deviation of a count in the same unit, beyond the rounding of the printed digits."""
        decimals = len(self.text.partition('.')[2])
        beyond = max(abs(counted - float(self.text)) - 0.5 * 10**-decimals, 0.0)
        return beyond / float(self.text)


def printed_complexities() -> Iterator[PrintedComplexity]:
    """Parameters and MACs of Tables I, III, V, IX and X, of all models that are ours."""
    for row, text, (kind, shape) in _printed_cells(COUNTED):
        yield PrintedComplexity(row['source'], row['config'], shape, kind, text)


@dataclass(frozen=True)
class Result:
    """A result that a paper prints.

    Attributes:
        source (str): Where it is printed.
        config (str): The config that obtains it, relative to the repository.
        metric (str): What is measured.
        key (str): Name of the metric in a record.
        printed (str): The number as printed, in percent.
        scale (float): Factor from a record's number to percent. Defaults to 1.0.
        tta (bool): Whether scales and flips are averaged. Defaults to False.
        test_data (str | None): Name of the config of other test data. Defaults to None.
        options (tuple): Keys and values of the config that the test changes. Defaults to ().
    """

    source: str
    config: str
    metric: str
    key: str
    printed: str
    scale: float = 1.0
    tta: bool = False
    test_data: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Name of the config."""
        return Path(self.config).stem


def printed_results() -> list[Result]:
    """Every result that the papers and MMSegmentation's zoo print of models that are ours."""
    results = []
    for row, text, column in _printed_cells(MEASURED):
        fields = dict(column)
        config = row['config'].replace('_in1k', fields.pop('training', '_in1k'))
        results.append(Result(row['source'], config, printed=text, **fields))
    return results


@dataclass(frozen=True)
class PrintedSpeed:
    """A speed that arXiv:2210.13452 prints, and what it was measured with.

    Attributes:
        name (str): What is run.
        config (str | None): Its config, of this repository or another package; ``timm::`` and a name for a
            classifier of timm's; None where no package ships one.
        shape (tuple[int, int]): Height and width of the images.
        batch (int): Images at a time.
        per_second (float): Images a second as printed.
        options (dict): Changes of the config. Defaults to {}.
    """

    name: str
    config: str | None
    shape: tuple[int, int]
    batch: int
    per_second: float
    options: dict[str, Any] = field(default_factory=dict)


def printed_speeds(table: str) -> list[PrintedSpeed]:
    """The printed speeds of models.

    Args:
        table (str): ``'IX'`` (COCO, V100), ``'X'`` (ADE20K, V100) or ``'XII'`` (classifiers with GELU in the
            place of StarReLU, TF32, A100).
    """
    data, shape, batch, column = dict(
        # Images of the sizes that the tables give the MACs for.
        IX=('coco', (800, 1280), 1, 'fps_v100'),
        X=('ade20k', (512, 2048), 1, 'fps_v100'),
        XII=('speed', (224, 224), 128, 'per_second'),
    )[table]
    speeds = []
    for row in load_paper_table(data):
        if row['source'] != f'Table {table}':
            continue
        name, options, config = row.get('model'), {}, row['config'].replace('configs/', 'mmmeta::')
        if table != 'XII':
            method = row['method'].lower().replace(' r-cnn', '_rcnn').replace(' ', '_')
            name = f'{method}_{row["backbone"]}'
        elif config.startswith('mmmeta::'):
            options = {'model.backbone.arch': dict(_delete_=True, base=name.partition('_')[2], act='GELU')}
        speeds.append(PrintedSpeed(name, config or None, shape, batch, float(row[column]), options))
    return speeds


def printed_activations() -> dict[str, float]:
    """Runs a second of the activations of Table XI, on a tensor of 1x1M and an A100."""
    rows = load_paper_table('speed')
    return {row['model']: float(row['per_second']) for row in rows if row['source'] == 'Table XI'}
