"""The papers' results beside those of runs on this machine, and how each of these was obtained."""

import csv
import math
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from mmengine.config import Config

from mmmeta.errors import UsageError
from mmmeta.resources import resource_root
from mmmeta.weights import is_remote, name_of_config, name_of_location

from .paper_tables import Result
from .runs import OF_TEST_ALONE, OF_TRAINING, Record, Run

# Numbers of training images (for COCO, those with objects) and of test images.
TRAINING_IMAGES = dict(ade20k=20210, coco=117266, imagenet=1281167)
TEST_IMAGES = dict(
    ade20k=2000,
    coco=5000,
    imagenet=50000,
    imagenet_c=75 * 50000,
    imagenet_a=7500,
    imagenet_r=30000,
    imagenet_sketch=50889,
)
GPUS_OF_A_MACHINE = 8


@cache
def _shipped(config: str) -> Config:
    """A config of ours."""
    return Config.fromfile(resource_root() / config)


def _dataset(result: Result) -> str:
    """The data set of a result, a key of ``TRAINING_IMAGES``."""
    return 'imagenet' if 'imagenet/' in result.config else result.name.rpartition('_')[2]


@dataclass(frozen=True)
class Measurement:
    """A number that was measured.

    Attributes:
        result (Result): What was measured.
        value (float): In the unit of the printed one.
        record (Record): Of the run that measured it.
        run (Run | None): The run that trained the network; None if that is not known.
        differences (tuple[str, ...]): Deviations from the config, because of which the number is not
            comparable with the paper's.
    """

    result: Result
    value: float
    record: Record
    run: Run | None
    differences: tuple[str, ...]

    @property
    def how(self) -> str:
        """How it was obtained, in words."""
        source = self.run.last if self.run else self.record
        if self.run is None:
            parts = [f'checkpoint {self.record["checkpoint"]}']
        else:
            devices = f'{source["processes"]} x {source["device"]}'
            parts = [f'seed {source["seed"]}', f'batch {source["batch_size"]} on {devices}']
            parts.append(f'learning rate x{source["lr_scale"]:g}')
        parts.append(f'commit {source["commit"] or "unknown"}')
        versions = source['versions']
        told = ('torch', 'mmengine', 'mmmeta')
        parts.append(', '.join(f'{name} {versions[name]}' for name in told if name in versions))
        return '; '.join(parts)


def _differences_of_training(result: Result, run: Run) -> Iterator[str]:
    """Deviations from the config in the training of a network."""
    cfg = _shipped(result.config)
    base = cfg.auto_scale_lr.base_batch_size
    kinds = {(record['batch_size'], record['lr_scale']) for record in run.records}
    if len(kinds) > 1:
        yield 'resumed with another batch'
    for batch, scale in sorted(kinds):
        if not math.isclose(scale, batch / base):
            yield f'batch of {batch} instead of {base} at {scale:g} times the learning rate'
        elif batch != base and 'max_iters' in cfg.train_cfg:
            yield f'batch of {batch} instead of {base}: {batch / base:.0%} of the images'
    for record in run.records[1:]:
        if record['checkpoint'] and Path(record['checkpoint']).parent.resolve() != record.work_dir:
            yield f'resumed from {record["checkpoint"]}'
    if run.records[0]['resumed']:
        yield 'resumed from a run that is not recorded'
    images, expected = run.last['images'].get('train'), TRAINING_IMAGES[_dataset(result)]
    if '_in21k' not in result.name and images != expected:
        yield f'{images} training images instead of {expected}'
    for key, value in run.changes.items():
        # The same weights have several locations.
        if key in ('load_from', 'model.backbone.init_cfg.checkpoint'):
            ours = cfg.get('load_from') if key == 'load_from' else cfg.model.backbone.init_cfg.checkpoint
            if value and ours and name_of_location(value) == name_of_location(ours) is not None:
                continue
        yield f'{key}={value}'


