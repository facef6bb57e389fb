"""``python -m mmmeta``: list configs, archs and published weights; check a config and its data."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmmeta.apis.checking import check
from mmmeta.apis.cli import add_config_options, command_line, print_table
from mmmeta.apis.config import load_config
from mmmeta.apis.listing import list_archs, list_models
from mmmeta.errors import UsageError
from mmmeta.resources import resource_root
from mmmeta.weights import ZOO


def print_configs(pattern: str) -> None:
    """Print the configs."""
    table = Table('config', 'size', 'params (M)', 'MACs (G)', 'printed results (%)', 'weights')
    for model in list_models(pattern):
        results = '\n'.join(dict.fromkeys(f'{r.metric} {r.printed}' for r in model.results))
        weights = f'mmmeta://{model.weights}' if model.weights else ''
        size = '{}x{}'.format(*model.shape)
        costs = f'{model.params / 1e6:.1f}', f'{model.macs / 1e9:.1f}'
        table.add_row(model.config.removeprefix('configs/'), size, *costs, results, weights)
    print_table(table)
    print(f'configs: {resource_root()}/configs, tools: {resource_root()}/tools')


def print_archs(pattern: str) -> None:
    """Print the archs of the families."""
    table = Table('type', 'arch', 'depths', 'dims', 'token mixers')
    for family, name, arch in list_archs(pattern):
        given = arch['token_mixers']
        given = [given] if isinstance(given, str) else given
        mixers = ', '.join(mixer if isinstance(mixer, str) else mixer['type'] for mixer in given)
        sizes = ('-'.join(map(str, arch[key])) for key in ('depths', 'dims'))
        table.add_row(f'mmmeta.{family}', name, *sizes, mixers)
    print_table(table)


def print_weights(pattern: str) -> None:
    """Print the published weights and their download locations."""
    table = Table('name', 'classes', 'image', 'locations')
    found = {name: weights for name, weights in ZOO.items() if pattern.lower() in name}
    if not found:
        raise UsageError(
            f"no weights have '{pattern}' in their name: list all with python -m mmmeta list --weights"
        )
    for name, weights in found.items():
        sizes = str(weights.num_classes), str(weights.image_size)
        table.add_row(f'mmmeta://{name}', *sizes, '\n'.join(weights.places))
    print_table(table)


def run_list(args: argparse.Namespace) -> None:
    """``list``."""
    args.function(args.pattern)


def run_check(args: argparse.Namespace) -> None:
    """``check``: status 1 with findings that are not warnings."""
    findings = check(load_config(args.config, args.cfg_options), progress=_track_maps)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f'{"warning" if finding.is_warning else "error"}: {finding.text}')
        print(f'{len(findings)} findings' if findings else 'nothing was found')
    if any(not finding.is_warning for finding in findings):
        sys.exit(1)


def _track_maps(maps: Iterable) -> Iterator:
    """A bar on a terminal while annotation maps are read."""
    console = Console(stderr=True)
    return iter(track(maps, 'reading annotation maps', console=console, disable=not console.is_terminal))


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(prog='python -m mmmeta', description=__doc__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    command = commands.add_parser('check', help='check a config and its data before training')
    command.set_defaults(run=run_check)
    command.add_argument('config', metavar='CONFIG')
    command.add_argument('--json', action='store_true', help='print the findings as JSON')
    add_config_options(command)
    command = commands.add_parser('list', help='list configs, archs or weights')
    command.set_defaults(run=run_list)
    command.add_argument('pattern', nargs='?', default='', help='part of the name (default: all)')
    group = command.add_mutually_exclusive_group()
    for what, function in (('archs', print_archs), ('weights', print_weights)):
        group.add_argument(
            f'--{what}',
            dest='function',
            action='store_const',
            const=function,
            default=print_configs,
            help=f'list the {what} instead of the configs',
        )
    args = parser.parse_args()
    args.run(args)


if __name__ == '__main__':
    command_line(main)
