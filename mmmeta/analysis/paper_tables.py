"""The numbers that the papers print, for comparison with measurements.

The tables in ``paper/`` have a row for each row in print, and under ``config`` the config of its model: a
path in this repository, ``package::path`` for models that the papers compare with, or nothing. Their columns
are listed in ``results.csv`` and ``complexities.csv``.
"""

import csv
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

PAPER_DIR = Path(__file__).parent / 'paper'
# Tables of speed: file, height and width, batch, column. The sizes are those of the MACs.
SPEEDS = dict(
    IX=('coco', (800, 1280), 1, 'fps_v100'),
    X=('ade20k', (512, 2048), 1, 'fps_v100'),
    XII=('speed', (224, 224), 128, 'per_second'),
)


def load_paper_table(name: str) -> list[dict[str, str]]:
    """Read a table: a dict for each row, cells as printed, empty where nothing is printed.

    Args:
        name (str): ``'imagenet'``, ``'robustness'``, ``'ade20k'``, ``'coco'`` or ``'speed'``.
    """
    with open(PAPER_DIR / f'{name}.csv', newline='') as file:
        return list(csv.DictReader(file))


def _printed_cells(columns: str) -> Iterator[tuple[dict[str, str], str, dict[str, str]]]:
    """Row, cell and description of the column of what is printed of our models."""
    for table, group in groupby(load_paper_table(columns), lambda column: column['table']):
        described = list(group)
        for row in load_paper_table(table):
            for column in described:
                if row['config'].startswith('configs/') and row[column['column']]:
                    yield row, row[column['column']], column


class PrintedComplexity(NamedTuple):
    """A number that a paper prints of a model's size or cost.

    Attributes:
        source (str): Where it is printed.
        config (str): The config of the model.
        shape (tuple[int, int]): Height and width of the image.
        kind (str): ``'params'`` (millions), ``'frozen'``, of these those that are not trained (millions), or
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
        return max(abs(counted - float(self.text)) - 0.5 * 10**-decimals, 0.0) / float(self.text)


def printed_complexities() -> Iterator[PrintedComplexity]:
    """Parameters and MACs of Tables I, III, V, IX and X, of all models that are ours."""
    for row, text, column in _printed_cells('complexities'):
        shape = int(column['height']), int(column['width'])
        yield PrintedComplexity(row['source'], row['config'], shape, column['kind'], text)


class Result(NamedTuple):
    """A result that a paper prints.

    Attributes:
        source (str): Where it is printed.
        config (str): The config that obtains it, relative to the repository.
        metric (str): What is measured.
        key (str): Name of the metric in a record.
        printed (str): The number as printed, in percent.
        scale (float): Factor from a record's number to percent.
        tta (bool): Whether scales and flips are averaged.
        test_data (str | None): Name of the config of other test data.
        options (tuple): Keys and values of the config that the test changes.
    """

    source: str
    config: str
    metric: str
    key: str
    printed: str
    scale: float
    tta: bool
    test_data: str | None
    options: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        """Name of the config."""
        return Path(self.config).stem


def printed_results() -> list[Result]:
    """Every result that the papers and MMSegmentation's zoo print of models that are ours."""
    results = []
    for row, text, column in _printed_cells('results'):
        config = row['config'].replace('_in1k', column['training'] or '_in1k')
        key, _, value = column['option'].partition('=')
        test = float(column['scale']), bool(column['tta']), column['test_data'] or None
        options = ((key, int(value)),) if key else ()
        results.append(Result(row['source'], config, column['metric'], column['key'], text, *test, options))
    return results


class PrintedSpeed(NamedTuple):
    """A speed that arXiv:2210.13452 prints, in images a second, and what it was measured with.

    ``config`` is one of this repository or of another package, ``timm::`` and a name, or None where no
    package ships one; ``options`` are changes of it.
    """

    name: str
    config: str | None
    shape: tuple[int, int]
    batch: int
    per_second: float
    options: dict[str, Any]


def printed_speeds(table: str) -> Iterator[PrintedSpeed]:
    """The printed speeds of models.

    Args:
        table (str): ``'IX'`` (COCO, V100), ``'X'`` (ADE20K, V100) or ``'XII'`` (classifiers with GELU in the
            place of StarReLU, TF32, A100).
    """
    file, shape, batch, column = SPEEDS[table]
    for row in load_paper_table(file):
        name, options, config = row.get('model'), {}, row['config'].replace('configs/', 'mmmeta::')
        if row['source'] != f'Table {table}':
            continue
        if table != 'XII':
            method = row['method'].lower().replace(' r-cnn', '_rcnn').replace(' ', '_')
            name = f'{method}_{row["backbone"]}'
        elif config.startswith('mmmeta::'):
            options = {'model.backbone.arch': dict(_delete_=True, base=name.partition('_')[2], act='GELU')}
        yield PrintedSpeed(name, config or None, shape, batch, float(row[column]), options)


def printed_activations() -> dict[str, float]:
    """Runs a second of the activations of Table XI, on a tensor of 1x1M and an A100."""
    rows = load_paper_table('speed')
    return {row['model']: float(row['per_second']) for row in rows if row['source'] == 'Table XI'}
