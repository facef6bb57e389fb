#!/usr/bin/env python
"""Predict and draw the content of images: classes, segments, or objects with boxes and masks."""

import argparse

import check_interpreter  # noqa: F401
from rich.table import Table

from mmmeta.apis.classify import find_images
from mmmeta.apis.inference import build_model, predict
from mmmeta.cli.arguments import add_model_arguments, command_line, positive, print_table, share


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_model_arguments(parser)
    parser.add_argument(
        '--out-dir', default='work_dirs/image_demo', help='where the pictures go (default: %(default)s)'
    )
    parser.add_argument('--top', type=positive, default=5, help='number of classes to print (default: 5)')
    parser.add_argument(
        '--score-thr', type=share, default=0.3, help='minimum score of drawn objects (default: 0.3)'
    )
    return parser.parse_args()


def main() -> None:
    """Predict."""
    args = parse_args()
    images = find_images(args.image)
    model = build_model(args.model, args.checkpoint, args.device, args.cfg_options, args.trust_checkpoint)
    for number, prediction in enumerate(predict(model, images, args.out_dir, args.top, args.score_thr), 1):
        print(f'{prediction.image} ({number} of {len(images)}), drawn in {prediction.picture}')
        if not prediction.rows:
            print(f'no object has a score of {args.score_thr:g} or more: a lower --score-thr shows others')
            continue
        table = Table(*prediction.header)
        for row in prediction.rows:
            table.add_row(*row)
        print_table(table)


if __name__ == '__main__':
    command_line(main)
