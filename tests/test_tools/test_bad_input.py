"""Every mistake gets one line that says what to do, a status that is not 0, and leaves nothing behind."""

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT, TINY_CONFIG
from PIL import Image

TRAIN = (sys.executable, 'tools/train.py')


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('model.backbone.arch=s17', "unknown arch 's17' of CAFormer: choose one of s18, s36, m36, b36"),
        ('model.backbone.out_indices=[0,4]', 'out_indices=[0, 4]: choose from the stages (0, 1, 2, 3)'),
        ('model.backbone.drop_path=0.1', "no argument 'drop_path' (model.backbone.drop_path): it is written"),
        (
            'model.backbone.type=mmmeta.CaFormer',
            "'mmmeta.CaFormer' is not registered: write 'mmmeta.CAFormer'",
        ),
        ('model.neck.type=mmmeta.Nothing', "model.neck.type='mmmeta.Nothing' is not registered: is a module"),
    ],
)
def test_a_wrong_model(tools, tmp_path, option, message):
    work_dir = tmp_path / 'work'
    options = ('--cfg-options', *tools.data_options, option)
    assert message in tools.fail(*TRAIN, TINY_CONFIG, '--work-dir', work_dir, *options)
    if 'neck' not in option:
        assert not work_dir.exists()


def test_an_image_that_is_too_small(tools, tmp_path):
    scale = 'train_dataloader.dataset.pipeline.2.scale=(24,64)'
    options = ('--cfg-options', *tools.data_options, scale, 'model.data_preprocessor.size=None')
    options += ('model.data_preprocessor.size_divisor=1',)
    message = tools.fail(*TRAIN, TINY_CONFIG, '--work-dir', tmp_path, *options)
    assert 'an image of 64x24 pixels is smaller than the stride 32 of CAFormer: resize or pad it' in message


class TestData:
    def test_missing(self, tools, tmp_path):
        options = ('--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}/nowhere')
        message = tools.fail(*TRAIN, TINY_CONFIG, '--work-dir', tmp_path / 'work', *options)
        assert f"looked for images or annotations in '{tmp_path}/nowhere/images/training'" in message
        assert 'set train_dataloader.dataset.data_root' in message
        assert not (tmp_path / 'work').exists()

    def test_empty(self, tools, tmp_path):
        for kind in ('images', 'annotations'):
            (tmp_path / kind / 'validation').mkdir(parents=True)
        options = ('--cfg-options', tools.data_options[0], f'val_dataloader.dataset.data_root={tmp_path}')
        message = tools.fail(*TRAIN, TINY_CONFIG, '--work-dir', tmp_path / 'work', *options)
        assert 'the data of val_dataloader are an empty folder: looked for' in message
        assert f"'{tmp_path}/images/validation'" in message

    def test_is_checked_before_the_processes_start_to_talk(self, tools, tmp_path):
        options = ('--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}/nowhere')
        message = tools.fail('tools/dist_train.sh', TINY_CONFIG, 2, '--work-dir', tmp_path, *options)
        assert f"'{tmp_path}/nowhere/images/training'" in message


class TestConfig:
    def test_missing(self, tools):
        message = tools.fail(*TRAIN, 'configs/upernet_caformer_s81_ade20k.py')
        assert "there is no config 'configs/upernet_caformer_s81_ade20k.py': did you mean configs/" in message
        message = tools.fail('tools/dist_train.sh', 'configs/nothing.py', 1)
        assert "there is no config 'configs/nothing.py'" in message

    def test_not_python(self, tools, tmp_path):
        (tmp_path / 'broken.py').write_text('model = dict(\n')
        message = tools.fail(*TRAIN, tmp_path / 'broken.py')
        assert f"the config '{tmp_path}/broken.py' is not valid Python" in message

    def test_mmseg_missing(self, tools, tmp_path):
        # An import hook that knows no mmseg stands for an environment without it.
        (tmp_path / 'sitecustomize.py').write_text(
            'import importlib.abc, importlib.metadata, importlib.util, sys\n'
            'find = importlib.util.find_spec\n'
            'importlib.util.find_spec = lambda name, *more: None if name == "mmseg" else find(name, *more)\n'
            'class Blocker(importlib.abc.MetaPathFinder):\n'
            '    def find_spec(self, name, path=None, target=None):\n'
            '        if name.partition(".")[0] == "mmseg":\n'
            '            raise ModuleNotFoundError(f"No module named {name!r}", name=name)\n'
            'sys.meta_path.insert(0, Blocker())\n'
            'import pkg_resources\n'
            'get = pkg_resources.get_distribution\n'
            'def get_distribution(name):\n'
            '    if name == "mmsegmentation":\n'
            '        raise pkg_resources.DistributionNotFound(name)\n'
            '    return get(name)\n'
            'pkg_resources.get_distribution = get_distribution\n'
        )
        message = tools.fail(*TRAIN, TINY_CONFIG, PYTHONPATH=str(tmp_path))
        assert "this config needs the package 'mmseg', which is not installed: pip install" in message

    def test_an_option_that_does_not_fit(self, tools, tmp_path):
        message = tools.fail(*TRAIN, TINY_CONFIG, '--cfg-options', 'model.type.x.y=1')
        assert '--cfg-options model.type.x.y does not fit the config' in message


