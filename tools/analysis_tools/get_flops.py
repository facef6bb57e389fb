#!/usr/bin/env python
"""Count parameters and MACs of configs; both matrix products of attention count, auxiliary heads do not."""

import argparse

from mmmeta.analysis.complexity import count_config
from mmmeta.apis.cli import command_line
from mmmeta.apis.config import load_config


def main() -> None:
    """Count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+', metavar='CONFIG')
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        default=(512, 2048),
        metavar=('HEIGHT', 'WIDTH'),
        help='image size (default: 512 2048, that of the UperNet table in arXiv:2210.13452)',
    )
    args = parser.parse_args()
    print(f'{"config":48} {"params (M)":>11} {"MACs (G)":>11}   at {args.shape[0]}x{args.shape[1]}')
    for path in args.configs:
        complexity = count_config(load_config(path), tuple(args.shape))
        print(f'{path:48} {complexity.params / 1e6:11.1f} {complexity.macs / 1e9:11.1f}')


if __name__ == '__main__':
    command_line(main)
