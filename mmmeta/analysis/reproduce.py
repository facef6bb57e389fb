"""The papers' results beside those of runs on this machine, and how each of these was obtained."""

import csv
import math
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from mmengine.config import Config

from mmmeta.utils.atomic import written
from mmmeta.utils.errors import UsageError
from mmmeta.utils.resources import resource_root
from mmmeta.utils.stack import explain_missing_package
from mmmeta.weights import name_of_config, name_of_location

from .paper_tables import Result
from .runs import TEST_KEYS, TEST_ONLY_KEYS, TRAINING_KEYS, Record

# Images of training, of those with objects in COCO's; and of the evaluation.
TRAINING_IMAGES = dict(ade20k=20210, coco=117266, imagenet=1281167)
TEST_IMAGES = dict(ade20k=2000, coco=5000, imagenet=50000, imagenet_c=75 * 50000, imagenet_a=7500)
TEST_IMAGES.update(imagenet_r=30000, imagenet_sketch=50889)
GPUS_PER_MACHINE = 8
COLUMNS = 'config', 'metric', 'source', 'paper', 'measured', 'spread', 'runs', 'difference', 'how', 'differs'


@cache
def _load_shipped(config: str) -> Config:
    """A config of ours."""
    with explain_missing_package():
        return Config.fromfile(resource_root() / config)


def _dataset(result: Result) -> str:
    """The data set of a result, a key of ``TRAINING_IMAGES``."""
    return 'imagenet' if 'imagenet/' in result.config else result.name.rpartition('_')[2]


