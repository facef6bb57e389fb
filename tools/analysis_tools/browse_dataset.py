#!/usr/bin/env python
"""Draw the output of a config's data pipeline: the images that the network receives, with annotations."""

import argparse

import check_interpreter  # noqa: F401
from rich.progress import track

from mmmeta.apis import load_config
from mmmeta.cli.arguments import add_config_options, command_line, positive
from mmmeta.visualization.browsing import browse
from mmmeta.visualization.pictures import free_folder


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of a segmentor, a detector or a classifier')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train')
    parser.add_argument('--number', type=positive, help='number of samples, from the first (default: all)')
    parser.add_argument(
        '--out-dir', default='work_dirs/browse', help='where the pictures go (default: %(default)s)'
    )
    add_config_options(parser)
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    folder = free_folder(args.out_dir)
    count, pictures = browse(cfg, args.split, folder, args.number)
    for _ in track(pictures, f'{args.split} of {args.config}', total=count):
        pass
    print(f'{count} pictures in {folder}')


if __name__ == '__main__':
    command_line(main)
