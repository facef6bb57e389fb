#!/usr/bin/env python
"""Evaluate a checkpoint with a config of MMSegmentation, MMDetection or MMPretrain."""

import argparse

import check_interpreter  # noqa: F401

from mmmeta.apis import load_config
from mmmeta.apis.run import evaluate
from mmmeta.cli.arguments import add_backbone, add_run_arguments, command_line
from mmmeta.config import adapt
from mmmeta.utils.targets import check_writable


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint', help="checkpoint file or URL, or 'none' for the network before training"
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation: multi-scale and flip')
    parser.add_argument('--show-dir', help='draw every image with prediction and annotation into this folder')
    parser.add_argument(
        '--test-data',
        metavar='CONFIG',
        help='test on the data of another config and with its metrics, such as those in '
        'configs/imagenet/robustness',
    )
    add_backbone(parser)
    add_run_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Evaluate."""
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.test_data, args.backbone)
    cfg.launcher = args.launcher
    cfg.console = 'full' if args.verbose else 'short'
    if args.show_dir:
        check_writable(args.show_dir, '--show-dir')
    adapt(cfg, tta=args.tta, show_dir=args.show_dir)
    evaluate(
        cfg,
        None if args.checkpoint == 'none' else args.checkpoint,
        trust_checkpoint=args.trust_checkpoint,
        checks=not args.no_checks,
    )


if __name__ == '__main__':
    command_line(main)