class Comparison(NamedTuple):
    """A printed result and the runs that measured it in one way.

    ``differences`` are those from the config with which the runs do not compare with the paper's number;
    ``values`` what each run measured, in percent; ``how`` in words how each was obtained; ``trained`` whether
    the training of one of them is recorded.
    """

    result: Result
    differences: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    how: tuple[str, ...] = ()
    trained: bool = False

    @property
    def mean(self) -> float | None:
        """Mean of the runs."""
        return fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the runs; None for a single one."""
        return stdev(self.values) if len(self.values) > 1 else None


def _origin(record: Record) -> str:
    """How a number was obtained, from its record and that of the training."""
    parts, source = [f'checkpoint {record["checkpoint"]}'], record
    if record.run:
        source = record.run[-1]
        devices = f'{source["processes"]} x {source["device"]}'
        parts = [f'seed {source["seed"]}', f'batch {source["batch_size"]} on {devices}']
        parts.append(f'learning rate x{source["lr_scale"]:g}')
    parts.append(f'commit {source["commit"] or "unknown"}')
    shown = (name for name in ('torch', 'mmengine', 'mmmeta') if name in source['versions'])
    return '; '.join([*parts, ', '.join(f'{name} {source["versions"][name]}' for name in shown)])


def _differences_of_training(result: Result, run: Sequence[Record]) -> Iterator[str]:
    """Differences of a training from the config."""
    if not run:
        return
    cfg = _load_shipped(result.config)
    base = cfg.auto_scale_lr.base_batch_size
    kinds = {(record['batch_size'], record['lr_scale']) for record in run}
    if len(kinds) > 1:
        yield 'resumed with another batch'
    for batch, scale in sorted(kinds):
        if not math.isclose(scale, batch / base):
            yield f'batch of {batch} instead of {base} at {scale:g} times the learning rate'
        elif batch != base and 'max_iters' in cfg.train_cfg:
            yield f'batch of {batch} instead of {base}: {batch / base:.0%} of the images'
    for record in run[1:]:
        if record['checkpoint'] and Path(record['checkpoint']).parent.resolve() != record.work_dir:
            yield f'resumed from {record["checkpoint"]}'
    if run[0]['resumed']:
        yield 'resumed from a run that is not recorded'
    images, expected = run[-1]['images'].get('train'), TRAINING_IMAGES[_dataset(result)]
    if '_in21k' not in result.name and images != expected:
        yield f'{images} training images instead of {expected}'
    ours = {'load_from': cfg.get('load_from')}
    if cfg.model.backbone.get('init_cfg'):
        ours['model.backbone.init_cfg.checkpoint'] = cfg.model.backbone.init_cfg.checkpoint
    for key, value in run[-1].changes(TEST_KEYS).items():
        # The same weights have several locations.
        known = value and ours.get(key) and name_of_location(value)
        if not known or known != name_of_location(ours[key]):
            yield f'{key}={value}'


def _differences_of_test(result: Result, record: Record) -> Iterator[str]:
    """Differences of an evaluation from the config."""
    run, dataset, checkpoint = record.run, _dataset(result), record['checkpoint']
    images = record['images'].get('val' if record.trains else 'test')
    expected = TEST_IMAGES[result.test_data or dataset]
    if images != expected:
        yield f'{images} images instead of {expected}'
    # Of a training's own evaluation the rest was changed in the training.
    ignored = (*TEST_ONLY_KEYS, *run[-1].changes(TEST_KEYS)) if record.trains else TRAINING_KEYS
    for key, value in record.changes(ignored).items():
        is_pipeline = result.tta and key.startswith('test_dataloader.dataset.pipeline')
        # Classifiers see images of one size: how many at a time makes no difference.
        is_batch = dataset == 'imagenet' and key.endswith('_dataloader.batch_size')
        if key != result.option.partition('=')[0] and not is_pipeline and not is_batch:
            yield f'{key}={value}'
    if run:
        done, planned = record['iterations'][0], run[-1]['iterations'][1]
        if not record.trains and done != planned:
            yield f'checkpoint after {done} of {planned} iterations'
    elif checkpoint is None:
        yield 'the network before training'
    elif (name := name_of_location(checkpoint)) is None:
        yield 'training not recorded'
    elif name != name_of_config(result.name):
        yield f'weights of {name}'


def _measures(record: Record, result: Result) -> bool:
    """Whether a record measured a result, with or without differences from the config."""
    metrics, data = record['metrics'] or {}, Path(record['test_data'] or '').stem
    if (record.name, bool(record['tta']), data) != (result.name, result.tta, result.test_data):
        return False
    if result.key not in metrics or not record['finished']:
        return False
    if record.trains:  # its own evaluation is that of the plain config
        is_last = record is record.evaluation and metrics['step'] == record.run[-1]['iterations'][1]
        return is_last and not result.option
    changes = [f'{key}={value}' for key, value in (record['changes'] or {}).items()]
    # Whether sizes are aligned makes results of their own.
    return result.option in changes if result.option else not any('.size_divisor=' in c for c in changes)


def compare(records: Sequence[Record], results: Iterable[Result]) -> list[Comparison]:
    """Compare measurements with printed results.

    Args:
        records (Sequence[Record]): Records, the oldest first, by :func:`~mmmeta.analysis.runs.find_records`.
        results (Iterable[Result]): Printed results.

    Returns:
        list[Comparison]: For each result one for each way that it was measured in, those as the config says
        first; an empty one if it was not measured. Of several tests of one network the newest counts.
    """
    comparisons = []
    for result in results:
        groups: dict[tuple, dict] = defaultdict(dict)
        for record in records:
            if _measures(record, result):
                place = record['checkpoint'] or ''
                network = record.run[0].path if record.run else name_of_location(place) or place
                differences = (
                    *_differences_of_training(result, record.run),
                    *_differences_of_test(result, record),
                )
                value = record['metrics'][result.key] * result.scale
                groups[tuple(dict.fromkeys(differences))][network] = value, _origin(record), bool(record.run)
        for differences, group in sorted(groups.items(), key=lambda item: len(item[0])):
            values, how, trained = zip(*group.values(), strict=True)
            comparisons.append(Comparison(result, differences, values, how, any(trained)))
        if not groups:
            comparisons.append(Comparison(result))
    return comparisons


def as_row(comparison: Comparison) -> dict[str, str]:
    """A comparison as text, by ``COLUMNS``; empty where nothing was measured."""
    result, mean, spread = comparison.result, comparison.mean, comparison.spread
    row = dict.fromkeys(COLUMNS, '')
    row.update(config=result.name, metric=result.metric, source=result.source, paper=result.printed)
    if mean is not None:
        row['spread'] = '' if spread is None else f'{spread:.2f}'
        row.update(measured=f'{mean:.2f}', difference=f'{mean - float(result.printed):+.2f}')
        row.update(runs=str(len(comparison.values)), differs='; '.join(comparison.differences))
        row['how'] = ' | '.join(dict.fromkeys(comparison.how))
    return row


def export(comparisons: Sequence[Comparison], folder: str | Path) -> list[Path]:
    """Write comparisons as Markdown, CSV and, where something was measured, a plot; return the files.

    Raises:
        UsageError: The folder cannot be written to.
    """
    table, page, picture = (Path(folder, f'reproduce.{end}') for end in ('csv', 'md', 'png'))
    lines = [COLUMNS, *(tuple(as_row(comparison).values()) for comparison in comparisons)]
    cells = [[cell.replace('|', '/') for cell in line] for line in lines]
    cells.insert(1, ['---'] * len(COLUMNS))
    measured = [comparison for comparison in comparisons if comparison.values]
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        with written(table) as draft, open(draft, 'w', newline='') as file:
            csv.writer(file).writerows(lines)
        with written(page) as draft:
            draft.write_text(''.join(f'| {" | ".join(line)} |\n' for line in cells))
        if measured:
            _plot(measured, picture)
    except OSError as error:
        raise UsageError(f"cannot write to '{folder}' ({error.strerror}): choose another folder") from error
    return [table, page, *([picture] if measured else [])]


def _plot(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw measured over printed results; hollow where the run differs from the config."""
    figure, axes = plt.subplots(figsize=(7, 6), layout='constrained')
    groups = defaultdict(list)
    for c in comparisons:
        groups[c.result.metric.partition(',')[0], bool(c.differences)].append(c)
    values = [value for c in comparisons for value in (float(c.result.printed), fmean(c.values))]
    limits = min(values) - 2, max(values) + 2
    axes.plot(limits, limits, color='grey', linewidth=0.8)
    colours = {kind: f'C{i}' for i, kind in enumerate(dict.fromkeys(kind for kind, _ in groups))}
    for (kind, differs), group in groups.items():
        points = zip(*((float(c.result.printed), fmean(c.values), c.spread or 0) for c in group), strict=True)
        style = dict(fmt='o', color=colours[kind], fillstyle='none' if differs else 'full')
        axes.errorbar(*points, label=kind + ' (run differs from the config)' * differs, **style)
    axes.set(xlabel='paper (%)', ylabel='measured here (%)', xlim=limits, ylim=limits)
    axes.legend()
    axes.grid(alpha=0.3)
    with written(path) as draft:
        figure.savefig(draft, dpi=120)
    plt.close(figure)


