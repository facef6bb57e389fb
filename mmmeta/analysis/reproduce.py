"""The papers' results beside those of runs on this machine, and how each of these was obtained."""

import csv
import json
import math
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from mmengine.config import Config

from mmmeta.engine.records import RECORD
from mmmeta.errors import UsageError
from mmmeta.weights import ZOO, is_remote

from .paper_tables import config_of, is_ours, load_paper_table

# Leaves of a config that change where and how a run goes, but not what comes of it; total batch and scale of
# the learning rate are reported by themselves.
NEUTRAL = (
    'work_dir',
    'launcher',
    'resume',
    'load_from',
    'custom_hooks*',
    'default_hooks*',
    'visualizer*',
    'vis_backends*',
    'log_*',
    'env_cfg*',
    'model_wrapper_cfg*',
    'sync_bn',
    'randomness*',
    'auto_scale_lr*',
    'custom_imports*',
    'train_cfg.type',
    'train_cfg.by_epoch',
    'optim_wrapper.optimizer.fused',
    'model.backbone.with_cp',
    'model.backbone.init_cfg.checkpoint',
    '*_dataloader.num_workers',
    '*_dataloader.persistent_workers',
    '*_dataloader.pin_memory',
    '*_dataloader.batch_size',
    '*data_root',
    '*evaluator.ann_file',
)
# Only a training depends on these, only a test on those.
OF_TRAINING = (
    'train_*',
    'optim_wrapper*',
    'param_scheduler*',
    'val_*',
    'model.train_cfg*',
    '*.drop_path_rate',
)
OF_TEST = ('test_*', 'tta_*', 'val_*', 'model.test_cfg*')
# Training images: of ADE20K, of COCO's train2017 those with objects, of ImageNet-1K.
TRAINING_IMAGES = dict(ADE20KDataset=20210, CocoDataset=117266, ImageNet=1281167)
GPUS_OF_A_MACHINE = 8


@dataclass(frozen=True)
class Result:
    """A result that a paper prints.

    Attributes:
        source (str): Where it is printed.
        config (str): The config that obtains it, relative to the repository.
        metric (str): What is measured.
        key (str): Name of the metric in a record.
        printed (str): The number as printed, in percent.
        scale (float): What a record's number is multiplied with. Defaults to 1.0.
        tta (bool): Whether scales and flips are averaged. Defaults to False.
        test_data (str | None): Name of the config of other test data. Defaults to None.
        options (tuple): Keys and values of the config that the test changes. Defaults to ().
    """

    source: str
    config: str
    metric: str
    key: str
    printed: str
    scale: float = 1.0
    tta: bool = False
    test_data: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Name of the config."""
        return Path(self.config).stem


def _segmentation_results() -> Iterator[Result]:
    # The configs align test images to multiples of 32; the zoo has results without as well.
    plain = (('test_dataloader.dataset.pipeline.2.size_divisor', 1),)
    plain_tta = (('tta_pipeline.1.transforms.1.0.size_divisor', 1),)
    for row in load_paper_table('ade20k'):
        if not is_ours(row['backbone']):
            continue
        zoo = 'zoo' in row['source']
        columns = (
            ('miou', 'mIoU, not aligned' if zoo else 'mIoU', False, plain if zoo else ()),
            ('miou_ms_flip', 'mIoU, ms+flip, not aligned', True, plain_tta),
            ('miou_star', 'mIoU*', False, ()),
            ('miou_star_ms_flip', 'mIoU*, ms+flip', True, ()),
        )
        for column, metric, tta, options in columns:
            if row[column]:
                config = config_of('ade20k', row)
                yield Result(row['source'], config, metric, 'mIoU', row[column], tta=tta, options=options)


def _detection_results() -> Iterator[Result]:
    for row in load_paper_table('coco'):
        if not is_ours(row['backbone']):
            continue
        for column in ('ap_box', 'ap50_box', 'ap75_box', 'ap_mask', 'ap50_mask', 'ap75_mask'):
            if row[column]:
                level, _, kind = column.partition('_')
                threshold = f'_{level[2:]}' if level != 'ap' else ''
                key = f'coco/{dict(box="bbox", mask="segm")[kind]}_mAP{threshold}'
                metric = f'{level.upper()} {kind}'
                yield Result(row['source'], config_of('coco', row), metric, key, row[column], scale=100.0)


def _classification_results() -> Iterator[Result]:
    columns = dict(
        top1_224='_in1k', top1_384='_384_in1k', top1_224_in21k='_in21ft1k', top1_384_in21k='_384_in21ft1k'
    )
    for row in load_paper_table('imagenet'):
        for column, suffix in columns.items():
            if row[column]:
                config = f'configs/imagenet/{row["model"]}{suffix}.py'
                yield Result(row['source'], config, 'top-1', 'accuracy/top1', row[column])
    metrics = dict(
        mce=('mCE, ImageNet-C', 'imagenet-c/mCE', 'imagenet_c'),
        imagenet_a=('top-1, ImageNet-A', 'accuracy/top1', 'imagenet_a'),
        imagenet_r=('top-1, ImageNet-R', 'accuracy/top1', 'imagenet_r'),
        imagenet_sketch=('top-1, ImageNet-Sketch', 'accuracy/top1', 'imagenet_sketch'),
    )
    for row in load_paper_table('robustness'):
        for column, (metric, key, data) in metrics.items():
            config = config_of('imagenet', row)
            yield Result(row['source'], config, metric, key, row[column], test_data=data)


def printed_results() -> list[Result]:
    """Every result that the papers and MMSegmentation's zoo print of models that are ours."""
    return [*_segmentation_results(), *_detection_results(), *_classification_results()]


