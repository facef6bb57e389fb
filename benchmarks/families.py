"""The picture of the model zoo: results of the papers over multiply-accumulates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from mmmeta.analysis.curves import write_figure
from mmmeta.models import FAMILIES

# Lines of detectors and segmentors beside each other.
METHOD_STYLES = {
    'UperNet': dict(linestyle='-'),
    'Semantic FPN': dict(linestyle=':'),
    'Cascade Mask R-CNN': dict(linestyle='-'),
    'Mask R-CNN': dict(linestyle='--'),
    'RetinaNet': dict(linestyle=':'),
}


@dataclass(frozen=True)
class Panel:
    """Results on one data set.

    Attributes:
        title (str): What is measured, with its unit.
        macs (str): What the multiply-accumulates are of.
        lines (dict): Points by family and method: multiply-accumulates (G), result and size of each model.
    """

    title: str
    macs: str
    lines: dict[tuple[str, str], list[tuple[float, float, str]]]


def plot_families(panels: Sequence[Panel], path: str | Path) -> None:
    """Draw results over multiply-accumulates, a line for each family and method.

    Args:
        panels (Sequence[Panel]): What is drawn side by side.
        path (str | Path): Output file.
    """
    figure, all_axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 4.4), layout='constrained')
    colours = {cls.__name__: f'C{i}' for i, cls in enumerate(FAMILIES.values())}
    handles = {}
    for axes, panel in zip(all_axes, panels, strict=True):
        for (family, method), points in panel.lines.items():
            macs, results, sizes = zip(*sorted(points), strict=True)
            style = METHOD_STYLES.get(method, {})
            (handles[family],) = axes.plot(macs, results, color=colours[family], marker='o', **style)
            for end, offset, side in ((0, (-6, 0), 'right'), (-1, (6, 0), 'left')):
                if end == -1 and len(points) == 1:
                    continue
                axes.annotate(
                    *(sizes[end].upper(), (macs[end], results[end]), offset),
                    **dict(textcoords='offset points', fontsize=8, ha=side, va='center'),
                )
        axes.set(xscale='log', xlabel=f'multiply-accumulates (G), {panel.macs}', title=panel.title)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter('{x:g}')
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.14)
        axes.grid(alpha=0.3)
        methods = dict.fromkeys(method for _, method in panel.lines if method)
        labels = [Line2D([], [], color='grey', **METHOD_STYLES.get(method, {})) for method in methods]
        if methods:
            axes.legend(labels, methods, loc='lower right', fontsize=8)
    order = [family for family in colours if family in handles]
    marks = [Line2D([], [], color=colours[family], marker='o') for family in order]
    figure.legend(marks, order, ncols=len(order), loc='outside lower center', frameon=False)
    write_figure(figure, path)
    plt.close(figure)