def _differences_of_test(result: Result, record: Record, run: Run | None) -> Iterator[str]:
    """Deviations from the config in the evaluation of a network."""
    checkpoint, data = record['checkpoint'], result.test_data or _dataset(result)
    images = record['images'].get('test' if record['kind'] == 'test' else 'val')
    if images != TEST_IMAGES[data]:
        yield f'{images} images instead of {TEST_IMAGES[data]}'
    own = dict(result.options)
    # For the evaluation within a training, all other changes are those of the training.
    foreign = OF_TRAINING if record['kind'] == 'test' else (*OF_TEST_ALONE, *run.changes)
    for key, value in record.changes(foreign).items():
        is_pipeline = result.tta and key.startswith('test_dataloader.dataset.pipeline')
        # Classifiers receive images of one size: the batch size makes no difference.
        is_batch = _dataset(result) == 'imagenet' and key.endswith('_dataloader.batch_size')
        if key not in own and not is_pipeline and not is_batch:
            yield f'{key}={value}'
    if record['kind'] == 'train':
        return
    if run:
        seen = record['iterations'][0]
        if seen != run.planned:
            yield f'checkpoint after {seen} of {run.planned} iterations'
    elif checkpoint is None:
        yield 'the network before training'
    elif name_of_location(checkpoint) is None:
        yield 'training not recorded'
    elif name_of_location(checkpoint) != name_of_config(result.name):
        yield f'weights of {name_of_location(checkpoint)}'


@dataclass
class Comparison:
    """A printed result and the runs that measured it in the same setting.

    Attributes:
        result (Result): What is printed.
        measurements (list[Measurement]): One for each run; empty if there is none.
    """

    result: Result
    measurements: list[Measurement]

    @property
    def differences(self) -> tuple[str, ...]:
        """See :class:`Measurement`."""
        return self.measurements[0].differences if self.measurements else ()

    @property
    def mean(self) -> float | None:
        """Mean of the runs."""
        return fmean(m.value for m in self.measurements) if self.measurements else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the runs; None for a single one."""
        return stdev(m.value for m in self.measurements) if len(self.measurements) > 1 else None


def _measurements(
    result: Result, records: Sequence[Record], runs: dict[Path, list[Run]]
) -> Iterator[Measurement]:
    """The newest measurement of a result for each network and setting."""
    newest: dict[Any, Measurement] = {}
    for record in records:
        metrics = record['metrics'] or {}
        if record.name != result.name or result.key not in metrics or not record['finished']:
            continue
        data = record['test_data'] and Path(record['test_data']).stem
        if bool(record['tta']) != result.tta or data != result.test_data:
            continue
        found = runs.get(record.work_dir, [])
        if record['kind'] == 'train':
            run = next(run for run in found if record in run.records)
            network = record.work_dir, run.records[0]['started']
            # Its own evaluation is that of the plain config.
            if result.options or record is not run.evaluation or metrics['step'] != run.planned:
                continue
        else:
            changes, options = record['changes'] or {}, dict(result.options)
            aligned = {key: value for key, value in changes.items() if key.endswith('.size_divisor')}
            if any(changes.get(key) != value for key, value in options.items()):
                continue
            if not options and aligned:
                continue  # a result of its own
            checkpoint = record['checkpoint']
            local = checkpoint and not is_remote(checkpoint)
            found = runs.get(Path(checkpoint).parent.resolve(), []) if local else []
            run = found[-1] if found else None
            network = (run.last.work_dir, run.records[0]['started']) if run else _place(checkpoint)
        differences = dict.fromkeys(_differences_of_training(result, run) if run else ())
        differences.update(dict.fromkeys(_differences_of_test(result, record, run)))
        value = metrics[result.key] * result.scale
        newest[network, tuple(differences)] = Measurement(result, value, record, run, tuple(differences))
    yield from newest.values()


def _place(checkpoint: str | None) -> str | None:
    """Identifier that all locations of the same published weights share."""
    return checkpoint and (name_of_location(checkpoint) or checkpoint)


def compare(
    records: Sequence[Record], runs: dict[Path, list[Run]], results: Iterable[Result]
) -> list[Comparison]:
    """Compare measured with printed results.

    Args:
        records (Sequence[Record]): Records, the oldest first.
        runs (dict[Path, list[Run]]): Result of :func:`~mmmeta.analysis.runs.find_runs`.
        results (Iterable[Result]): PrintedComplexity results.

    Returns:
        list[Comparison]: For each result one per setting in which it was measured, those of the config
        first; an empty one if it was not measured.
    """
    comparisons = []
    for result in results:
        groups = defaultdict(list)
        for measurement in _measurements(result, records, runs):
            groups[measurement.differences].append(measurement)
        ordered = sorted(groups.items(), key=lambda item: len(item[0]))
        comparisons += [Comparison(result, group) for _, group in ordered] or [Comparison(result, [])]
    return comparisons


COLUMNS = (
    'config',
    'metric',
    'source',
    'paper',
    'measured',
    'spread',
    'runs',
    'difference',
    'how',
    'differs',
)


def as_row(comparison: Comparison) -> dict[str, str]:
    """A comparison as text: the columns are ``COLUMNS``, empty where nothing was measured."""
    result, mean, spread = comparison.result, comparison.mean, comparison.spread
    row = dict.fromkeys(COLUMNS, '')
    row.update(config=result.name, metric=result.metric, source=result.source, paper=result.printed)
    if mean is not None:
        row.update(
            measured=f'{mean:.2f}',
            spread='' if spread is None else f'{spread:.2f}',
            runs=str(len(comparison.measurements)),
            difference=f'{mean - float(result.printed):+.2f}',
            how=' | '.join(dict.fromkeys(m.how for m in comparison.measurements)),
            differs='; '.join(comparison.differences),
        )
    return row


def export(comparisons: Sequence[Comparison], folder: str | Path) -> list[Path]:
    """Write comparisons as Markdown, CSV and, where something was measured, a plot.

    Args:
        comparisons (Sequence[Comparison]): What to write.
        folder (str | Path): Target folder; created if missing.

    Returns:
        list[Path]: The files.

    Raises:
        UsageError: The folder cannot be written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rows = [as_row(comparison) for comparison in comparisons]
        with open(folder / 'reproduce.csv', 'w', newline='') as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        lines = [f'| {" | ".join(COLUMNS)} |', f'|{"---|" * len(COLUMNS)}']
        lines += [f'| {" | ".join(cell.replace("|", "/") for cell in row.values())} |' for row in rows]
        (folder / 'reproduce.md').write_text('\n'.join(lines) + '\n')
        written = [folder / 'reproduce.csv', folder / 'reproduce.md']
        if any(comparison.measurements for comparison in comparisons):
            plot(comparisons, folder / 'reproduce.png')
            written.append(folder / 'reproduce.png')
    except OSError as error:
        raise UsageError(f"cannot write to '{folder}' ({error.strerror}): choose another folder") from error
    return written


