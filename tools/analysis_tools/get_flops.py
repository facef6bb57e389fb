#!/usr/bin/env python
"""Count parameters and MACs of configs.

Both matrix products of attention count, over the keys that a query sees; what windowed attention computes and
masks stands beside them. Auxiliary heads do not count. Box heads run on 1000 proposals, mask heads on 100.
"""

import argparse

from mmmeta.analysis.complexity import count_config
from mmmeta.apis.cli import command_line
from mmmeta.apis.config import load_config

SHAPES = dict(mmseg=(512, 2048), mmdet=(800, 1280), mmpretrain=(224, 224))


def main() -> None:
    """Count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+', metavar='CONFIG')
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='image size (default: that of the tables in arXiv:2210.13452: 512 2048 for segmentors, '
        '800 1280 for detectors, 224 224 for classifiers)',
    )
    args = parser.parse_args()
    print(f'{"config":52} {"size":>9} {"params (M)":>11} {"MACs (G)":>9} {"masked (G)":>11}')
    for path in args.configs:
        cfg = load_config(path)
        shape = tuple(args.shape or SHAPES.get(cfg.get('default_scope'), SHAPES['mmseg']))
        count = count_config(cfg, shape)
        print(
            f'{path:52} {shape[0]:>4}x{shape[1]:<4} {count.params / 1e6:11.1f} {count.macs / 1e9:9.1f} '
            f'{count.masked_macs / 1e9:11.1f}'
        )


if __name__ == '__main__':
    command_line(main)
