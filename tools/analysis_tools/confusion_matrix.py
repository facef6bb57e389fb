#!/usr/bin/env python
"""Test a segmentor, a classifier or a detector, and write and draw its confusion matrix."""

import argparse

import check_interpreter  # noqa: F401

from mmmeta.apis import load_config
from mmmeta.apis.run import evaluate
from mmmeta.cli.arguments import add_run_arguments, command_line, positive, share
from mmmeta.config.adaptation import enable_confusion


def main() -> None:
    """Test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of a segmentor, a classifier or a detector')
    parser.add_argument(
        'checkpoint', help="checkpoint file or URL, or 'none' for the network before training"
    )
    parser.add_argument(
        '--largest', type=positive, default=30, help='number of classes to draw (default: 30)'
    )
    parser.add_argument(
        '--score-thr', type=share, default=0.3, help='minimum score of objects that count (default: 0.3)'
    )
    add_run_arguments(parser)
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    cfg.launcher = args.launcher
    cfg.console = 'full' if args.verbose else 'short'
    enable_confusion(cfg, args.largest, args.score_thr)
    checkpoint = None if args.checkpoint == 'none' else args.checkpoint
    evaluate(cfg, checkpoint, trust_checkpoint=args.trust_checkpoint, checks=not args.no_checks)
    print(f'written: {cfg.work_dir}/confusion_matrix.csv and .png')


if __name__ == '__main__':
    command_line(main)
