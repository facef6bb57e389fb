"""Runs and what they measured, from the records that they left."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from mmmeta.engine.records import RECORDS, VERSION
from mmmeta.errors import UsageError

# Patterns of config keys that do not affect the result of a run; batch, scale of the learning rate and number
# of images are recorded separately.
NEUTRAL_KEYS = (
    *('work_dir', 'launcher', 'resume', 'runner_type', 'default_hooks.checkpoint*'),
    *('default_hooks.logger*', 'default_hooks.timer*', 'default_hooks.visualization*', 'visualizer*'),
    *('vis_backends*', 'log_*', 'env_cfg*', 'model_wrapper_cfg*', 'sync_bn', 'find_unused_parameters'),
    *('randomness*', 'auto_scale_lr*', 'custom_imports*', 'train_cfg.type', 'train_cfg.by_epoch'),
    *('train_cfg.val_interval', 'optim_wrapper.optimizer.fused', 'model.backbone.with_cp'),
    *('train_dataloader.batch_size', '*_dataloader.num_workers', '*_dataloader.persistent_workers'),
    *('*_dataloader.pin_memory', '*data_root', '*evaluator.ann_file'),
)
# Those that do not affect a test, a training, or the evaluation within a training.
TRAINING_KEYS = (
    *('train_*', 'val_*', 'optim_wrapper*', 'param_scheduler*', 'custom_hooks*', 'default_hooks*'),
    *('load_from', 'model.train_cfg*', '*.drop_path_rate', '*.init_cfg*'),
)
TEST_KEYS, TEST_ONLY_KEYS = ('test_*', 'tta_*', 'val_*', 'model.test_cfg*'), ('test_*', 'tta_*')


class Record(dict):
    """The content of a record that a run has written, see :class:`~mmmeta.engine.RunRecordHook`.

    Args:
        path (Path): The file.

    Raises:
        UsageError: The file is no record.
    """

    def __init__(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text())
        except ValueError:
            content = None
        if not isinstance(content, dict) or content.get('version') != VERSION:
            raise UsageError(f"'{path}' is no record of a run, or a damaged one: remove it, and run again")
        super().__init__(content)
        self.path = path
        self.work_dir = path.parent.parent.resolve()
        self.name = Path(self['config'] or 'unknown').stem

    def changes(self, ignored: Sequence[str]) -> dict[str, Any]:
        """Changes of the config, but those of keys that are neutral or match the patterns ``ignored``."""
        if self['changes'] is None:
            return {'changes of the config': 'not recorded'}
        patterns = (*NEUTRAL_KEYS, *ignored)
        return {k: v for k, v in self['changes'].items() if not any(fnmatch(k, p) for p in patterns)}


class Run(NamedTuple):
    """A training: its records, the oldest first, of all parts of a run that was resumed."""

    records: tuple[Record, ...]

    @property
    def last(self) -> Record:
        """The newest record."""
        return self.records[-1]

    @property
    def planned(self) -> int:
        """Iterations of the whole run."""
        return self.last['iterations'][1]

    @property
    def evaluation(self) -> Record | None:
        """The newest record with metrics."""
        return next((record for record in reversed(self.records) if record['metrics']), None)


def find_records(folder: str | Path) -> list[Record]:
    """All records below a folder, the oldest first.

    Raises:
        UsageError: There is no such folder, or a record is damaged.
    """
    if not Path(folder).is_dir():
        raise UsageError(f"there is no folder '{folder}': give the one that holds the work directories")
    return sorted(map(Record, Path(folder).rglob(RECORDS)), key=lambda record: record['started'])


def group_runs(records: Iterable[Record]) -> dict[Path, list[Run]]:
    """The trainings of each work directory, the oldest first; its checkpoints are those of the last one.

    Raises:
        UsageError: A work directory holds runs of different configs.
    """
    runs: dict[Path, list[Run]] = defaultdict(list)
    kinds: dict[Path, dict[tuple, Record]] = defaultdict(dict)
    for record in records:
        if record['kind'] == 'train':
            found = runs[record.work_dir]
            earlier = found.pop().records if record['resumed'] and found else ()
            found.append(Run((*earlier, record)))
            changes = json.dumps(record.changes(TEST_KEYS), sort_keys=True, default=str)
            kinds[record.work_dir][record.name, changes] = record
    for folder, found in kinds.items():
        if len(found) > 1:
            first, second = list(found.values())[:2]
            a, b = first.changes(TEST_KEYS), second.changes(TEST_KEYS)
            keys = ', '.join(sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))[:3])
            other = f'with other {keys}' if first.name == second.name else f'and {second.name}'
            raise UsageError(
                f"'{folder}' holds runs of different configs under one name "
                f'({first.name} {other}): it is not known which of them its checkpoints are from; move '
                f'{first.path.parent.name} or {second.path.parent.name} to a folder of its own'
            )
    return runs


def report_incomplete(records: Sequence[Record], runs: dict[Path, list[Run]]) -> Iterator[str]:
    """Trainings without a result, and the reason."""
    tests = [r for r in records if r['kind'] == 'test' and r['finished'] and r['checkpoint']]
    tested = {Path(record['checkpoint']).parent.resolve() for record in tests}
    for folder, found in runs.items():
        run, evaluation = found[-1], found[-1].evaluation
        step = evaluation and evaluation['metrics']['step']
        if not run.last['finished']:
            yield f'{folder}: not finished, {run.last["iterations"][0]} of {run.planned} iterations'
        elif folder not in tested and evaluation is None:
            yield f'{folder}: never evaluated; tools/test.py {run.last["config"]} {folder}/...'
        elif folder not in tested and step != run.planned:
            yield f'{folder}: last evaluated after {step:.0f} of {run.planned} iterations'
