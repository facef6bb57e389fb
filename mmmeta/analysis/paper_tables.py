"""The numbers that the papers print, for comparison with measurements.

The tables in ``paper/`` have a row for each row in print, and under ``config`` the config of its model: a
path in this repository, ``package::path`` for models that the papers compare with, or nothing. Their columns
are listed in ``results.csv`` and ``complexities.csv``; ``speed.csv`` has images or calls a second, and
changes of the config as JSON.
"""

import csv
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

PAPER_DIR = Path(__file__).parent / 'paper'


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
    """A number that a paper prints of a model's size or cost, on an image of a height and width.

    ``kind`` is ``'params'`` (millions), ``'frozen'``, of these those that are not trained, or ``'macs'``
    (billions); ``text`` is the number as printed.
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

    ``source`` is where, ``printed`` the number in percent, ``config`` the config that obtains it, relative to
    the repository; ``key`` names the metric in a record, whose number times ``scale`` is in percent. The test
    averages scales and flips (``tta``), has data of another config (``test_data``, its name), or changes the
    config (``option``, as ``KEY=VALUE``).
    """

    source: str
    config: str
    metric: str
    key: str
    printed: str
    scale: float
    tta: bool
    test_data: str
    option: str

    @property
    def name(self) -> str:
        """Name of the config."""
        return Path(self.config).stem


def printed_results() -> list[Result]:
    """Every result that the papers and MMSegmentation's zoo print of models that are ours."""
    results = []
    for row, text, column in _printed_cells('results'):
        config = row['config'].replace('_in1k', column['training'] or '_in1k')
        test = float(column['scale']), bool(column['tta']), column['test_data'], column['option']
        results.append(Result(row['source'], config, column['metric'], column['key'], text, *test))
    return results