def plot(comparisons: Iterable[Comparison], path: str | Path) -> None:
    """Draw measured over printed results; hollow where the run deviates from the config."""
    figure, axes = plt.subplots(figsize=(7, 6), layout='constrained')
    kinds, values = defaultdict(list), []
    for comparison in comparisons:
        if comparison.measurements:
            kinds[comparison.result.metric.partition(',')[0]].append(comparison)
            values += [float(comparison.result.printed), comparison.mean]
    low, high = min(values) - 2, max(values) + 2
    axes.plot([low, high], [low, high], color='grey', linewidth=0.8)
    for i, (kind, group) in enumerate(kinds.items()):
        for exact in (True, False):
            points = [c for c in group if bool(c.differences) != exact]
            if not points:
                continue
            axes.errorbar(
                [float(c.result.printed) for c in points],
                [c.mean for c in points],
                [c.spread or 0 for c in points],
                fmt='o',
                color=f'C{i}',
                fillstyle='full' if exact else 'none',
                label=f'{kind}' + ('' if exact else ' (run differs from the config)'),
            )
    axes.set(xlabel='paper (%)', ylabel='measured here (%)', xlim=(low, high), ylim=(low, high))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _here(path: str) -> str:
    """Path of a file of ours, as it is typed in the working directory."""
    root = resource_root()
    return path if root == Path.cwd() else f'{root}/{path}'


def _launch(tool: str, config: str, gpus: int, checkpoint: str | None = None) -> str:
    """The command that runs a tool on some GPUs, on several machines if necessary."""
    machines = math.ceil(gpus / GPUS_OF_A_MACHINE)
    prefix = f'NNODES={machines} NODE_RANK=$RANK MASTER_ADDR=$MASTER PORT=29500 ' if machines > 1 else ''
    arguments = filter(None, (_here(config), checkpoint, str(min(gpus, GPUS_OF_A_MACHINE))))
    return f'{prefix}{_here(f"tools/dist_{tool}.sh")} {" ".join(arguments)}'