def _path(config: str) -> str:
    """How a command names a file of ours."""
    return config if resource_root() == Path.cwd() else f'{resource_root()}/{config}'


def _launch(tool: str, config: str, gpus: int, *checkpoint: str) -> str:
    """The command that runs a tool on some GPUs, several machines if it takes them."""
    machines = math.ceil(gpus / GPUS_PER_MACHINE)
    prefix = f'NNODES={machines} NODE_RANK=$RANK MASTER_ADDR=$MASTER PORT=29500 ' if machines > 1 else ''
    arguments = _path(config), *checkpoint, str(min(gpus, GPUS_PER_MACHINE))
    return f'{prefix}{_path("tools")}/dist_{tool}.sh {" ".join(arguments)}'


def _estimate(result: Result, cfg: Config, gpus: int, records: Sequence[Record]) -> str:
    """Device-hours of a training, from measured steps of the same network and batch."""
    batch, schedule = cfg.auto_scale_lr.base_batch_size, cfg.train_cfg
    epoch = math.ceil(TRAINING_IMAGES[_dataset(result)] / batch)
    iterations = schedule.get('max_iters') or schedule.max_epochs * epoch
    ignored = ('train_cfg*', 'param_scheduler*', 'val_*', *TEST_ONLY_KEYS)
    for record in reversed(records):
        slower = (record['changes'] or {}).get('model.backbone.with_cp')
        timed = record.trains and record['step_time'] and record.name == result.name
        if not timed or slower or record.changes(ignored):
            continue
        if record['batch_size'] / record['processes'] == cfg.train_dataloader.batch_size:
            hours = record['step_time'] * iterations * gpus / 3600
            return (
                f'{hours:.0f} device-hours on {record["device"]} ({record["step_time"]:.2f} s an iteration, '
                f'measured in {record.path.parent})'
            )
    steps = f'{_launch("train", result.config, 1)} --work-dir work_dirs/steps/{result.name}'
    return f'GPU-hours unknown: no step was measured; {steps}, stopped after 100 iterations, does'


def commands(
    comparisons: Sequence[Comparison], records: Sequence[Record], work_dirs: str | Path = 'work_dirs'
) -> Iterator[str]:
    """Lines for a shell that obtain what was not measured as its config says: trainings before their tests.

    Args:
        comparisons (Sequence[Comparison]): Result of :func:`compare`.
        records (Sequence[Record]): Records with the times of training steps.
        work_dirs (str | Path): Folder of the work directories. Defaults to ``'work_dirs'``.
    """
    groups = defaultdict(list)
    for comparison in comparisons:
        groups[comparison.result.config].append(comparison)
    for config, group in groups.items():
        exact = [c for c in group if c.values and not c.differences]
        done, trained = [c.result for c in exact], any(c.trained for c in exact)
        missing = [result for result in dict.fromkeys(c.result for c in group) if result not in done]
        if not missing:
            continue
        cfg, folder = _load_shipped(config), Path(work_dirs, Path(config).stem)
        schedule = cfg.train_cfg
        gpus = max(1, cfg.auto_scale_lr.base_batch_size // cfg.train_dataloader.batch_size)
        printed = (f'{result.metric} {result.printed} ({result.source})' for result in missing)
        yield from ('', f'# {folder.name}: {", ".join(printed)}')
        if not trained:
            yield f'# {_estimate(missing[0], cfg, gpus, records)}'
            yield _launch('train', config, gpus) + f' --work-dir {folder}'
        last = f'iter_{schedule.max_iters}' if 'max_iters' in schedule else f'epoch_{schedule.max_epochs}'
        published = name_of_config(folder.name) if 'imagenet/' in config else None
        test = partial(_launch, 'test', config, min(gpus, GPUS_PER_MACHINE))
        lines: dict[str, None] = {}
        for options in map(_test_options, missing):
            if options or trained:
                lines[test(f'{folder / last}.pth') + options] = None
            if published:
                weights = test(f'mmmeta://{published}')
                lines[f'{weights} --work-dir {folder}{options}  # the published weights'] = None
        yield from lines


def _test_options(result: Result) -> str:
    """Options of a test that obtains a result."""
    data = f' --test-data {_path("configs/imagenet/robustness")}/{result.test_data}.py'
    option = f' --cfg-options {shlex.quote(result.option)}'
    return ' --tta' * result.tta + data * bool(result.test_data) + option * bool(result.option)
