#!/usr/bin/env python
"""Print the papers' results beside those that were measured here, and how each was obtained.

Every run of tools/train.py and tools/test.py leaves a record in its work directory; what was changed of
its config is listed with its numbers, so that a shortened run is not mistaken for the paper's.
"""

import argparse
from pathlib import Path

import check_interpreter  # noqa: F401
from rich.table import Table

from mmmeta.analysis.paper_tables import printed_results
from mmmeta.analysis.reproduce import as_row, commands, compare, export
from mmmeta.analysis.runs import find_records, report_incomplete
from mmmeta.apis import load_config
from mmmeta.apis.run import evaluate
from mmmeta.cli.arguments import add_config_options, command_line, print_table
from mmmeta.config import adapt
from mmmeta.config.reading import resolve_config_path
from mmmeta.utils.errors import UsageError


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='only these configs (default: all)')
    parser.add_argument(
        '--work-dirs', default='work_dirs', help='folder with the work directories (default: work_dirs)'
    )
    parser.add_argument('--all', action='store_true', help='include results that were not measured')
    parser.add_argument(
        '--commands', action='store_true', help='print the commands for what was not measured instead'
    )
    parser.add_argument('--export', metavar='FOLDER', help='write Markdown, CSV and a plot as well')
    group = parser.add_argument_group('evaluate a checkpoint first, with the one config that is given')
    group.add_argument('--checkpoint', help='path, URL, mmmeta://NAME or timm://MODEL')
    group.add_argument('--tta', action='store_true', help='average scales and flips')
    group.add_argument('--test-data', metavar='CONFIG', help='test on the data of another config')
    group.add_argument('--trust-checkpoint', action='store_true', help='read it even if it executes code')
    add_config_options(group)
    return parser.parse_args()


def measure(args: argparse.Namespace) -> None:
    """Evaluate the checkpoint that is given."""
    if len(args.configs) != 1:
        raise UsageError(f'--checkpoint is evaluated with one config, and {len(args.configs)} are given')
    work_dir = str(Path(args.work_dirs) / Path(resolve_config_path(args.configs[0])).stem)
    cfg = load_config(args.configs[0], args.cfg_options, work_dir, args.test_data)
    adapt(cfg, tta=args.tta)
    evaluate(cfg, args.checkpoint, args.trust_checkpoint)


def main() -> None:
    """Compare."""
    args = parse_args()
    results = printed_results()
    names = {result.name for result in results}
    wanted = {Path(resolve_config_path(config)).stem for config in args.configs} or names
    if wanted - names:
        raise UsageError(
            f"no result is printed for '{min(wanted - names)}': give configs of the papers, such as "
            'configs/upernet_caformer_s18_ade20k.py'
        )
    if args.checkpoint:
        measure(args)
    elif args.tta or args.test_data or args.cfg_options or args.trust_checkpoint:
        raise UsageError('--tta, --test-data, --cfg-options and --trust-checkpoint need a --checkpoint')
    # Rows and commands do not need any runs.
    nothing = not Path(args.work_dirs).exists() and (args.all or args.commands)
    records = [] if nothing else find_records(args.work_dirs, wanted)
    comparisons = compare(records, [result for result in results if result.name in wanted])
    if args.commands:
        print(*commands(comparisons, records, args.work_dirs), sep='\n')
    else:
        table = Table('config', 'metric', 'paper', 'measured', 'difference', 'how', 'differs from the config')
        for comparison in comparisons:
            row = as_row(comparison)
            if comparison.values or args.all:
                spread = f' ± {row["spread"]} ({row["runs"]} runs)' if row['spread'] else ''
                paper = f'{row["paper"]} ({row["source"]})'
                measured = (f'{row["measured"]}{spread}', row['difference'], row['how'], row['differs'])
                table.add_row(row['config'], row['metric'], paper, *measured)
        print_table(table)
        measured = len({c.result for c in comparisons if c.values})
        total = len({c.result for c in comparisons})
        print(f'{measured} of {total} results were measured; the others: --commands')
    for line in report_incomplete(records):
        print(f'# {line}' if args.commands else line)
    if args.export:
        for path in export(comparisons, args.export):
            print(f'written: {path}')


if __name__ == '__main__':
    command_line(main)