class TestLauncher:
    def test_a_mistake_that_only_one_process_meets(self, tools, tmp_path):
        # The second process gets the fourth image, the only one that is too small.
        for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
            (tmp_path / kind).mkdir()
            for i in range(4):
                size = (24, 24) if i == 3 else (64, 64)
                Image.new('RGB' if suffix == 'jpg' else 'L', size, 3).save(tmp_path / kind / f'{i}.{suffix}')
        options = [f'train_dataloader.dataset.data_root={tmp_path}', tools.data_options[1]]
        options += ['train_dataloader.dataset.data_prefix.img_path=images']
        options += ['train_dataloader.dataset.data_prefix.seg_map_path=annotations']
        options += ['train_dataloader.batch_size=1', 'train_dataloader.sampler.shuffle=False']
        options += ['train_dataloader.dataset.pipeline.2.scale_factor=1.0']
        options += ['train_dataloader.dataset.pipeline.2.scale=None', 'model.data_preprocessor.size=None']
        options += ['model.data_preprocessor.size_divisor=1']
        command = ('tools/dist_train.sh', TINY_CONFIG, 2, '--work-dir', tmp_path / 'work')
        message = tools.fail(*command, '--cfg-options', *options)
        assert 'an image of 24x24 pixels is smaller than the stride 32 of CAFormer' in message

    def test_a_port_that_is_taken(self, tools, tmp_path):
        with socket.socket() as sock:
            sock.bind(('', 0))
            sock.listen()
            port = sock.getsockname()[1]
            message = tools.fail(
                'tools/dist_train.sh', TINY_CONFIG, 2, '--work-dir', tmp_path / 'work', PORT=str(port)
            )
        assert f'port {port} on 127.0.0.1 cannot be used (Address already in use)' in message
        assert f'PORT={port + 1} for instance' in message
        assert not (tmp_path / 'work').exists()

    @pytest.mark.parametrize(
        ('arguments', 'variables', 'message'),
        [
            (('zero',), {}, "GPUS='zero': give the number of processes"),
            ((1,), dict(NNODES='2', NODE_RANK='2'), 'NODE_RANK=2: the machines are counted from 0 to 1'),
            ((1,), dict(PORT='http'), "PORT='http': give an integer"),
        ],
    )
    def test_a_number_that_is_none(self, tools, arguments, variables, message):
        assert message in tools.fail('tools/dist_train.sh', TINY_CONFIG, *arguments, **variables)

    def test_processes_that_had_to_be_killed_were_not_stopped(self, tools, tmp_path):
        deaf = 'import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.mkdir("ready")'
        (tmp_path / 'deaf.py').write_text(f'{deaf}; time.sleep(99)')
        command = [sys.executable, '-m', 'mmmeta.cli.launch', '--processes', '1']
        environment = tools.environment(STOP_TIMEOUT='1', PYTHONPATH=str(ROOT))
        launcher = subprocess.Popen(
            [*command, tmp_path / 'deaf.py', ROOT / TINY_CONFIG],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not (tmp_path / 'ready').exists():
            assert launcher.poll() is None
            time.sleep(0.1)
        launcher.terminate()
        errors = launcher.communicate(timeout=60)[1]
        assert launcher.returncode == 1
        assert 'error: the processes did not end within STOP_TIMEOUT=1 seconds of SIGTERM and were' in errors

    def test_a_machine_that_is_missing(self, tools):
        message = tools.fail('tools/dist_train.sh', TINY_CONFIG, 1, NNODES='2', RENDEZVOUS_TIMEOUT='1')
        assert 'waiting for machine 1: 1 of 2 are at 127.0.0.1:29500 after 1 s: start all 2' in message

    def test_slurm_needs_slurm(self, tools, tmp_path):
        for name in ('bash', 'dirname', 'env', 'printf', 'xargs'):  # but no srun
            (tmp_path / name).symlink_to(shutil.which(name))
        message = tools.fail('tools/slurm_train.sh', 'gpu', 'job', TINY_CONFIG, PATH=str(tmp_path))
        assert message == (
            'error: srun is not on PATH: run this on a machine of a Slurm cluster, or use tools/dist_train.sh'
        )

    @pytest.mark.parametrize(
        ('variables', 'message'),
        [
            (dict(GPUS='two'), "GPUS='two': give a number of processes, one for each GPU, at least 1"),
            (dict(GPUS_PER_NODE='0'), "GPUS_PER_NODE='0': give a number of processes on a node, at least 1"),
            (dict(REQUEUE='yes'), "REQUEUE='yes': give 1 to queue a job again that was stopped, or 0"),
            (dict(SRUN_ARGS='--comment="a'), "='--signal=USR1@120 --comment=\"a': a quote is not closed"),
            (dict(SRUN_ARGS='rm', SLURM_JOB_ID='1'), "SRUN_ARGS='rm': give options of srun, which"),
        ],
    )
    def test_variables_of_slurm(self, tools, variables, message):
        assert message in tools.fail('tools/slurm_train.sh', 'gpu', 'job', TINY_CONFIG, **variables)


def test_slurm_passes_quoted_arguments(tools, tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\necho finished > "$MMMETA_END_FILE"\n')
    srun.chmod(0o755)
    output = tools.run(
        'tools/slurm_test.sh',
        'gpu',
        'a job',
        'my config.py',
        'my checkpoint.pth',
        '--tta',
        PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
        GPUS='4',
        SRUN_ARGS='--time=1:00 --comment="two words" --exclusive',
    ).splitlines()
    for argument in ('--job-name=a job', '--ntasks=4', '--gres=gpu:4', '--time=1:00', 'my config.py'):
        assert argument in output
    assert '--comment=two words' in output
    assert output[-4:] == ['my config.py', 'my checkpoint.pth', '--tta', '--launcher=slurm']
