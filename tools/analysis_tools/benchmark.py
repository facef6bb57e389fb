#!/usr/bin/env python
"""Measure backbones side by side, or windowed attention over the size of the map."""

import argparse
from functools import partial

import torch

from mmmeta.analysis.benchmark import build_features, measure_layer, time_alternating
from mmmeta.apis.cli import command_line


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument('--threads', type=int, default=torch.get_num_threads())
    commands = parser.add_subparsers(dest='command', required=True)
    backbones = commands.add_parser(
        'backbones',
        help='inference in turns; medians, and ratios to the first',
        description=compare.__doc__,
        parents=[common],
    )
    backbones.add_argument(
        'models', nargs='+', metavar='MODEL', help="such as timm/caformer_s18 or 'caformer_s18,window=13'"
    )
    backbones.add_argument(
        '--shape', nargs=2, type=int, action='append', metavar=('HEIGHT', 'WIDTH'), help='may be repeated'
    )
    backbones.add_argument('--batch', type=int, default=1)
    backbones.add_argument('--repeats', type=int, default=5)
    windows = commands.add_parser(
        'windows',
        help='time and peak memory of a layer',
        description=draw_curve.__doc__,
        parents=[common],
    )
    windows.add_argument(
        '--sides', nargs='+', type=int, default=[32, 64, 128, 256], help='of square maps, in tokens'
    )
    windows.add_argument('--window', type=int, default=13)
    windows.add_argument('--dim', type=int, default=320)
    windows.add_argument(
        '--largest-global',
        type=int,
        default=128,
        help='largest side for global attention',
    )
    return parser.parse_args()


def compare(args: argparse.Namespace) -> None:
    """Time the backbones in turns at each size, fp32, channels last where a backbone asks for it."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    models = [build_features(spec).to(device) for spec in args.models]
    for height, width in args.shape or [(512, 512)]:
        image = torch.randn(args.batch, 3, height, width, device=device)
        with torch.inference_mode():
            runs = [partial(model, image) for model in models]
            timings = time_alternating(runs, args.repeats)
        print(f'\n{args.batch} x {height}x{width}, {device}, {args.threads} threads')
        print(f'{"model":40} {"median (s)":>11} {"fastest":>9} {"slowest":>9} {"speed":>7}')
        for spec, timing in zip(args.models, timings, strict=True):
            speed = timings[0].median / timing.median
            print(
                f'{spec:40} {timing.median:11.3f} {timing.fastest:9.3f} {timing.slowest:9.3f} {speed:6.2f}x',
                flush=True,
            )


def draw_curve(args: argparse.Namespace) -> None:
    """Time and peak memory of one attention layer, with a window and without, over the number of tokens."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    print(f'window {args.window}x{args.window}, {args.dim} channels, {device}, {args.threads} threads')
    print(f'{"tokens":>9} {"attention":>10} {"forward":>19} {"forward + backward":>21}')
    for side in args.sides:
        for name, window in (('windowed', args.window), ('global', None)):
            if window is None and side > args.largest_global:
                continue
            cells = (measure_layer(side, args.dim, window, train, device) for train in (False, True))
            (fast, low), (slow, high) = cells
            print(
                f'{side:>4}x{side:<4} {name:>10} {fast:9.3f} s {low / 2**20:5.0f} MiB '
                f'{slow:9.3f} s {high / 2**20:7.0f} MiB',
                flush=True,
            )


def main() -> None:
    """Measure."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    {'backbones': compare, 'windows': draw_curve}[args.command](args)


if __name__ == '__main__':
    command_line(main)