@dataclass(frozen=True)
class Record:
    """A record that a run has written, see :class:`~mmmeta.engine.RunRecordHook`.

    Attributes:
        path (Path): Where it lies.
        content (dict): What is in it.
    """

    path: Path
    content: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    @property
    def work_dir(self) -> Path:
        """Work directory of the run."""
        return self.path.parent.parent

    @property
    def name(self) -> str:
        """Name of the config."""
        return Path(self['config'] or 'unknown').stem

    @cached_property
    def differences(self) -> dict[str, Any]:
        """What of the config was changed and may change the result."""
        changes = self['changes']
        if changes is None:
            return {'changes of the config': 'not recorded'}
        foreign = OF_TEST if self['kind'] == 'train' else OF_TRAINING
        kept = {
            key: value
            for key, value in changes.items()
            if not any(fnmatch(key, pattern) for pattern in (*NEUTRAL, *foreign))
        }
        if self['tta']:  # the pipeline of the data is that of the augmentation
            kept = {k: v for k, v in kept.items() if not k.startswith('test_dataloader.dataset.pipeline')}
        return kept


KEYS = [
    'kind',
    'config',
    'changes',
    'tta',
    'test_data',
    'checkpoint',
    'resumed',
    'seed',
    'processes',
    'batch_size',
    'lr_scale',
    'device',
    'commit',
    'versions',
    'started',
    'iterations',
    'step_time',
    'finished',
    'metrics',
]


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        UsageError: It is none.
    """
    try:
        content = json.loads(path.read_text())
    except ValueError:
        content = None
    if not isinstance(content, dict) or any(key not in content for key in KEYS):
        raise UsageError(f"'{path}' is no record of a run, or a damaged one: remove it, and run again")
    return Record(path, content)


def find_records(folder: str | Path) -> list[Record]:
    """All records below a folder, the oldest first.

    Raises:
        UsageError: There is no such folder, or a record is damaged.
    """
    if not Path(folder).is_dir():
        raise UsageError(f"there is no folder '{folder}': give the one that holds the work directories")
    records = [read_record(path) for path in Path(folder).rglob(RECORD)]
    return sorted(records, key=lambda record: record['started'])


def find_training(work_dir: Path, records: Iterable[Record]) -> Record | None:
    """The training whose checkpoints a work directory holds: the newest of its records.

    Args:
        work_dir (Path): The work directory.
        records (Iterable[Record]): Records, the oldest first.

    Returns:
        Record | None: None if there is none.

    Raises:
        UsageError: There are several, of different configs.
    """
    trainings = [r for r in records if r['kind'] == 'train' and r.work_dir.resolve() == work_dir.resolve()]
    kinds = {(r.name, json.dumps(r.differences, sort_keys=True, default=str)): r for r in trainings}
    if len(kinds) > 1:
        first, second = list(kinds.values())[:2]
        keys = sorted(
            k
            for k in first.differences.keys() | second.differences.keys()
            if first.differences.get(k) != second.differences.get(k)
        )
        what = f'{first.name} and {second.name}' if first.name != second.name else f'{first.name}'
        what += f' with other {", ".join(keys[:3])}' if keys else ''
        raise UsageError(
            f"'{work_dir}' holds runs of different configs under one name ({what}): it is not known which of "
            f'them its checkpoints are from; move {first.path.parent.name} or {second.path.parent.name} to a '
            'folder of its own'
        )
    return trainings[-1] if trainings else None


@dataclass(frozen=True)
class Measurement:
    """A number that was measured.

    Attributes:
        result (Result): What was measured.
        value (float): In the unit of the printed one.
        record (Record): Of the run that measured it.
        training (Record | None): Of the run that trained the network; None if that is not known.
    """

    result: Result
    value: float
    record: Record
    training: Record | None

    @cached_property
    def differences(self) -> tuple[str, ...]:
        """What is not as in the config, so that the number is not one that the paper's is compared with."""
        found = dict(self.training.differences) if self.training else {}
        checkpoint = self.record['checkpoint']
        notes = []
        if self.record['kind'] == 'test':
            found.update(self.record.differences)
            if self.training:
                seen, planned = self.record['iterations'][0], self.training['iterations'][1]
                if seen != planned:
                    notes.append(f'checkpoint after {seen} of {planned} iterations')
            elif checkpoint is None:
                notes.append('the network before training')
            elif not is_remote(checkpoint):
                notes.append('training not recorded')
        training = self.training
        if training:
            base = _config(training['config']).get('auto_scale_lr', {}).get('base_batch_size')
            expected = training['batch_size'] / base if base else 1.0
            if not math.isclose(training['lr_scale'], expected):
                notes.append(
                    f'batch of {training["batch_size"]} instead of {base} at {training["lr_scale"]:g} times '
                    'the learning rate'
                )
        own = dict(self.result.options)
        return (*notes, *(f'{key}={value}' for key, value in found.items() if key not in own))

    @property
    def how(self) -> str:
        """How it was obtained, in words."""
        source = self.training or self.record
        versions = source['versions']
        parts = (
            [f'checkpoint {self.record["checkpoint"]}'] if not self.training else [f'seed {source["seed"]}']
        )
        if self.training:
            parts.append(f'batch {source["batch_size"]} on {source["processes"]} x {source["device"]}')
            parts.append(f'learning rate x{source["lr_scale"]:g}')
        parts.append(f'commit {source["commit"] or "unknown"}')
        parts.append(
            ', '.join(f'{n} {versions[n]}' for n in ('torch', 'mmengine', 'mmmeta') if n in versions)
        )
        return '; '.join(parts)


