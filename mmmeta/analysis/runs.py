"""Runs and what they measured, from the records that they left."""

import json
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mmmeta.engine.records import RECORDS, VERSION
from mmmeta.utils.errors import UsageError
from mmmeta.weights import is_remote

# Patterns of config keys that do not affect the result of a run; batch, scale of the learning rate and number
# of images are recorded separately.
NEUTRAL_KEYS = (
    *('work_dir', 'launcher', 'resume', 'runner_type', 'default_hooks.checkpoint*', 'sync_bn', 'log_*'),
    *('default_hooks.logger*', 'default_hooks.timer*', 'default_hooks.visualization*', 'visualizer*'),
    *('vis_backends*', 'env_cfg*', 'model_wrapper_cfg*', 'find_unused_parameters', 'train_cfg.val_interval'),
    *('randomness*', 'auto_scale_lr*', 'custom_imports*', 'train_cfg.type', 'train_cfg.by_epoch'),
    *('optim_wrapper.optimizer.fused', 'model.backbone.with_cp', 'train_dataloader.batch_size', '*data_root'),
    *('*_dataloader.num_workers', '*_dataloader.persistent_workers', '*_dataloader.pin_memory'),
    *('*evaluator.ann_file', 'console'),
)
# Those that do not affect a test, a training, or the evaluation within a training.
TRAINING_KEYS = (
    *('train_*', 'val_*', 'optim_wrapper*', 'param_scheduler*', 'custom_hooks*', 'default_hooks*'),
    *('load_from', 'model.train_cfg*', '*.drop_path_rate', '*.init_cfg*'),
)
TEST_KEYS, TEST_ONLY_KEYS = ('test_*', 'tta_*', 'val_*', 'model.test_cfg*'), ('test_*', 'tta_*')


class Record(dict):
    """The content of a record that a run has written, see :class:`~mmmeta.engine.RunRecordHook`.

    ``run`` has the records of the training of its network, the oldest first: all parts of a run that was
    resumed; nothing if that is not known.

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
        self.run: list[Record] = []

    @property
    def trains(self) -> bool:
        """Whether it is of a training."""
        return self['kind'] == 'train'

    @property
    def evaluation(self) -> 'Record | None':
        """The newest record of its run with metrics."""
        return next((part for part in reversed(self.run) if part['metrics']), None)

    def changes(self, ignored: Sequence[str]) -> dict[str, Any]:
        """Changes of the config, but those of keys that are neutral or match the patterns ``ignored``.

        A file of a user's that has the name of a config of ours is a change: of what it says is not known
        what differs. Records of earlier releases, which lack ``is_shipped``, compared such a file with ours.
        """
        if self['changes'] is None:
            return {'changes of the config': 'not recorded'}
        own = {} if self.get('is_shipped', True) else {'config': self['config']}
        patterns = (*NEUTRAL_KEYS, *ignored)
        changes = {**own, **self['changes']}
        return {k: v for k, v in changes.items() if not any(fnmatch(k, p) for p in patterns)}


def find_records(folder: str | Path, names: Collection[str] | None = None) -> list[Record]:
    """All records below a folder, the oldest first.

    Args:
        folder (str | Path): The folder.
        names (Collection[str] | None): Names of configs: only work directories with a run of one of these.
            Defaults to None: all.

    Raises:
        UsageError: There is no such folder, a record is damaged, or a work directory holds trainings of
            different configs.
    """
    if not Path(folder).is_dir():
        raise UsageError(f"there is no folder '{folder}': give the one that holds the work directories")
    records = sorted(map(Record, Path(folder).rglob(RECORDS)), key=lambda record: record['started'])
    folders = {record.work_dir for record in records if names is None or record.name in names}
    records = [record for record in records if record.work_dir in folders]
    runs: dict[Path, list[Record]] = {}
    for record in records:
        if record.trains:
            earlier = runs.get(record.work_dir, [])
            if earlier:
                _check_one_config(earlier[-1], record)
            record.run = runs[record.work_dir] = earlier if record['resumed'] else []
            record.run.append(record)
    for record in records:
        if not record.trains and record['checkpoint'] and not is_remote(record['checkpoint']):
            # The checkpoints of a work directory are those of its last training.
            record.run = runs.get(Path(record['checkpoint']).parent.resolve(), [])
    return records


def _check_one_config(first: Record, second: Record) -> None:
    """Refuse trainings of different configs in one work directory."""
    a, b = first.changes(TEST_KEYS), second.changes(TEST_KEYS)
    if (first.name, a) != (second.name, b):
        keys = ', '.join(sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))[:3])
        other = f'with other {keys}' if first.name == second.name else f'and {second.name}'
        raise UsageError(
            f"'{first.work_dir}' holds runs of different configs under one name ({first.name} {other}): it "
            f'is not known which of them its checkpoints are from; move {first.path.parent.name} or '
            f'{second.path.parent.name} to a folder of its own'
        )


def report_incomplete(records: Sequence[Record]) -> Iterator[str]:
    """Trainings without a result, and the reason."""
    tests = [r for r in records if not r.trains and r['finished'] and r['checkpoint']]
    tested = {Path(record['checkpoint']).parent.resolve() for record in tests}
    for folder, last in {record.work_dir: record for record in records if record.trains}.items():
        done, planned = last['iterations']
        step = last.evaluation and last.evaluation['metrics']['step']
        if not last['finished']:
            yield f'{folder}: not finished, {done} of {planned} iterations'
        elif folder not in tested and step is None:
            yield f'{folder}: never evaluated; tools/test.py {last["config"]} {folder}/...'
        elif folder not in tested and step != planned:
            yield f'{folder}: last evaluated after {step:.0f} of {planned} iterations'
