#!/usr/bin/env python
"""Test a segmentor, and write and draw its confusion matrix."""

import argparse

import check_interpreter  # noqa: F401

from mmmeta.apis import load_config
from mmmeta.apis.run import evaluate
from mmmeta.cli.arguments import add_run_arguments, command_line, positive
from mmmeta.utils.errors import UsageError


def main() -> None:
    """Test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of a segmentor')
    parser.add_argument(
        'checkpoint', help="checkpoint file or URL, or 'none' for the network before training"
    )
    parser.add_argument(
        '--largest', type=positive, default=30, help='number of classes to draw (default: 30)'
    )
    add_run_arguments(parser)
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    cfg.launcher = args.launcher
    if cfg.get('default_scope') != 'mmseg':
        raise UsageError(f"'{args.config}' is no segmentor: give a config of MMSegmentation")
    metric = dict(type='mmmeta.ConfusionMatrix', out_dir=cfg.work_dir, largest=args.largest)
    given = cfg.get('test_evaluator') or []
    cfg.test_evaluator = [*(given if isinstance(given, list) else [given]), metric]
    checkpoint = None if args.checkpoint == 'none' else args.checkpoint
    evaluate(cfg, checkpoint, trust_checkpoint=args.trust_checkpoint)
    print(f'written: {cfg.work_dir}/confusion_matrix.csv and .png')


if __name__ == '__main__':
    command_line(main)
