"""What happens beside a run."""

import errno
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, TINY_CONFIG
from mmengine.config import Config

from mmmeta.apis.run import _end_without_a_log, _running, _trusted, evaluate, resume_from, train
from mmmeta.apis.run import testing as run_test
from mmmeta.config.inspection import TRAIN_LOADERS
from mmmeta.config.loading import load_config
from mmmeta.config.reading import is_shipped
from mmmeta.engine.records import record_hook
from mmmeta.models import MetaFormer
from mmmeta.utils.errors import UsageError


def test_a_log_that_cannot_be_written_ends_the_run(tmp_path, capsys):
    """Python would go on, and print a traceback for each line."""

    class Full:
        def write(self, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    handler = logging.FileHandler(tmp_path / 'run.log')
    logger = logging.Logger('run')
    logger.addHandler(handler)
    hooks = []
    _end_without_a_log(SimpleNamespace(logger=logger, hooks=hooks))
    logger.info('a line')
    stream, handler.stream = handler.stream, Full()
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/run.log'"):
        logger.info('another line')
    hooks.append(SimpleNamespace(wait_for_room=60))
    logger.info('a line that is left out')
    handler.stream = stream
    # A mistake in a call of the logger is still Python's to report.
    logger.info('%d', 'no number')
    assert 'TypeError: %d format: a real number is required, not str' in capsys.readouterr().err
    handler.close()


@pytest.mark.parametrize(
    ('cfg', 'expected'),
    [
        (dict(load_from=None), ['pretrained.pth']),
        (dict(load_from='named.pth'), ['named.pth']),
        (dict(load_from='named.pth', resume=False), ['named.pth']),
        (dict(load_from='last.pth', resume=True), ['last.pth', 'pretrained.pth']),
    ],
)
def test_what_is_trusted_is_the_checkpoint_that_is_named(cfg, expected):
    assert _trusted(Config(cfg), ['pretrained.pth']) == expected


# In the order in which they are called, those of MMEngine without a scope.
BEFORE = ['MeanLossHook', 'RuntimeInfoHook', 'AgreementHook', 'CompleteWeightsHook', 'IterTimerHook']
BEFORE += ['DistSamplerSeedHook']
TRAINED = [*BEFORE, 'SegVisualizationHook', 'SignOfLifeHook', 'CheckLabelsHook', 'LoggerHook']
TRAINED += ['ParamSchedulerHook', 'DivergenceHook', 'CheckpointHook', 'RunRecordHook', 'StopHook']
ADDED = ['CheckpointHook', 'LoggerHook', 'IterBasedTrainLoop', 'AgreementHook', 'MeanLossHook']
ADDED += [
    'CompleteWeightsHook',
    'DivergenceHook',
    'RunRecordHook',
    'StopHook',
    'SignOfLifeHook',
    'CheckLabelsHook',
]


@pytest.fixture
def start(ade_root, tmp_path):
    """Start a run as tools do, up to its first step; the runner."""
    pytest.importorskip('mmseg', reason='the config is one of MMSegmentation')
    keys = [f'{name}_dataloader.dataset.data_root' for name in ('train', 'val', 'test')]

    def start(kind='train', config=ROOT / TINY_CONFIG, checkpoint=None, checks=True):
        options = dict.fromkeys(keys, str(ade_root))
        options['experiment_name'] = f'{kind}_{tmp_path.name}_{checks}'  # no two in a process
        cfg = load_config(str(config), options, str(tmp_path / 'work'))
        if kind == 'resume':
            resume_from(cfg, checkpoint)
        run = run_test(cfg, checkpoint, False, checks) if kind == 'test' else None
        with run or _running(cfg, TRAIN_LOADERS, False, checks) as runner:
            return runner

    return start


def names(runner):
    return [type(hook).__name__ for hook in runner.hooks]


class TestHooks:
    @pytest.mark.parametrize('kind', ['train', 'resume'])
    def test_of_a_training(self, start, tmp_path, kind):
        checkpoint = tmp_path / 'iter_1.pth'
        checkpoint.touch()
        runner = start(kind, checkpoint=checkpoint)
        assert names(runner) == TRAINED
        (log,) = Path(runner.log_dir).glob('*.log')
        (line,) = [line for line in log.read_text().splitlines() if 'added to this config' in line]
        assert line.endswith(', '.join(f'mmmeta.{name}' for name in ADDED))
        # The config is written with the hooks of the run, of which the next one takes none.
        (written,) = Path(runner.work_dir).glob('*.py')
        again = load_config(str(written))
        assert [hook.type for hook in again.custom_hooks] == [f'mmmeta.{name}' for name in ADDED[3:]]

    def test_of_one_without_checks(self, start):
        assert names(start(checks=False)) == [name for name in TRAINED if name != 'CheckLabelsHook']

    def test_of_a_test(self, start):
        assert names(start('test')) == [name for name in TRAINED if name != 'SignOfLifeHook']

    def test_of_the_config_that_another_run_wrote(self, start, tmp_path):
        (written,) = Path(start().work_dir).glob('*.py')
        shutil.move(written, tmp_path / 'again.py')
        runner = start(config=tmp_path / 'again.py', checks=False)
        assert sorted(names(runner)) == sorted(name for name in TRAINED if name != 'CheckLabelsHook')


def test_a_file_is_read_once_and_a_backbone_built_once(start, monkeypatch):
    """Beside the network itself, without memory."""
    read, built = [], []
    fromfile, init = Config.fromfile, MetaFormer.__init__

    def note_file(path, *args, **kwargs):
        read.append(str(path))
        return fromfile(path, *args, **kwargs)

    def note_device(self, *args, **kwargs):
        built.append(torch.empty(0).device.type)
        init(self, *args, **kwargs)

    monkeypatch.setattr(Config, 'fromfile', staticmethod(note_file))
    monkeypatch.setattr(MetaFormer, '__init__', note_device)
    for checks in (True, False):
        start(checks=checks)
        assert read == [str(ROOT / TINY_CONFIG)]
        assert built == ['meta', 'cpu']
        read.clear(), built.clear()


class TestRecord:
    NAME = 'upernet_caformer_s18_ade20k.py'

    def changes(self, path, **options):
        hook = record_hook(load_config(str(path), options))
        assert hook['config'] == str(path)
        return hook['changes'], hook['is_shipped']

    def test_a_file_with_the_name_of_ours_is_compared_with_itself(self, tmp_path):
        path = tmp_path / self.NAME
        path.write_text(f"_base_ = '{ROOT / TINY_CONFIG}'\n")
        assert self.changes(path) == ({}, False)
        assert self.changes(path, **{'train_cfg.max_iters': 7}) == ({'train_cfg.max_iters': 7}, False)

    def test_ours(self):
        path = ROOT / 'configs' / self.NAME
        assert self.changes(path, **{'randomness.seed': 3}) == ({'randomness.seed': 3}, True)

    def test_a_config_that_was_not_read_from_a_file(self):
        assert record_hook(Config(dict(model={}))) == dict(type='mmmeta.RunRecordHook')

    def test_a_copy_is_ours_until_it_is_changed(self, tmp_path):
        copied, base = tmp_path / self.NAME, tmp_path / '_base_/upernet_ade20k.py'
        shutil.copytree(ROOT / 'configs/_base_', base.parent)
        shutil.copy(ROOT / 'configs' / self.NAME, copied)
        link = tmp_path / 'link.py'
        link.symlink_to(ROOT / 'configs' / self.NAME)
        assert [is_shipped(str(path)) for path in (copied, link)] == [True, True]
        before = base.read_text()
        base.write_text(f'{before}\nmax_iters = 3\n')
        assert not is_shipped(str(copied))
        base.write_text(before)
        copied.write_text(f'{copied.read_text()}\n')
        assert not is_shipped(str(copied))


@pytest.mark.parametrize('kind', [str, Path])
def test_configs_by_their_paths(kind, tmp_path, monkeypatch):
    pytest.importorskip('mmseg', reason='the config is one of MMSegmentation')
    monkeypatch.chdir(tmp_path)  # where there are no data
    path = kind(ROOT / TINY_CONFIG)
    with pytest.raises(UsageError, match='the data of train_dataloader are missing'):
        train(path)
    with pytest.raises(UsageError, match='the data of test_dataloader are missing'):
        evaluate(path, None)
