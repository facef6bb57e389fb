"""Curves from the logs of runs."""

import json
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from mmmeta.errors import UsageError


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
