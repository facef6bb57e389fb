"""A mistake on a command line is one sentence; see :mod:`cli` for what is tried."""

import errno
import math
import os
import resource
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Tools
from mmengine.config import Config
from mmengine.registry import MODELS

from mmmeta.config.loading import load_config
from mmmeta.config.reading import read_config
from mmmeta.config.values import check_values, merge_options
from mmmeta.utils.atomic import NO_ROOM, WriteError, written
from mmmeta.utils.errors import UsageError
from mmmeta.utils.targets import check_target, check_writable
from mmmeta.weights import write_state_dict

# Of each kind the one that was worst, in a process that has everything loaded.
WORST = (
    r"^browse_dataset: --out-dir 'image.png'$",
    r"^get_flops: 1 is '(weights.pth|binary.py|zero.py|base_of_itself.py)'$",
    r"^(new cls: --val-fraction 'nan'|analyze_logs: --out 'folder')$",
    r"^check: --cfg-options '(foo|train_dataloader.batch_size=-1|optim_wrapper.optimizer.lr=abc)'$",
    r"^convert_weights: 2 is '(image.png/x.pth|/dev/full)'$",
)


def fuzz(*arguments, **variables):
    command = [sys.executable, 'tests/hostile/cli.py', *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=Tools.environment(**variables), capture_output=True, text=True
    )


def test_the_worst_of_each_kind():
    process = fuzz('--only', '|'.join(WORST))
    assert process.returncode == 0, process.stdout + process.stderr
    assert '12 cases, 0 failed' in process.stdout


@pytest.mark.nightly
def test_wrong_uses_of_all_commands():
    process = fuzz()
    assert process.returncode == 0, process.stdout + process.stderr
    assert '300 cases, 0 failed' in process.stdout


def config(folder: Path, text: str) -> str:
    path = folder / 'config.py'
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('x = 1\ny = nothing\n', "config.py' fails in line 2: NameError: name 'nothing' is not defined"),
        ('x = 1\n\ny = dict(\n', "config.py' is not valid Python in line 3: '\\(' was never closed"),
        ("_base_ = './none.py'\n", "there is no config '.*none.py', which '.*config.py' inherits from"),
        ("_base_ = './config.py'\n", "config.py' inherits from itself"),
        ('_base_ = [3]\n', r'config.py\' has _base_=\[3\] in line 1: give a path, or a list of paths'),
        ('import nothing_here\n', "config.py' cannot be read: ModuleNotFoundError: .*nothing_here"),
    ],
)
def test_a_wrong_config_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        read_config(config(tmp_path, text))


def test_bases_that_mmengine_finds_and_reads(tmp_path):
    for name, text in {'b.py': 'b = 1\n', 'c.yaml': 'c: 2\n', 'd.json': '{"d": 3}'}.items():
        (tmp_path / name).write_text(text)
    bases = "_base_ = ['{{ fileDirname }}/b.py', 'c.yaml', './d.json']\nn = {{'$NOTHING_OF_THAT_NAME:4'}}\n"
    cfg = read_config(config(tmp_path, bases))
    assert (cfg.b, cfg.c, cfg.d, cfg.n) == (1, 2, 3, 4)


@pytest.mark.parametrize(('name', 'text'), [('a.json', '{'), ('a.yaml', 'a: [1')])
def test_a_base_of_data_that_is_wrong_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(
        UsageError, match=f"{name}', which '.*config.py' inherits from is not valid {name[2:]}"
    ):
        read_config(config(tmp_path, f"_base_ = '{name}'\n"))