_configs: dict[str, Config] = {}


def _config(path: str) -> Config:
    """A config, read once; an empty one if it is gone."""
    if path not in _configs:
        _configs[path] = Config.fromfile(path) if path and Path(path).is_file() else Config()
    return _configs[path]


@dataclass
class Comparison:
    """A printed result and the runs that measured it in one way.

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
    result: Result, records: Sequence[Record], trainings: Mapping[Path, Record]
) -> Iterator[Measurement]:
    """What records have measured of a result; of each run the newest."""
    newest: dict[Any, Measurement] = {}
    for record in records:
        metrics = record['metrics'] or {}
        if record.name != result.name or result.key not in metrics or not record['finished']:
            continue
        data = record['test_data'] and Path(record['test_data']).stem
        changes = record['changes'] or {}
        if bool(record['tta']) != result.tta or data != result.test_data:
            continue
        value = metrics[result.key] * result.scale
        if record['kind'] == 'train':
            # The training's own evaluation is that of the plain config.
            if result.options or metrics.get('step') != record['iterations'][1]:
                continue
            newest[record.work_dir.resolve()] = Measurement(result, value, record, record)
            continue
        if any(changes.get(key) != value for key, value in result.options):
            continue
        if not result.options and any('size_divisor' in key for key in changes):
            continue  # a result of its own
        checkpoint = record['checkpoint']
        folder = Path(checkpoint).parent.resolve() if checkpoint and not is_remote(checkpoint) else None
        training = trainings.get(folder)
        newest[folder if training else checkpoint] = Measurement(result, value, record, training)
    yield from newest.values()


def compare(records: Sequence[Record], results: Iterable[Result]) -> list[Comparison]:
    """Put what was measured beside what is printed.

    Args:
        records (Sequence[Record]): Records, the oldest first.
        results (Iterable[Result]): Printed results.

    Returns:
        list[Comparison]: For each result one for each way that it was measured in, those as the config says
        first; an empty one if it was not measured.

    Raises:
        UsageError: A work directory holds runs of different configs.
    """
    folders = {record.work_dir.resolve() for record in records if record['kind'] == 'train'}
    trainings = {folder: find_training(folder, records) for folder in folders}
    comparisons = []
    for result in results:
        groups = defaultdict(list)
        for measurement in _measurements(result, records, trainings):
            groups[measurement.differences].append(measurement)
        ordered = sorted(groups.items(), key=lambda item: len(item[0]))
        comparisons += [Comparison(result, group) for _, group in ordered] or [Comparison(result, [])]
    return comparisons


def tell_incomplete(records: Sequence[Record]) -> list[str]:
    """Trainings that give no number, and why.

    Args:
        records (Sequence[Record]): Records, the oldest first.
    """
    newest = {record.work_dir: record for record in records if record['kind'] == 'train'}
    tested = {
        Path(record['checkpoint']).parent
        for record in records
        if record['kind'] == 'test' and record['finished'] and record['checkpoint']
    }
    lines = []
    for work_dir, record in newest.items():
        done, planned = record['iterations'] or (0, '?')
        if not record['finished']:
            lines.append(f'{work_dir}: not finished, {done} of {planned} iterations')
        elif not record['metrics'] and work_dir.resolve() not in tested:
            lines.append(f'{work_dir}: never evaluated; tools/test.py {record["config"]} {work_dir}/...')
    return lines


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
        folder (str | Path): Where to; it is made.

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
    """Draw measured over printed results; hollow where the run was not as the config says."""
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
            axes.errorbar(
                [float(c.result.printed) for c in points],
                [c.mean for c in points],
                [c.spread or 0 for c in points],
                fmt='o',
                color=f'C{i}',
                fillstyle='full' if exact else 'none',
                label=f'{kind}' + ('' if exact else ' (run differs from the config)'),
            ) if points else None
    axes.set(xlabel='paper (%)', ylabel='measured here (%)', xlim=(low, high), ylim=(low, high))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _launch(tool: str, config: str, gpus: int, checkpoint: str | None = None) -> str:
    """The command that runs a tool on some GPUs, several machines if it takes them."""
    machines = math.ceil(gpus / GPUS_OF_A_MACHINE)
    prefix = f'NNODES={machines} NODE_RANK=$RANK MASTER_ADDR=$MASTER PORT=29500 ' if machines > 1 else ''
    arguments = [config, *([checkpoint] if checkpoint else []), str(min(gpus, GPUS_OF_A_MACHINE))]
    return f'{prefix}tools/dist_{tool}.sh {" ".join(arguments)}'


def _plan(cfg: Config) -> tuple[int, int | None, str]:
    """GPUs that a config is for, iterations, and the checkpoint that it ends with."""
    gpus = max(1, cfg.auto_scale_lr.base_batch_size // cfg.train_dataloader.batch_size)
    schedule = cfg.train_cfg
    if 'max_iters' in schedule:
        return gpus, schedule.max_iters, f'iter_{schedule.max_iters}.pth'
    images = TRAINING_IMAGES.get(cfg.train_dataloader.dataset.type)
    iterations = (
        schedule.max_epochs * math.ceil(images / cfg.auto_scale_lr.base_batch_size) if images else None
    )
    return gpus, iterations, f'epoch_{schedule.max_epochs}.pth'


def _estimate(config: str, cfg: Config, records: Iterable[Record]) -> str:
    """GPU-hours of a training, from measured steps of the same network and batch."""
    gpus, iterations, _ = _plan(cfg)
    for record in reversed(list(records)):
        timed = record['kind'] == 'train' and record['step_time'] and record.name == Path(config).stem
        schedule = ('train_cfg*', 'param_scheduler*')
        other = [k for k in record.differences if not any(fnmatch(k, p) for p in schedule)]
        if (
            not timed
            or other
            or record['batch_size'] != record['processes'] * cfg.train_dataloader.batch_size
        ):
            continue
        if iterations:
            hours = record['step_time'] * iterations * gpus / 3600
            return (
                f'{hours:.0f} device-hours on {record["device"]} ({record["step_time"]:.2f} s an iteration, '
                f'measured in {record.path.parent})'
            )
    steps = f'{_launch("train", config, 1)} --work-dir work_dirs/steps/{Path(config).stem}'
    return f'GPU-hours unknown: no step was measured; {steps}, stopped after 100 iterations, does'


def commands(comparisons: Sequence[Comparison], records: Sequence[Record], root: Path) -> Iterator[str]:
    """The commands for what was not measured as its config says.

    Args:
        comparisons (Sequence[Comparison]): What :func:`compare` returns.
        records (Sequence[Record]): Records of which the times of training steps are taken.
        root (Path): Folder of ``configs/``.

    Yields:
        str: Lines for a shell; the training of a config before its tests.
    """
    by_config = defaultdict(list)
    for comparison in comparisons:
        by_config[comparison.result.config].append(comparison)
    for config, group in by_config.items():
        done = {c.result for c in group if c.measurements and not c.differences}
        missing = [result for result in dict.fromkeys(c.result for c in group) if result not in done]
        if missing:
            yield ''
            printed = (f'{result.metric} {result.printed} ({result.source})' for result in missing)
            yield f'# {Path(config).stem}: {", ".join(printed)}'
            yield from dict.fromkeys(_commands_of(config, missing, bool(done), records, root))


def _commands_of(
    config: str, missing: Sequence[Result], is_trained: bool, records: Sequence[Record], root: Path
) -> Iterator[str]:
    """The commands for some results of a config."""
    cfg = _config(str(root / config))
    gpus, _, last = _plan(cfg)
    name = Path(config).stem
    if not is_trained:
        yield f'# {_estimate(config, cfg, records)}'
        yield _launch('train', config, gpus)
    published = name.removesuffix('_in1k')
    if published in ZOO:
        yield '# or the published weights:'
        yield _launch('test', config, GPUS_OF_A_MACHINE, f'mmmeta://{published}')
    for result in missing:
        more = ' --tta' if result.tta else ''
        if result.test_data:
            more += f' --test-data configs/imagenet/robustness/{result.test_data}.py'
        if result.options:
            more += (
                f' --cfg-options {" ".join(shlex.quote(f"{key}={value}") for key, value in result.options)}'
            )
        if more:
            processes = min(gpus, GPUS_OF_A_MACHINE)
            yield _launch('test', config, processes, f'work_dirs/{name}/{last}') + more