def _plan(result: Result, cfg: Config) -> tuple[int, int | None, str]:
    """GPUs that a config is for, iterations, and the checkpoint that it ends with."""
    batch = cfg.auto_scale_lr.base_batch_size
    gpus, schedule = max(1, batch // cfg.train_dataloader.batch_size), cfg.train_cfg
    if 'max_iters' in schedule:
        return gpus, schedule.max_iters, f'iter_{schedule.max_iters}.pth'
    iterations = schedule.max_epochs * math.ceil(TRAINING_IMAGES[_dataset(result)] / batch)
    return gpus, iterations, f'epoch_{schedule.max_epochs}.pth'


def _estimate(result: Result, cfg: Config, records: Iterable[Record]) -> str:
    """Device-hours of a training, from measured steps of the same network and batch."""
    gpus, iterations, _ = _plan(result, cfg)
    schedule = ('train_cfg*', 'param_scheduler*', 'val_*', *OF_TEST_ALONE)
    for record in reversed(list(records)):
        if record['kind'] != 'train' or not record['step_time'] or record.name != result.name:
            continue
        per_process = record['batch_size'] / record['processes']
        slower = (record['changes'] or {}).get('model.backbone.with_cp')
        if record.changes(schedule) or slower or per_process != cfg.train_dataloader.batch_size:
            continue
        hours = record['step_time'] * iterations * gpus / 3600
        return (
            f'{hours:.0f} device-hours on {record["device"]} ({record["step_time"]:.2f} s an iteration, '
            f'measured in {record.path.parent})'
        )
    steps = f'{_launch("train", result.config, 1)} --work-dir work_dirs/steps/{result.name}'
    return f'GPU-hours unknown: no step was measured; {steps}, stopped after 100 iterations, measures it'


def commands(
    comparisons: Sequence[Comparison],
    records: Sequence[Record],
    load: Callable[[str], Config],
    work_dirs: str | Path = 'work_dirs',
) -> Iterator[str]:
    """The commands for what was not measured as its config says.

    Args:
        comparisons (Sequence[Comparison]): What :func:`compare` returns.
        records (Sequence[Record]): Records of which the times of training steps are taken.
        load (callable): Reads a config of ours.
        work_dirs (str | Path): Folder of the runs. Defaults to ``'work_dirs'``.

    Yields:
        str: Lines for a shell; the training of a config before its tests.
    """
    by_config = defaultdict(list)
    for comparison in comparisons:
        by_config[comparison.result.config].append(comparison)
    for config, group in by_config.items():
        exact = [m for c in group if not c.differences for m in c.measurements]
        done = {m.result for m in exact}
        missing = [result for result in dict.fromkeys(c.result for c in group) if result not in done]
        if missing:
            yield ''
            printed = (f'{result.metric} {result.printed} ({result.source})' for result in missing)
            yield f'# {Path(config).stem}: {", ".join(printed)}'
            trained = any(m.run for m in exact)
            yield from dict.fromkeys(_commands_of(missing, trained, records, load(config), Path(work_dirs)))


def _commands_of(
    missing: Sequence[Result], trained: bool, records: Sequence[Record], cfg: Config, work_dirs: Path
) -> Iterator[str]:
    """The commands for some results of a config."""
    first = missing[0]
    gpus, _, last = _plan(first, cfg)
    folder = work_dirs / first.name
    if not trained:
        yield f'# {_estimate(first, cfg, records)}'
        yield _launch('train', first.config, gpus) + f' --work-dir {folder}'
    published = name_of_config(first.name)
    for result in missing:
        more = ' --tta' if result.tta else ''
        if result.test_data:
            more += f' --test-data {_here(f"configs/imagenet/robustness/{result.test_data}.py")}'
        if result.options:
            pairs = (shlex.quote(f'{key}={value}') for key, value in result.options)
            more += f' --cfg-options {" ".join(pairs)}'
        processes = min(gpus, GPUS_OF_A_MACHINE)
        if more or trained:
            yield _launch('test', first.config, processes, str(folder / last)) + more
        if published and _dataset(first) == 'imagenet':
            line = _launch('test', first.config, processes, f'mmmeta://{published}')
            yield f'{line} --work-dir {folder}{more}  # the published weights'
