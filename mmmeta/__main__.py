"""``python -m mmmeta``: list what there is, write a config, put a backbone into another, check it."""

import argparse
import io
import json
import shlex
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path

import mmmeta
from mmmeta.utils.stack import StackError, check_stack

if not hasattr(mmmeta, 'base_config'):  # of another project, over the one that checks
    try:
        check_stack()
    except StackError as error:
        sys.exit(f'error: {error}')

from mmengine.config import Config
from rich.table import Table

from mmmeta.analysis.forecasting import forecast
from mmmeta.apis.listing import list_archs, list_models
from mmmeta.cli.arguments import (
    BACKBONE_HELP,
    add_config_options,
    command_line,
    positive,
    print_table,
    share,
    tool_path,
    track,
)
from mmmeta.config import adapt, load_config
from mmmeta.scaffold import METHODS, new
from mmmeta.swapping.writing import describe_changes, write_swap
from mmmeta.utils.errors import UsageError, counted
from mmmeta.utils.resources import resource_root
from mmmeta.utils.targets import check_target
from mmmeta.validation import SAMPLE, Report, examine
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
    cfg = adapt(load_config(args.config, args.cfg_options), amp=args.amp)
    report = quiet_check(cfg, None)
    findings = report.findings
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for fact in report.facts:
            print(fact)
        for finding in findings:
            print(f'{"warning" if finding.is_warning else "error"}: {finding.text}')
        print(_summary(report))
    if any(not finding.is_warning for finding in findings):
        sys.exit(1)
    if args.forecast:
        print_forecast(cfg)


def _summary(report: Report) -> str:
    """How many mistakes there are, and in what."""
    findings = report.findings
    warnings = sum(finding.is_warning for finding in findings)
    errors = len(findings) - warnings
    said = [counted(number, word) for number, word in ((errors, 'error'), (warnings, 'warning')) if number]
    data = f'{" and ".join(report.read)} with their annotations' if report.read else 'no data'
    return (
        f'{", ".join(said) or "no mistakes were found"}; looked at: the config (names, types, channels, '
        f'classes, sizes, schedule), {data}'
    )


def print_forecast(cfg: Config) -> None:
    """Print what a training step takes."""
    with redirect_stdout(io.StringIO()):
        found = forecast(cfg, partial(track, 'training steps'))
    smaller, larger = found.batch_sizes
    height, width = found.shape[-2:]
    gib = 2**30
    print(
        f'memory: {found.peaks[0] / gib:.2f} GiB for a batch of {smaller}, {found.peaks[1] / gib:.2f} for '
        f'{larger}, {found.bytes_per_image / gib:.2f} for each image of {height}x{width} more; '
        f'{found.precision}, {found.device}'
    )
    print(f'speed: {found.images_per_second:.2f} images/s in a batch of {larger}, without loading them')
    print(f'largest batch: {found.largest_batch} in 90 % of {found.memory / gib:.1f} GiB, extrapolated')


def quiet_check(cfg: Config, count: int | None) -> Report:
    """Check a config; what data sets print while they are read is left out."""
    with redirect_stdout(io.StringIO()):
        return examine(cfg, count, progress=_track_maps)


_track_maps = partial(track, 'reading annotations')


def run_new(args: argparse.Namespace) -> None:
    """``new``."""
    options = vars(args)
    task, force = args.task, args.force
    given = {key: options[key] for key in NEW_OPTIONS if options.get(key) is not None}
    reports = []

    def verify(config: Path) -> None:
        reports.append(quiet_check(load_config(str(config)), SAMPLE))

    given.update(force=force, progress=_track_maps, verify=verify)
    created = new(task, args.images, options.get('labels'), args.out, **given)
    for line in created.facts:
        print(f'found:   {line}')
    for line in created.assumed:
        print(f'assumed: {line}')
    (report,) = reports
    for fact in report.facts:
        print(f'checked: {fact}')
    for finding in report.findings:
        print(f'{"warning" if finding.is_warning else "error"}: {finding.text}')
    for path in (created.config, *created.files):
        print(f'wrote:   {path}')
    config = shlex.quote(str(created.config))
    print(f'\nlook:    python {tool_path("analysis_tools/browse_dataset.py")} {config} --number 8')
    print(f'train:   python {tool_path("train.py")} {config}')


def run_swap(args: argparse.Namespace) -> None:
    """``swap``."""
    size = tuple(args.train_size) if args.train_size else None
    path = write_swap(args.config, args.backbone, args.out, size, args.keep_optimizer, args.force)
    changed, kept = describe_changes(load_config(args.config), load_config(str(path)))
    print(f'changed: {", ".join(changed)}')
    print(f'kept:    {"; ".join(kept)}')
    print(f'wrote:   {path}')
    print(f'\ntrain:   python {tool_path("train.py")} {shlex.quote(str(path))}')


# Arguments of ``new`` that are passed on by their names.
NEW_OPTIONS = (
    *('backbone', 'weights', 'method', 'classes', 'ignore', 'val_images', 'val_labels', 'val_fraction'),
    *('test_images', 'test_labels', 'size', 'batch_size', 'epochs', 'config', 'root', 'skip_missing'),
    *('channels', 'in_range'),
)


