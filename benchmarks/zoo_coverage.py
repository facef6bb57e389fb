#!/usr/bin/env python
"""Put a MetaFormer into every config of the OpenMMLab packages, train, and predict, on generated data."""

import argparse
import os
from pathlib import Path

import torch

from benchmarks.coverage.report import cover, write_csv, write_page
from benchmarks.coverage.run import list_configs
from mmmeta.cli.arguments import command_line, positive, track
from mmmeta.config.backbones import backbone_config
from mmmeta.utils.errors import UsageError
from mmmeta.utils.resources import resource_root
from mmmeta.utils.targets import check_writable


def main() -> None:
    """Cover the zoo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--pattern', default='', help='part of the names of configs (default: all)')
    parser.add_argument('--backbone', default='caformer_s18')
    parser.add_argument('--processes', type=positive, default=os.cpu_count())
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/zoo_coverage'), help='data, weights and rows so far'
    )
    args = parser.parse_args()
    backbone_config(args.backbone)
    check_writable(args.work_dir)
    configs = [name for name in list_configs() if args.pattern in name]
    if not configs:
        raise UsageError(f"no config has '{args.pattern}' in its name: give another --pattern")
    outcomes = cover(args.work_dir, configs, args.backbone, args.processes, track)
    # Of all into the documentation, of some beside the rows.
    folder = args.work_dir if args.pattern else resource_root() / 'docs'
    write_csv(outcomes, folder / 'zoo_coverage.csv')
    how = f'with PyTorch {torch.__version__} on a CPU, in float32'
    write_page(outcomes, args.backbone, how, folder / 'zoo_coverage.md')
    tried = [outcome for outcome in outcomes if outcome.group]
    good = [outcome for outcome in tried if outcome.predicted]
    print(f'{len(good)} of {len(tried)} configs train and predict; {len(outcomes) - len(tried)} are left out')
    for outcome in tried:
        if not outcome.predicted and outcome.group == outcome.config:
            print(f'{outcome.config}: {outcome.reason.strip().splitlines()[-1]}')


if __name__ == '__main__':
    command_line(main)
