"""Runs and their metrics, read from their records."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mmmeta.engine.records import RECORDS
from mmmeta.errors import UsageError

# Config keys that affect where and how a run is executed, but not its result. Batch, scale of the
# learning rate and number of images are recorded separately.
NEUTRAL = (
    'work_dir',
    'launcher',
    'resume',
    'default_hooks.checkpoint*',
    'default_hooks.logger*',
    'default_hooks.visualization*',
    'default_hooks.timer*',
    'visualizer*',
    'vis_backends*',
    'log_*',
    'env_cfg*',
    'model_wrapper_cfg*',
    'sync_bn',
    'find_unused_parameters',
    'randomness*',
    'auto_scale_lr*',
    'custom_imports*',
    'train_cfg.type',
    'train_cfg.by_epoch',
    'train_cfg.val_interval',
    'optim_wrapper.optimizer.fused',
    'model.backbone.with_cp',
    'train_dataloader.batch_size',
    '*_dataloader.num_workers',
    '*_dataloader.persistent_workers',
    '*_dataloader.pin_memory',
    '*data_root',
    '*evaluator.ann_file',
)
# Config keys that do not affect a test, a training, or the evaluation within a training.
OF_TRAINING = (
    'train_*',
    'val_*',
    'optim_wrapper*',
    'param_scheduler*',
    'custom_hooks*',
    'default_hooks*',
    'load_from',
    'model.train_cfg*',
    '*.drop_path_rate',
    '*.init_cfg*',
)
OF_TEST = ('test_*', 'tta_*', 'val_*', 'model.test_cfg*')
OF_TEST_ALONE = ('test_*', 'tta_*')
KEYS = (
    *('kind', 'config', 'changes', 'tta', 'test_data', 'checkpoint', 'resumed', 'seed', 'processes'),
    *('batch_size', 'lr_scale', 'images', 'device', 'commit', 'versions', 'started', 'iterations'),
    *('step_time', 'finished', 'metrics'),
)


@dataclass(frozen=True)
class Record:
    """A record that a run has written, see :class:`~mmmeta.engine.RunRecordHook`.

    Attributes:
        path (Path): The file.
        content (dict): What is in it.
    """

    path: Path
    content: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    @property
    def work_dir(self) -> Path:
        """Work directory of the run."""
        return self.path.parent.parent.resolve()

    @property
    def name(self) -> str:
        """Name of the config."""
        return Path(self['config'] or 'unknown').stem

    def changes(self, foreign: Sequence[str]) -> dict[str, Any]:
        """Changes of the config that may affect the result.

        Args:
            foreign (Sequence[str]): Patterns of keys that do not matter.
        """
        if self['changes'] is None:
            return {'changes of the config': 'not recorded'}
        return {
            key: value
            for key, value in self['changes'].items()
            if not any(fnmatch(key, pattern) for pattern in (*NEUTRAL, *foreign))
        }


@dataclass(frozen=True)
class Run:
    """A training run: its records, including those of resumed parts.

    Attributes:
        records (tuple[Record, ...]): The oldest first.
    """

    records: tuple[Record, ...]

    @property
    def last(self) -> Record:
        """The newest record."""
        return self.records[-1]

    @property
    def changes(self) -> dict[str, Any]:
        """Changes of the config that may affect the network."""
        return self.last.changes(OF_TEST)

    @property
    def planned(self) -> int:
        """Planned number of iterations."""
        return self.last['iterations'][1]

    @property
    def evaluation(self) -> Record | None:
        """The newest record with metrics."""
        return next((record for record in reversed(self.records) if record['metrics']), None)


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
    records = [read_record(path) for path in Path(folder).rglob(RECORDS)]
    return sorted(records, key=lambda record: record['started'])


def group_runs(records: Iterable[Record]) -> dict[Path, list[Run]]:
    """The trainings of each work directory, the oldest first; the checkpoints are those of the last.

    Args:
        records (Iterable[Record]): Records, the oldest first.

    Raises:
        UsageError: A work directory holds runs of different configs.
    """
    chains: dict[Path, list[list[Record]]] = defaultdict(list)
    for record in records:
        if record['kind'] == 'train':
            found = chains[record.work_dir]
            if record['resumed'] and found:
                found[-1].append(record)
            else:
                found.append([record])
    runs = {folder: [Run(tuple(chain)) for chain in found] for folder, found in chains.items()}
    for folder, found in runs.items():
        _check_same_config(folder, [Run((record,)) for run in found for record in run.records])
    return runs


def _check_same_config(folder: Path, runs: Sequence[Run]) -> None:
    """Reject a folder whose checkpoints may be from runs of different configs."""
    kinds = {(run.last.name, json.dumps(run.changes, sort_keys=True, default=str)): run for run in runs}
    if len(kinds) == 1:
        return
    first, second = list(kinds.values())[:2]
    a, b = first.changes, second.changes
    keys = ', '.join(sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))[:3])
    names = dict.fromkeys((first.last.name, second.last.name))
    what = ' and '.join(names) + (f' with other {keys}' if len(names) == 1 else '')
    raise UsageError(
        f"'{folder}' holds runs of different configs under one name ({what}): it is not known which of them "
        f'its checkpoints are from; move {first.last.path.parent.name} or {second.last.path.parent.name} to '
        'a folder of its own'
    )


def report_incomplete(records: Sequence[Record], runs: dict[Path, list[Run]]) -> list[str]:
    """Report the trainings without a result, and the reason.

    Args:
        records (Sequence[Record]): Records, the oldest first.
        runs (dict[Path, list[Run]]): What :func:`group_runs` makes of them.
    """
    tested = {
        Path(record['checkpoint']).parent.resolve()
        for record in records
        if record['kind'] == 'test' and record['finished'] and record['checkpoint']
    }
    lines = []
    for folder, found in runs.items():
        run, done = found[-1], found[-1].last['iterations'][0]
        evaluation = run.evaluation
        if not run.last['finished']:
            lines.append(f'{folder}: not finished, {done} of {run.planned} iterations')
        elif evaluation is None and folder not in tested:
            lines.append(f'{folder}: never evaluated; tools/test.py {run.last["config"]} {folder}/...')
        elif evaluation is not None and evaluation['metrics']['step'] != run.planned and folder not in tested:
            step = evaluation['metrics']['step']
            lines.append(f'{folder}: last evaluated after {step:.0f} of {run.planned} iterations')
    return lines
