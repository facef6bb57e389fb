#!/usr/bin/env python
"""Count parameters, MACs and activations of configs, whole and by parts.

One MAC is two floating-point operations. Both matrix products of attention count, over the keys that a query
attends to; masked products of windowed attention are extra. Auxiliary heads have parameters, but no
MACs: only training runs them. Box heads run on 1000 proposals, mask heads on 100. Activations are entries of
what convolutions and linear maps return.
"""

import argparse
from functools import cache

import check_interpreter  # noqa: F401

from mmmeta.analysis.complexity import Complexity, count_config
from mmmeta.analysis.paper_tables import PrintedComplexity, printed_complexities
from mmmeta.apis import load_config
from mmmeta.cli.arguments import add_backbone, command_line, positive
from mmmeta.utils.errors import UsageError

SHAPES = dict(mmseg=(512, 2048), mmdet=(800, 1280), mmpretrain=(224, 224))
# Largest accepted relative deviation from the printed number, beyond its rounding.
TOLERANCE = 0.005


def print_count(name: str, shape: str, count: Complexity) -> None:
    """Print a row."""
    print(
        f'{name:52} {shape:>9} {count.params / 1e6:11.1f} {count.macs / 1e9:9.1f} '
        f'{count.masked_macs / 1e9:11.1f} {count.activations / 1e6:16.1f}',
        flush=True,
    )


def count_all(configs: list[str], shape: tuple[int, int] | None, backbone: str | None) -> None:
    """Count configs."""
    print(
        f'{"config":52} {"size":>9} {"params (M)":>11} {"MACs (G)":>9} {"masked (G)":>11} '
        f'{"activations (M)":>16}'
    )
    for path in configs:
        cfg = load_config(path, backbone=backbone)
        size = shape or SHAPES.get(cfg.get('default_scope'), SHAPES['mmseg'])
        count = count_config(cfg, size)
        print_count(path, f'{size[0]}x{size[1]}', count)
        for name, part in count.parts.items():
            print_count(f'  {name}', '', part)


def compare_with_papers() -> None:
    """Compare with what the papers print.

    Raises:
        UsageError: A number is off.
    """

    @cache
    def count(path: str, shape: tuple[int, int]) -> Complexity:
        return count_config(load_config(path), shape)

    def value(printed: PrintedComplexity) -> float:
        if printed.kind == 'macs':
            return count(printed.config, printed.shape).macs / 1e9
        found = count(printed.config, printed.shape)
        # Random matrices are parameters that are not trained; papers list them separately.
        return (found.frozen_params if printed.kind == 'frozen' else found.params - found.frozen_params) / 1e6

    print(f'{"config":52} {"size":>9} {"what":>7} {"paper":>7} {"counted":>9} {"off":>8}  source')
    off = []
    for printed in printed_complexities():
        counted = value(printed)
        deviation = counted / float(printed.text) - 1
        height, width = printed.shape
        print(
            f'{printed.config:52} {f"{height}x{width}":>9} {printed.kind:>7} {printed.text:>7} '
            f'{counted:9.2f} {deviation:+8.2%}  {printed.source}',
            flush=True,
        )
        if printed.deviation(counted) > TOLERANCE:
            off.append(f'{printed.kind} of {printed.config}')
    if off:
        raise UsageError(f'off by more than {TOLERANCE:.1%} beyond the printed digits: {", ".join(off)}')
    print(f'all within {TOLERANCE:.1%}, or equal to the printed digit')


def main() -> None:
    """Count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='*', metavar='CONFIG')
    parser.add_argument(
        '--shape',
        nargs=2,
        type=positive,
        metavar=('HEIGHT', 'WIDTH'),
        help='image size (default: that of the tables in arXiv:2210.13452: 512 2048 for segmentors, '
        '800 1280 for detectors, 224 224 for classifiers)',
    )
    add_backbone(parser)
    parser.add_argument(
        '--paper', action='store_true', help='compare all models with Tables I, III, V, IX and X instead'
    )
    args = parser.parse_args()
    if bool(args.configs) == args.paper:
        parser.error('give either configs or --paper')
    if args.paper:
        compare_with_papers()
    else:
        count_all(args.configs, tuple(args.shape) if args.shape else None, args.backbone)


if __name__ == '__main__':
    command_line(main)
