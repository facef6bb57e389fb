"""Curves from the logs of runs."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from mmmeta.utils.atomic import written
from mmmeta.utils.errors import UsageError

from .paper_tables import load_paper_table


def write_figure(figure: plt.Figure, path: str | Path) -> None:
    """Write a figure, as PNG where the name does not say how."""
    path = Path(path)
    with written(path if path.suffix else path.with_suffix('.png')) as draft:
        figure.savefig(draft, dpi=120)


def find_logs(run: str | Path) -> list[Path]:
    """The logs of a run, the oldest first.

    Args:
        run (str | Path): Work directory of the run, or a file ``scalars.json`` of one.

    Raises:
        UsageError: There is none.
    """
    logs = [Path(run)] if Path(run).is_file() else sorted(Path(run).glob('*/vis_data/scalars.json'))
    if not logs:
        raise UsageError(
            f"no log of a run in '{run}': looked for */vis_data/scalars.json; give a work directory"
        )
    return logs


def read_scalars(log: Path) -> list[dict[str, float]]:
    """Read a log; an incomplete last line, as a killed run leaves it, is skipped.

    Args:
        log (Path): A file ``scalars.json``.

    Returns:
        list[dict]: A dict for each logged step, with ``step`` and scalars such as ``loss``.

    Raises:
        UsageError: The file is no such log.
    """
    try:
        lines = log.read_text().splitlines()
        if lines and not lines[-1].endswith('}'):
            lines.pop()
        scalars = [json.loads(line) for line in lines]
    except ValueError:
        scalars = None
    if scalars is None or not all(
        isinstance(line, dict) and isinstance(line.get('step'), (int, float)) for line in scalars
    ):
        raise UsageError(
            f"'{log}' is not a log of a run: give a work directory, or a file scalars.json in one"
        )
    return scalars


def read_curves(run: str | Path, keys: Iterable[str]) -> dict[str, list[tuple[int, float]]]:
    """Read curves of a run; the parts of a resumed run are joined.

    Args:
        run (str | Path): Work directory of the run, or a file ``scalars.json`` of one.
        keys (Iterable[str]): Names that were logged.

    Returns:
        dict[str, list[tuple[int, float]]]: Steps and values of each name.

    Raises:
        UsageError: There is no log, or it has no such name.
    """
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    logged: dict[str, None] = {}
    evaluated = False
    for log in find_logs(run):
        trained, names = 0, frozenset[str]()
        for line in read_scalars(log):
            logged.update(dict.fromkeys(line))
            found = line.keys() & set(keys)
            at = int(line['step'])
            if 'lr' in line:  # training logs it with everything else
                trained, names = at, names | line.keys()
            else:
                # An evaluation has the number of the epoch for its step where there are epochs, and times of
                # its own under the names that training has.
                evaluated, at, found = True, max(at, trained), found - names
            for key in found:
                # Discard what was logged after the checkpoint that a later run resumed from.
                for step in [step for step in curves[key] if step >= at]:
                    del curves[key][step]
                curves[key][at] = line[key]
    for key in keys:
        if key not in curves:
            choices = ', '.join(name for name in logged if name != 'step')
            reason = '' if evaluated else ', and was never evaluated'
            raise UsageError(f"'{run}' has logged no '{key}'{reason}: choose from {choices or 'nothing'}")
    return {key: sorted(curves[key].items()) for key in keys}


def summarise(points: Sequence[tuple[int, float]]) -> tuple[str, ...]:
    """Number of points of a curve, its first, last, lowest and highest value, and the step of the last."""
    values = [value for _, value in points]
    numbers = (values[0], values[-1], min(values), max(values))
    return (str(len(points)), *(f'{number:.4g}' for number in numbers), str(points[-1][0]))


def plot_curves(curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]], path: str | Path) -> None:
    """Draw curves of several runs, one subplot for each name.

    Args:
        curves (Mapping): Steps and values by run and name, as :func:`read_curves` returns them.
        path (str | Path): Output file.

    Raises:
        UsageError: It cannot be written.
    """
    keys = list(dict.fromkeys(key for found in curves.values() for key in found))
    figure, fields = plt.subplots(
        len(keys), squeeze=False, figsize=(6, 1 + 3 * len(keys)), layout='constrained', sharex=True
    )
    for key, axes in zip(keys, fields[:, 0], strict=True):
        for run, found in curves.items():
            axes.plot(*zip(*found[key], strict=True), marker='.', label=run)
        axes.set(ylabel=key)
        if 'loss' in key:
            axes.set_ylim(0, None)
        axes.grid(alpha=0.3)
    fields[-1, 0].set_xlabel('step')
    if len(curves) > 1:
        fields[0, 0].legend()
    try:
        write_figure(figure, path)
    except ValueError as error:  # an unknown format
        raise UsageError(
            f"cannot write '{path}' ({error}): give the path of a PNG, PDF or SVG file"
        ) from error
    finally:
        plt.close(figure)


def plot_accuracy(records: Iterable[dict[str, Any]], path: str | Path) -> None:
    """Draw the papers' ImageNet accuracy over measured speed, as Figure 4 of arXiv:2210.13452 does.

    Args:
        records (Iterable[dict]): Measurements of backbones that the papers have: ``model``, such as
            ``caformer_s18`` or ``timm/caformer_s18``, ``batch`` and ``median`` (seconds).
        path (str | Path): Output file.

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
    write_figure(figure, path)
    plt.close(figure)
