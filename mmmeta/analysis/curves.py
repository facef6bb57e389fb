"""Curves from the logs of runs."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from mmmeta.errors import UsageError

from .paper_tables import load_paper_table


def read_scalars(work_dir: str | Path) -> list[dict]:
    """Read what the newest training run in a work directory logged.

    Args:
        work_dir (str | Path): Work directory of a run.

    Returns:
        list[dict]: A dict for each logged step, with ``step`` and scalars such as ``loss``.

    Raises:
        UsageError: Nothing was logged there.
    """
    logs = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    for log in reversed(logs):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        if any('loss' in line for line in lines):
            return lines
    raise UsageError(f"no training log in '{work_dir}': looked for */vis_data/scalars.json")


def plot_loss(work_dir: str | Path, path: str | Path) -> None:
    """Draw the loss over the iterations of a run.

    Args:
        work_dir (str | Path): Work directory of the run.
        path (str | Path): The picture that is written.
    """
    points = [(line['step'], line['loss']) for line in read_scalars(work_dir) if 'loss' in line]
    figure, axes = plt.subplots(figsize=(6, 4), layout='constrained')
    axes.plot(*zip(*points, strict=True), marker='.')
    axes.set(xlabel='iteration', ylabel='loss', ylim=(0, None), title='Training loss')
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_accuracy(records: Iterable[dict[str, Any]], path: str | Path) -> None:
    """Draw the papers' ImageNet accuracy over measured speed, as Figure 4 of arXiv:2210.13452 does.

    Args:
        records (Iterable[dict]): Measurements of backbones that the papers have: ``model``, such as
            ``caformer_s18`` or ``timm/caformer_s18``, ``batch`` and ``median`` (seconds).
        path (str | Path): The picture that is written.

    Raises:
        UsageError: The papers have none of the models.
    """
    accuracies = {row['model']: float(row['top1_224']) for row in load_paper_table('imagenet')}
    lines = defaultdict(list)
    for record in records:
        package, _, model = record['model'].partition(',')[0].rpartition('/')
        if model in accuracies:
            family = '/'.join(filter(None, (package, model.rpartition('_')[0])))
            lines[family].append((record['batch'] / record['median'], accuracies[model], model))
    if not lines:
        raise UsageError(f"no accuracy to draw: the papers' models are {', '.join(accuracies)}")
    figure, axes = plt.subplots(figsize=(7, 5), layout='constrained')
    for family, points in lines.items():
        points.sort()
        axes.plot(*zip(*(point[:2] for point in points), strict=True), marker='o', label=family)
        for speed, accuracy, model in points:
            axes.annotate(model.rpartition('_')[2], (speed, accuracy), (4, 4), textcoords='offset points')
    axes.set(xscale='log', xlabel='images per second, measured', ylabel='ImageNet-1K top-1 (%), paper')
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
