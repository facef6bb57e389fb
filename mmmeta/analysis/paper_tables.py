"""The numbers that the papers print, for comparing with what is measured."""

import csv
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
