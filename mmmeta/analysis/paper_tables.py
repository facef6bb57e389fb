"""The numbers that the papers print, for comparing with what is measured."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAPER_DIR = Path(__file__).parent / 'paper'


def load_paper_table(name: str) -> list[dict[str, str]]:
    """Read one table of the papers.

    Args:
        name (str): ``'imagenet'``, ``'ade20k'`` or ``'coco'``.

    Returns:
        list[dict[str, str]]: A dict for each row, cells as printed; an empty string where nothing is printed.
    """
    with open(PAPER_DIR / f'{name}.csv', newline='') as file:
        return list(csv.DictReader(file))


# Methods as the tables name them, and the configs' names of them.
METHODS = {
    'Semantic FPN': 'fpn',
    'UperNet': 'upernet',
    'RetinaNet': 'retinanet',
    'Mask R-CNN': 'mask_rcnn',
    'Cascade Mask R-CNN': 'cascade_mask_rcnn',
}
OTHERS = ('swin', 'convnext')


def is_ours(backbone: str) -> bool:
    """Whether a row's backbone is a MetaFormer and not one that the papers compare with."""
    return not backbone.startswith(OTHERS)


def config_of(name: str, row: dict[str, str]) -> str:
    """The config that a row of a table belongs to.

    Args:
        name (str): The table, as :func:`load_paper_table` takes it.
        row (dict[str, str]): The row.

    Returns:
        str: The path in the repository.
    """
    if name == 'imagenet':
        return f'configs/imagenet/{row["model"]}_in1k.py'
    return f'configs/{METHODS[row["method"]]}_{row["backbone"]}_{name}.py'


@dataclass(frozen=True)
class Printed:
    """A number that a paper prints of what a model costs.

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
        """How far a count is off beyond the printed digits, as a part of what is printed.

        Args:
            counted (float): The count in the same unit.
        """
        decimals = len(self.text.partition('.')[2])
        beyond = max(abs(counted - float(self.text)) - 0.5 * 10**-decimals, 0.0)
        return beyond / float(self.text)


def printed_complexities() -> Iterator[Printed]:
    """Parameters and MACs of Tables I, III, V, IX and X, of all models that are ours."""
    columns = {
        'imagenet': (
            ('params_m', 'params', (224, 224)),
            ('frozen_params_m', 'frozen', (224, 224)),
            ('macs_g_224', 'macs', (224, 224)),
            ('macs_g_384', 'macs', (384, 384)),
        ),
        'ade20k': (('params_m', 'params', (512, 2048)), ('macs_g_512x2048', 'macs', (512, 2048))),
        'coco': (('macs_g', 'macs', (800, 1280)),),
    }
    for table, kinds in columns.items():
        for row in load_paper_table(table):
            if not is_ours(row.get('backbone', '')):
                continue
            for column, kind, shape in kinds:
                if row[column]:
                    yield Printed(row['source'], config_of(table, row), shape, kind, row[column])
