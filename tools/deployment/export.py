#!/usr/bin/env python
"""Export a detector, segmentor, classifier or backbone to a file that runs without PyTorch, and compare."""

import argparse
import contextlib
import time
from functools import partial

import check_interpreter  # noqa: F401

from mmmeta.apis import load_config
from mmmeta.apis.exported import judging
from mmmeta.apis.inference import build_exportable
from mmmeta.cli.arguments import add_config_options, command_line
from mmmeta.deploy import Calibration, export
from mmmeta.deploy.exporting import DYNAMIC, PRECISIONS
from mmmeta.deploy.formats import SUFFIXES
from mmmeta.deploy.samples import training_images
from mmmeta.runtime.run import find_images
from mmmeta.utils.atomic import ended_by_exception
from mmmeta.utils.errors import UsageError


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help="config, or a backbone such as 'caformer_s18,window=13'")
    parser.add_argument('checkpoint', help="checkpoint, or 'none' for random weights")
    parser.add_argument('out', metavar='OUT', help='the file: .onnx, .xml for OpenVINO, .pt2 for PyTorch')
    parser.add_argument('--format', choices=list(SUFFIXES), help='default: by the ending of OUT')
    parser.add_argument('--shape', nargs=2, type=int, metavar=('H', 'W'), help='default: that of the config')
    parser.add_argument(
        '--dynamic',
        choices=DYNAMIC,
        help='what may differ between images (default: all where the config keeps their aspect ratio)',
    )
    parser.add_argument('--precision', choices=PRECISIONS, default='f32', help='default: f32')
    parser.add_argument(
        '--no-normalize', action='store_true', help='leave normalisation and channel order to the runtime'
    )
    parser.add_argument(
        '--logits', action='store_true', help='of a segmentor: logits at the size of its input, no labels'
    )
    parser.add_argument('--images', nargs='+', default=[], help='to compare with (default: a drawn one)')
    parser.add_argument(
        '--calibration',
        nargs='+',
        default=[],
        metavar='IMAGES',
        help="for int8: images or folders (default: --samples of the config's training set)",
    )
    parser.add_argument('--samples', type=int, default=64, help='of the data sets (default: 64)')
    parser.add_argument(
        '--max-drop',
        type=float,
        metavar='POINTS',
        help="for int8: what mIoU, AP or top-1 of --samples of the config's test set may lose",
    )
    parser.add_argument('--trust-checkpoint', action='store_true', help='the checkpoint may run code')
    add_config_options(parser)
    return parser.parse_args()


def read_calibration(args: argparse.Namespace, stack: contextlib.ExitStack) -> Calibration:
    """What eight bits are chosen with."""
    is_config = args.config.endswith('.py')
    if not is_config and (not args.calibration or args.max_drop is not None):
        raise UsageError(
            f"'{args.config}' is a backbone, without data: give --calibration, and no --max-drop"
        )
    load = partial(load_config, args.config, args.cfg_options)
    images = find_images(args.calibration) or training_images(load(), args.samples)
    if args.max_drop is None:
        return Calibration(images)
    judge = stack.enter_context(judging(load(), args.samples))
    return Calibration(images, judge, args.max_drop)


def main() -> None:
    """Export."""
    args = parse_args()
    images = find_images(args.images)
    model = build_exportable(args.config, args.checkpoint, args.cfg_options, args.trust_checkpoint)
    calibrated = args.calibration or args.max_drop is not None
    if calibrated and args.precision != 'int8':
        raise UsageError('--calibration and --max-drop are for --precision int8')
    start = time.monotonic()

    def progress(what: str) -> None:
        print(f'{time.monotonic() - start:5.0f} s: {what}', flush=True)

    with contextlib.ExitStack() as stack:
        stack.enter_context(ended_by_exception())  # so that drafts are removed
        exported = export(
            model,
            args.out,
            format=args.format,
            shape=args.shape and tuple(args.shape),
            dynamic=args.dynamic,
            precision=args.precision,
            normalize=not args.no_normalize,
            labels=not args.logits,
            images=images,
            checkpoint=args.checkpoint,
            calibration=read_calibration(args, stack) if args.precision == 'int8' else None,
            progress=progress,
        )
    for title, differences in (('same input', exported.differences), ('same image', exported.same_images)):
        for difference in differences:
            print(f'{title}, {difference}')
    if exported.quantized:
        print(f'int8: {exported.quantized}')
    for path in exported.files:
        print(f'{path}: {path.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    command_line(main)
