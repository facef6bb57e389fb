#!/usr/bin/env python
"""Measure backbones side by side, or windowed attention over the size of the map."""

import argparse
import json
import os
from dataclasses import asdict
from functools import partial

import torch

from mmmeta.analysis.benchmark import (
    build_features,
    bytes_kept,
    measure_layer,
    run_features,
    time_alternating,
)
from mmmeta.apis.checks import check_writable
from mmmeta.apis.cli import command_line

DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)


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
        'models',
        nargs='+',
        metavar='MODEL',
        help="such as timm/caformer_s18, mmpretrain/poolformer-s12_32xb128_in1k or 'caformer_s18,window=13'",
    )
    backbones.add_argument(
        '--shape', nargs=2, type=int, action='append', metavar=('HEIGHT', 'WIDTH'), help='may be repeated'
    )
    backbones.add_argument('--batch', type=int, default=1)
    backbones.add_argument('--repeats', type=int, default=5)
    backbones.add_argument(
        '--train', action='store_true', help='forward and backward, and the bytes that are kept in between'
    )
    backbones.add_argument('--dtype', choices=list(DTYPES), default='float32', help='other ones by autocast')
    backbones.add_argument('--compile', action='store_true', help='compiled by torch.compile')
    backbones.add_argument('--json', metavar='FILE', help='write the measurements into a file')
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
    """Time the backbones in turns at each size, channels last where a backbone asks for it."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    models = [build_features(spec).to(device).train(args.train) for spec in args.models]
    kept = ''
    if args.train:
        kept = f' {"kept (MB)":>10} {"ratio":>6}'
    task = ('training' if args.train else 'inference') + (', compiled' if args.compile else '')
    records = []
    for height, width in args.shape or [(512, 512)]:
        image = torch.randn(args.batch, 3, height, width, device=device)
        # Before compiling, which would hide what is kept.
        sizes = [bytes_kept(model, image) for model in models] if args.train else []
        callables = [torch.compile(model) for model in models] if args.compile else models
        runs = [partial(run_features, model, image, args.train, DTYPES[args.dtype]) for model in callables]
        timings = time_alternating(runs, args.repeats)
        print(
            f'\n{args.batch} x {height}x{width}, {device}, {args.threads} threads, {args.dtype}, {task}, '
            f'torch {torch.__version__}'
        )
        print(f'{"model":40} {"median (s)":>11} {"fastest":>9} {"slowest":>9} {"speed":>7}{kept}')
        for i, (spec, timing) in enumerate(zip(args.models, timings, strict=True)):
            speed = timings[0].median / timing.median
            memory = f' {sizes[i] / 1e6:10.0f} {sizes[i] / sizes[0]:6.2f}' if sizes else ''
            print(
                f'{spec:40} {timing.median:11.3f} {timing.fastest:9.3f} {timing.slowest:9.3f} {speed:6.2f}x'
                f'{memory}',
                flush=True,
            )
            record = dict(
                model=spec, height=height, width=width, batch=args.batch, dtype=args.dtype, task=task
            )
            record.update(asdict(timing), device=device, threads=args.threads, torch=torch.__version__)
            records.append({**record, **({'bytes_kept': sizes[i]} if sizes else {})})
    if args.json:
        with open(args.json, 'w') as file:
            json.dump(records, file, indent=1)


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
    if getattr(args, 'json', None):
        check_writable(os.path.dirname(args.json) or '.')
    torch.set_num_threads(args.threads)
    {'backbones': compare, 'windows': draw_curve}[args.command](args)


if __name__ == '__main__':
    command_line(main)
