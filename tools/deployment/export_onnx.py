#!/usr/bin/env python
"""Export a backbone or a segmentor as an ONNX file, and compare ONNX Runtime with PyTorch."""

import argparse
import os
from importlib.util import find_spec

import check_interpreter  # noqa: F401
import torch

from mmmeta.apis.checks import check_writable
from mmmeta.apis.cli import command_line
from mmmeta.apis.export import DYNAMIC, build_exportable, compare_with_onnx, export_onnx
from mmmeta.errors import UsageError

# Largest accepted difference, relative to the largest output.
TOLERANCE = 1e-3


def main() -> None:
    """Export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', help="config of a segmentor, or a backbone such as 'caformer_s18,window=13'")
    parser.add_argument('out', metavar='FILE', help='the ONNX file')
    parser.add_argument('--checkpoint', help='weights (default: random ones)')
    parser.add_argument('--shape', nargs=2, type=int, default=(512, 512), metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument(
        '--dynamic', choices=DYNAMIC, default='batch', help='axes that may vary when it runs (default: batch)'
    )
    args = parser.parse_args()
    check_writable(os.path.dirname(args.out) or '.', 'FILE')
    model = build_exportable(args.model, args.checkpoint)
    height, width = args.shape
    print(f'exporting {args.model} at {height}x{width}, a minute or so', flush=True)
    export_onnx(model, args.out, (height, width), args.dynamic)
    print(f'{args.out}: {os.path.getsize(args.out) / 1e6:.1f} MB')
    if find_spec('onnxruntime') is None:
        print('not compared: ONNX Runtime is not installed')
        return
    sizes = [(2, height, width)]
    if args.dynamic != 'none':
        sizes.append((3, height, width))
    if args.dynamic == 'all':
        sizes.append((1, height + 32, width + 96))
    for batch, *size in sizes:
        error = compare_with_onnx(model, args.out, torch.randn(batch, 3, *size))
        print(f'{batch} x {size[0]}x{size[1]}: ONNX Runtime differs by {error:.1e} of the largest output')
        if error > TOLERANCE:
            raise UsageError(f'that is more than {TOLERANCE:g}: do not use {args.out}')


if __name__ == '__main__':
    command_line(main)
