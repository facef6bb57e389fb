#!/usr/bin/env python
"""Draw curves from the logs of runs into one picture, and print a summary of each.

The curves of one run that was resumed are joined. What is drawn may be any name that was logged: loss, lr,
mIoU, coco/bbox_mAP, accuracy/top1, time, memory.
"""

import argparse

import check_interpreter  # noqa: F401
from rich.table import Table

from mmmeta.analysis.curves import plot_curves, read_curves, summarise
from mmmeta.cli.arguments import command_line, print_table
from mmmeta.visualization.pictures import FIGURES, check_picture, free_path


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('runs', nargs='+', metavar='RUN', help='work directories, or files scalars.json')
    parser.add_argument('--keys', nargs='+', default=['loss'], metavar='NAME', help='default: loss')
    parser.add_argument('--out', default='work_dirs/curves.png', help='the picture (default: %(default)s)')
    args = parser.parse_args()
    check_picture(args.out, FIGURES)
    curves = {run: read_curves(run, args.keys) for run in args.runs}
    table = Table('run', 'name', 'points', 'first', 'last', 'lowest', 'highest', 'at step')
    for run, found in curves.items():
        for key, points in found.items():
            table.add_row(run, key, *summarise(points))
    print_table(table)
    path = free_path(args.out)
    plot_curves(curves, path)
    print(f'written: {path}')


if __name__ == '__main__':
    command_line(main)