def test_an_error_inside_a_module_of_the_user_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / 'broken_module.py').write_text('def scale():\n    return 1 / 0\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        read_config(config(tmp_path, "x = __import__('broken_module').scale()\n"))


CONFIG = dict(
    default_scope='mmengine',
    model=dict(type='M', backbone=dict(type='B', drop_path_rate=0.1)),
    train_dataloader=dict(batch_size=2, num_workers=0, dataset=dict(type='D', pipeline=[dict(type='P')])),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
)


CROPS = [dict(type='RandomCrop', crop_type='relative_range', crop_size=(0.3, 0.7))]
RIGHT_VALUES = [
    ('train_dataloader.dataset.pipeline', CROPS),
    ('train_dataloader.dataset.pipeline', [dict(type='Resize', scale=(1333, math.inf))]),
    ('train_dataloader.dataset.pipeline', [dict(type='Resize', scale=(-1, 800))]),
    ('train_dataloader.dataset.pipeline', [dict(type='mmpretrain.RandomResizedCrop', scale=(0.08, 1.0))]),
    ('train_dataloader.dataset.pipeline', [dict(type='TransformOfAUser', scale=0)]),
    ('train_dataloader.dataset.data_root', ['a', 'b']),
    ('val_dataloader', [dict(dataset=dict(type='D')), dict(dataset=dict(type='D'))]),
    ('val_evaluator', dict(metrics=[dict(type='M')])),
    ('val_evaluator', [[dict(type='M')], [dict(type='M')]]),
    ('param_scheduler', dict(generator=[dict(type='LinearLR', start_factor=0.1)])),
    ('param_scheduler', [dict(type='SchedulerOfAUser', start_factor=10, begin=0.5, end=math.inf)]),
    ('optim_wrapper.optimizer.lr', None),
    ('optim_wrapper.clip_grad', dict(max_norm=math.inf)),
    ('train_cfg', dict(max_iters=4e4, val_interval=math.inf)),
    ('default_hooks', dict(checkpoint=dict(type='CheckpointHook', interval=1e3, max_keep_ckpts=0))),
    ('model.data_preprocessor', dict(mean=(0, 0, 0))),
    ('model.backbone', dict(type='B', init_cfg=dict(checkpoint='file.pth'))),
    ('model.backbone.drop_path_rate', [0.0, 0.1]),
    ('model.decode_head', dict(type='H', num_classes=[3, 4])),
    ('data_root', dict(train='a')),
    ('compile', dict(_delete_=True, mode='default')),
    ('compile', 'yes'),
]


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('train_dataloader.batch_size', -1, 'train_dataloader.batch_size=-1: give an integer of at least 1'),
        ('train_dataloader.batch_size', 1.5, 'give an integer of at least 1'),
        ('optim_wrapper.optimizer.lr', 'abc', 'lr=abc: give a finite number of at least 0'),
        ('optim_wrapper.optimizer.lr', float('nan'), 'lr=nan: give a finite number of at least 0'),
        ('train_dataloader', 3, 'train_dataloader=3: give a value like that of the config'),
        ('train_dataloader.dataset.pipeline', 'abc', 'pipeline=abc: give a value like'),
        (
            'model.backbone.drop_path_rate',
            2,
            'drop_path_rate=2: give a finite number of at least 0 and at most 1',
        ),
        ('model..x', 1, 'has an empty part in its key'),
        ('default_scope', 'nothing_here', "default_scope='nothing_here': there is no package of that name"),
        ('default_scope', 'a.b', "default_scope='a.b': there is no package of that name"),
        ('load_from', 3, 'load_from=3: give a text or a path'),
        ('train_cfg', dict(max_iters=1.5), 'train_cfg.max_iters=1.5: give an integer of at least 1'),
        (
            'model.data_preprocessor',
            dict(mean=(1, 2), std=(1, 2, 3)),
            'data_preprocessor has 2 numbers as mean and 3 as std: give as many',
        ),
        ('randomness', dict(seeds=1), 'randomness has no seeds: give seed, diff_rank_seed, deterministic'),
        ('train_dataloader.batch_size', 10**400, 'give an integer of at least 1'),
        ('optim_wrapper.optimizer.lr', 10**400, 'give a finite number of at least 0'),
        ('optim_wrapper.optimizer.lr', float('inf'), 'lr=inf: give a finite number of at least 0'),
        (
            'train_dataloader.dataset.pipeline.0',
            dict(type='Resize', scale=(0, 8)),
            r'scale.0=0: give a finite',
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_key(key, value, message):
    cfg = Config(CONFIG)
    check_values(cfg)

    def set_and_check():
        merge_options(cfg, {key: value})
        check_values(cfg)

    with pytest.raises(UsageError, match=message.replace('.', r'\.')):
        set_and_check()


def test_a_mode_of_testing_that_does_not_exist():
    cfg = Config(dict(CONFIG, default_scope='mmseg', model=dict(type='M', test_cfg=dict(mode='x'))))
    with pytest.raises(UsageError, match='model.test_cfg.mode=x: give one of whole, slide, slide_flip'):
        check_values(cfg)
    cfg.model.test_cfg = [dict(mode='x')]  # of a model of the user's
    check_values(cfg)


def test_right_values_are_accepted():
    """What classes of the packages and of users take."""
    for key, value in RIGHT_VALUES:
        cfg = Config(dict(CONFIG, compile=False))
        merge_options(cfg, {key: value})
        check_values(cfg)
        assert cfg.get(key, None) in (None, value)


def test_right_options_are_accepted():
    """Values of another kind than what they replace, which what they are for takes as well."""
    old = dict(output_norm=False, window=7, priority=49, class_weight=[1.0, 2.0], arch=dict(dims=(1, 2)))
    old.update(
        lr=0.1, in_channels=[1, 2], pretrained=False, data_prefix=dict(img_path='a'), part=dict(type='P')
    )
    new = dict(
        output_norm='LN', window='none', priority='HIGH', class_weight='file.json', arch='s12', lr='auto'
    )
    new.update(in_channels=3, pretrained='file.pth', data_prefix='b', part=None)
    cfg = Config(old)
    merge_options(cfg, new)
    assert cfg._cfg_dict == new
    for key, value in dict(part='x', list=3, arch=3).items():
        with pytest.raises(UsageError, match=f'{key}={value}: give a value like that of the config'):
            merge_options(
                Config(dict(part=dict(type='P'), list=[dict(type='P')], arch=dict(a=1))), {key: value}
            )


@pytest.mark.parametrize('scope', ['mmengine', 'scope_of_a_registry', 'of_names_with_scopes'])
def test_scopes_that_can_be_looked_up(scope):
    children = {'scope_of_a_registry': MODELS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODELS, '_children', children)
        model = dict(CONFIG['model'], type='mmdet.M' if scope.startswith('of') else 'M')
        check_values(Config(dict(CONFIG, default_scope=scope, model=model)))


@pytest.mark.nightly
def test_no_config_of_the_packages_is_refused():
    """Of those that MMEngine itself reads."""
    refused, count = {}, 0
    for package in ('mmdet', 'mmseg', 'mmpretrain'):
        folder = Path(find_spec(package).origin).parent / '.mim/configs'
        for path in sorted(folder.rglob('*.py')):
            if '_base_' in path.relative_to(folder).parts:  # parts of configs
                continue
            count += 1
            try:
                load_config(str(path))
            except UsageError as error:
                # A base is not there, lacks a key, or is of the other style.
                with suppress(OSError, KeyError, RuntimeError):
                    Config.fromfile(path)
                    refused[str(path)] = str(error)
    assert refused == {} and count > 2000


@pytest.mark.parametrize('path', ['', '.', 'folder/', '/dev/full', 'x' * 250, '/proc/nothing/x', 'file/x'])
def test_a_file_that_cannot_be_written_is_refused_first(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').touch()
    with pytest.raises(UsageError, match='cannot write'):
        check_target(path, '--out')
    assert [entry.name for entry in tmp_path.iterdir()] == ['file']


def test_a_check_leaves_nothing(tmp_path):
    check_writable(tmp_path / 'a/b')
    check_target(tmp_path / 'a/b.png', '--out')
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_writing_is_told_from_one_of_reading(tmp_path):
    with pytest.raises(WriteError) as error, written(tmp_path / 'new/a.txt'):
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path / 'new/a.txt'))
    with pytest.raises(WriteError) as error, written('/proc/a/b/x.txt'):
        pytest.fail('there is no such folder')
    assert error.value.filename == '/proc/a/b/x.txt'
    with pytest.raises(FileNotFoundError), written(tmp_path / 'b.txt'):
        os.stat(tmp_path / 'nothing')
    assert not list(tmp_path.rglob('*.*'))


UNEXPECTED = """
from mmmeta.cli.arguments import command_line


def main():
    return {}['a bug']


command_line(main)
"""


def test_an_unexpected_error_shows_its_traceback(tmp_path):
    (tmp_path / 'tool.py').write_text(UNEXPECTED)
    process = Tools.finish(sys.executable, tmp_path / 'tool.py')
    assert process.returncode == 1
    assert 'Traceback (most recent call last)' in process.stderr and "KeyError: 'a bug'" in process.stderr
    assert 'error: ' not in process.stderr


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_full_disk_leaves_nothing_of_converted_weights(tmp_path, suffix):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 * 1024, limits[1]))
    try:
        with pytest.raises(WriteError, match='File too large') as error:
            write_state_dict({'weight': torch.zeros(100, 100)}, f'{tmp_path}/target{suffix}')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno in NO_ROOM and list(tmp_path.iterdir()) == []
