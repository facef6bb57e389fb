#!/usr/bin/env python
"""A first run: generate a small data set, train CAFormer-S18 on it, and show what it learned."""

import argparse

import check_interpreter  # noqa: F401
import torch

from mmmeta.cli.arguments import command_line, positive
from mmmeta.cli.demo import DEMOS, run_demo
from mmmeta.utils.targets import check_writable


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--task',
        choices=list(DEMOS),
        default='segmentation',
        help='UperNet in the layout of ADE20K, or Mask R-CNN in that of COCO (default: %(default)s)',
    )
    parser.add_argument(
        '--data', help='folder with ADEChallengeData2016/ or coco/ (default: a generated data set)'
    )
    parser.add_argument('--work-dir', help='where results go (default: work_dirs/demo_<task>)')
    parser.add_argument(
        '--processes', type=positive, help='processes (default: the number of GPUs, 1 without)'
    )
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config')
    args = parser.parse_args()
    processes = args.processes or max(1, torch.cuda.device_count())
    work_dir = args.work_dir or f'work_dirs/demo_{args.task}'
    check_writable(work_dir)
    run_demo(args.task, args.data or None, work_dir, processes, args.cfg_options)


if __name__ == '__main__':
    command_line(main)
