#!/usr/bin/env python
"""Train with a config of MMSegmentation, MMDetection or MMPretrain; its default_scope says which."""

import argparse
import shlex

import check_interpreter  # noqa: F401

from mmmeta.apis import load_config
from mmmeta.apis.run import resume_from, saved_checkpoints, train
from mmmeta.cli.arguments import add_backbone, add_run_arguments, command_line, tool_path
from mmmeta.config import adapt
from mmmeta.utils.processes import is_first_process


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint; without a path from the last one in the work dir, if there is one',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: float16 on GPUs, bfloat16 on CPU'
    )
    parser.add_argument(
        '--weights',
        metavar='LOCATION',
        help='weights that the backbone begins with, such as mmmeta://caformer_s18, a file, or none',
    )
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size'
    )
    parser.add_argument(
        '--deterministic',
        action='store_true',
        help='deterministic kernels on GPUs, which are slower; on a CPU runs repeat without',
    )
    add_backbone(parser)
    add_run_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Train."""
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options, args.work_dir, backbone=args.backbone)
    cfg.launcher = args.launcher
    cfg.console = 'full' if args.verbose else 'short'
    adapt(cfg, amp=args.amp, weights=args.weights, auto_scale_lr=args.auto_scale_lr)
    if args.deterministic:
        cfg.randomness = dict(cfg.get('randomness') or {}, deterministic=True)
    if args.resume:
        resume_from(cfg, None if args.resume == 'auto' else args.resume)
    last, best = saved_checkpoints(train(cfg, args.trust_checkpoint, checks=not args.no_checks))
    if last and is_first_process():
        arguments = shlex.join([args.config, best[0] if best else last])
        print(f'\npictures: python {tool_path("image_demo.py")} IMAGES {arguments}')
        print(f'metrics:  python {tool_path("test.py")} {arguments}')


if __name__ == '__main__':
    command_line(main)
