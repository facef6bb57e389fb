#!/usr/bin/env python
"""Generate a small data set in the layout of ADE20K, COCO or ImageNet, for experiments and tests."""

import argparse

import check_interpreter  # noqa: F401

from mmmeta.cli.arguments import command_line, count, positive
from mmmeta.datasets import generate_ade20k, generate_coco, generate_imagenet
from mmmeta.utils.targets import check_writable

LAYOUTS = dict(ade20k=generate_ade20k, coco=generate_coco, imagenet=generate_imagenet)


def main() -> None:
    """Generate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('root', help='folder in which ADEChallengeData2016/, coco/ or imagenet/ is made')
    parser.add_argument('--layout', choices=list(LAYOUTS), default='ade20k', help='of which data set')
    parser.add_argument('--num-train', type=positive, default=240, help='training images')
    parser.add_argument('--num-val', type=positive, default=40, help='validation images')
    parser.add_argument('--size', type=positive, default=160, help='short side of the images in pixels')
    parser.add_argument('--seed', type=count, default=0, help='seed of the scenes')
    args = parser.parse_args()
    generate = LAYOUTS[args.layout]
    check_writable(args.root, 'folder')
    print(generate(args.root, args.num_train, args.num_val, args.size, args.seed))


if __name__ == '__main__':
    command_line(main)