def add_new_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``new``, for each task."""
    tasks = command.add_subparsers(required=True, metavar='TASK', dest='task')
    seg = tasks.add_parser('seg', help='semantic segmentation: images and annotation maps')
    seg.add_argument(
        '--images', required=True, metavar='DIR', help='images, or folders train, val and test of them'
    )
    seg.add_argument(
        '--masks', required=True, metavar='DIR', dest='labels', help='maps, laid out as the images'
    )
    seg.add_argument('--val-images', metavar='DIR')
    seg.add_argument('--val-masks', metavar='DIR', dest='val_labels')
    seg.add_argument('--test-images', metavar='DIR')
    seg.add_argument('--test-masks', metavar='DIR', dest='test_labels')
    seg.add_argument(
        '--ignore', nargs='+', metavar='LABEL', help='labels or colours (R,G,B) that are no class, or none'
    )
    seg.add_argument('--skip-missing', action='store_true', help='leave images without a map out')
    det = tasks.add_parser('det', help='detection: images and boxes or masks of objects')
    det.add_argument('--images', metavar='DIR', help='images, or folders train, val and test of them')
    det.add_argument(
        '--annotations',
        required=True,
        metavar='FILE',
        dest='labels',
        help="COCO's file, CVAT's XML file, a folder of VOC's, YOLO's or LabelMe's, or YOLO's data.yaml, "
        'which names the images',
    )
    det.add_argument('--val-images', metavar='DIR')
    det.add_argument('--val-annotations', metavar='FILE', dest='val_labels')
    det.add_argument('--test-images', metavar='DIR')
    det.add_argument('--test-annotations', metavar='FILE', dest='test_labels')
    cls = tasks.add_parser('cls', help='classification: a folder for each class')
    cls.add_argument('images', metavar='DIR', help='folders of the classes, or train, val and test with them')
    for parser, methods, size in (
        (seg, METHODS['seg'], 'images are scaled to this short side, and crops of this side learnt from'),
        (det, METHODS['det'], 'images are scaled to this short side, and not cropped'),
        (cls, (), 'images are scaled to this short side, and cropped to a square of it'),
    ):
        if methods:
            parser.add_argument('--method', choices=methods)
            parser.add_argument('--classes', metavar='NAMES', help='a,b,c or a file with a name in each line')
        parser.add_argument('--out', metavar='FILE', help='default: my_<method>_<backbone>.py')
        parser.add_argument(
            '--config',
            metavar='CONFIG',
            help='a config that swap takes, to inherit from: a path, or mmdet::, mmseg:: or mmpretrain::...',
        )
        parser.add_argument(
            '--root',
            metavar='DIR',
            help='data_root of the config (default: the folder that has all data in it)',
        )
        parser.add_argument('--force', action='store_true', help='write over files that are there')
        parser.add_argument('--backbone', metavar='NAME', help='default: caformer_s18')
        parser.add_argument('--weights', metavar='LOCATION', help='default: ImageNet-1K; none: random')
        parser.add_argument('--val-fraction', type=share, metavar='X', help='held out, default: 0.1')
        parser.add_argument('--size', type=positive, metavar='PIXELS', help=size)
        parser.add_argument('--batch-size', type=positive, metavar='N')
        parser.add_argument(
            '--channels',
            type=positive,
            metavar='N',
            help='that are read of the images (default: theirs)',
        )
        parser.add_argument(
            '--in-range',
            nargs=2,
            type=float,
            metavar=('LOW', 'HIGH'),
            help='values of the images that become 0 and 255 (default: all as they are stored)',
        )
        parser.add_argument('--epochs', type=positive, metavar='N', help='default: 12 to 100, by the images')


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(prog='python -m mmmeta', description=__doc__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    command = commands.add_parser('check', help='check a config and its data before training')
    command.set_defaults(run=run_check)
    command.add_argument('config', metavar='CONFIG')
    command.add_argument('--json', action='store_true', help='print the findings as JSON')
    command.add_argument(
        '--forecast', action='store_true', help='run some training steps: memory, speed and the largest batch'
    )
    command.add_argument('--amp', action='store_true', help='in mixed precision')
    add_config_options(command)
    command = commands.add_parser('new', help='write a config for your own data')
    command.set_defaults(run=run_new)
    add_new_arguments(command)
    command = commands.add_parser('swap', help='put a MetaFormer into a config of any OpenMMLab package')
    command.set_defaults(run=run_swap)
    command.add_argument('config', metavar='CONFIG', help='a path, or mmdet::, mmseg:: or mmpretrain::...')
    command.add_argument('backbone', metavar='BACKBONE', help=BACKBONE_HELP)
    command.add_argument('--out', metavar='FILE', help='default: <config>_<backbone>.py')
    command.add_argument('--force', action='store_true', help='write over a file that is there')
    command.add_argument(
        '--train-size',
        nargs=2,
        type=positive,
        metavar=('HEIGHT', 'WIDTH'),
        help='size of training images, multiples of 32 (default: as they are)',
    )
    command.add_argument(
        '--keep-optimizer', action='store_true', help='leave the optimiser and its schedule as they are'
    )
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
    if getattr(args, 'out', None) is not None:
        check_target(args.out, '--out')
    args.run(args)


if __name__ == '__main__':
    command_line(main)
