#!/usr/bin/env python
"""Draw what a stage of a backbone responds to: a class activation map, or its strongest channels."""

import argparse

import check_interpreter  # noqa: F401

from mmmeta.apis.classify import find_images
from mmmeta.apis.inference import build_model
from mmmeta.cli.arguments import add_model_arguments, command_line, count, positive
from mmmeta.visualization.cam import METHODS, draw_cam
from mmmeta.visualization.pictures import check_picture, free_path


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_model_arguments(parser)
    parser.add_argument('--stage', type=count, default=3, help='stage, counted from 0 (default: 3)')
    parser.add_argument('--method', default='GradCAM', help=f'{", ".join(METHODS)} (default: GradCAM)')
    parser.add_argument(
        '--target', help='name or number of the class (default: the likeliest, or the most common one)'
    )
    parser.add_argument(
        '--channels', type=positive, default=16, help='channels drawn by features (default: 16)'
    )
    parser.add_argument(
        '--out',
        default='work_dirs/cam.png',
        help='the picture (default: %(default)s), numbered if it is there',
    )
    args = parser.parse_args()
    check_picture(args.out)
    (image, *_) = find_images(args.image)
    model = build_model(args.model, args.checkpoint, args.device, args.cfg_options, args.trust_checkpoint)
    path = free_path(args.out)
    target = draw_cam(model, image, path, args.stage, args.method, args.target, args.channels)
    print(f'written: {path}' + ('' if target is None else f", class '{target}'"))


if __name__ == '__main__':
    command_line(main)
