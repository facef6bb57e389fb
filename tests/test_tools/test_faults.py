"""What ends a run: signals, losses that are not finite, another run, a full disk."""

import signal
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

# Chance in the network and in the pipeline, and a worker that draws.
CHANCE = (
    'model.decode_head.dropout_ratio=0.1',
    'model.backbone.drop_path_rate=0.3',
    'train_dataloader.num_workers=2',
    'default_hooks.checkpoint.interval=3',
    'randomness.seed=0',
)
FLIP = """
_base_ = ['{config}']
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(96, 96), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(64, 64)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory, tools):
    """The tests' UperNet with averaged weights, random crops, flips and colours."""
    path = tmp_path_factory.mktemp('config') / 'random_upernet.py'
    path.write_text(FLIP.format(config=Path('tests/data/tiny_ema.py').absolute()))
    return path


def start(tools, config, work_dir, *arguments, launcher=(), options=()):
    command = launcher or (sys.executable, 'tools/train.py')
    more = ['--cfg-options', *tools.data_options, *CHANCE, *options]
    return tools.start(*command, config, *arguments, '--work-dir', work_dir, *more)


def wait_for(process, path):
    """Wait until a run has written a file."""
    deadline = time.monotonic() + 200
    while not path.exists():
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < deadline, f'{path} does not appear'
        time.sleep(0.02)


def state(path):
    """What a resumed run has to have in common with an uninterrupted one."""
    checkpoint = torch.load(path, weights_only=True)
    return {key: checkpoint[key] for key in ('state_dict', 'ema_state_dict', 'optimizer', 'random_states')}


def assert_equal(a, b, where=''):
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, (list, tuple)):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f'{where}[{i}]')
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def finish_and_compare(tools, command, stopped, whole, options):
    """Resume a run to its end, and compare it with one that was not interrupted."""
    at = int((stopped / 'last_checkpoint').read_text().rpartition('iter_')[2].removesuffix('.pth'))
    assert not list(stopped.glob('*.part')) and not (stopped / '.lock').exists()
    last = (at // 7 + 1) * 7
    more = ['--cfg-options', *tools.data_options, *CHANCE, *options, f'train_cfg.max_iters={last}']
    tools.run(*command, '--work-dir', stopped, '--resume', *more)
    tools.run(*command, '--work-dir', whole, *more)
    assert_equal(state(stopped / f'iter_{last}.pth'), state(whole / f'iter_{last}.pth'))
    return at


def test_a_stopped_run_goes_on_bit_for_bit(tools, config, tmp_path):
    """Under mixed precision and, but by chance, in the middle of accumulated gradients.

    Slurm sends the signal to data workers as well.
    """
    stopped, options = tmp_path / 'stopped', ['optim_wrapper.accumulative_counts=7']
    process = start(tools, config, stopped, '--amp', options=[*options, 'train_cfg.max_iters=70000'])
    wait_for(process, stopped / 'iter_3.pth')
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, err[-2000:]
    assert 'Traceback' not in err
    command = (sys.executable, 'tools/train.py', config, '--amp')
    at = finish_and_compare(tools, command, stopped, tmp_path / 'whole', options)
    assert f'stopped by SIGTERM after iteration {at}: resume from' in out + err


@pytest.mark.nightly
def test_two_machines_stop_together_and_go_on_as_one(tools, config, tmp_path):
    """With two processes in both; the signal is sent to the second launcher alone."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port = sock.getsockname()[1]
    machines = [
        tools.start(
            *('tools/dist_train.sh', config, 1, '--work-dir', tmp_path / str(rank)),
            *('--cfg-options', *tools.data_options, *CHANCE, 'train_cfg.max_iters=70000'),
            **dict(NNODES='2', NODE_RANK=str(rank), MASTER_ADDR='127.0.0.1', PORT=str(port)),
        )
        for rank in (0, 1)
    ]
    wait_for(machines[0], tmp_path / '0/iter_3.pth')
    machines[1].send_signal(signal.SIGUSR1)
    outputs = [''.join(machine.communicate(timeout=120)) for machine in machines]
    assert [machine.returncode for machine in machines] == [128 + signal.SIGUSR1] * 2, outputs
    assert not any('Traceback' in output for output in outputs)
    command = ('tools/dist_train.sh', config, 2)
    at = finish_and_compare(tools, command, tmp_path / '0', tmp_path / 'whole', [])
    assert f'stopped by SIGUSR1 after iteration {at}: resume from' in outputs[0]


def test_a_process_that_dies_ends_the_others(tools, config, tmp_path):
    endless = ['train_cfg.max_iters=100000']
    process = start(tools, config, tmp_path, 2, launcher=('tools/dist_train.sh',), options=endless)
    wait_for(process, tmp_path / 'iter_3.pth')
    parts = psutil.Process(process.pid).children(recursive=True)
    # Its data workers, too, have its rank, and are its children.
    second = next(part for part in parts if part.environ().get('RANK') == '1')
    second.kill()
    begin = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - begin < 60
    assert process.returncode == 1
    assert 'error: process 1 was ended by SIGKILL' in err.splitlines()
    _, alive = psutil.wait_procs(parts, timeout=10)
    assert not alive


def test_stopped_during_a_validation(tools, config, tmp_path):
    often = [
        'train_cfg.max_iters=100000',
        'train_cfg.val_interval=1',
        'default_hooks.checkpoint.interval=1000',
    ]
    process = start(tools, config, tmp_path, options=often)
    deadline = time.monotonic() + 100
    log = ''
    while 'Iter(val)' not in log:
        assert process.poll() is None and time.monotonic() < deadline
        log = ''.join(path.read_text() for path in tmp_path.glob('*/*.log'))
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err[-2000:]
    assert 'stopped by SIGINT' in out + err
    assert (tmp_path / 'last_checkpoint').is_file()


def test_a_diverged_run_ends_and_its_weights_are_not_kept(tools, tmp_path):
    options = ['optim_wrapper.optimizer.lr=1e30', 'train_cfg.max_iters=60', 'param_scheduler=None']
    options += ['default_hooks.checkpoint.interval=1', 'optim_wrapper.clip_grad=None']
    command = (sys.executable, 'tools/train.py', tools.config, '--work-dir', tmp_path, '--cfg-options')
    message = tools.fail(*command, *tools.data_options, *options)
    assert message.startswith('error: the run has diverged: ')
    assert 'has not been finite for 10 iterations' in message
    assert 'learning rate 1e+30' in message
    last = (tmp_path / 'last_checkpoint').read_text()
    assert f"the last checkpoint with finite weights is '{last}'" in message
    weights = torch.load(last, weights_only=True)['state_dict']
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_folder_has_one_run(tools, tmp_path):
    process = start(tools, tools.config, tmp_path, options=['train_cfg.max_iters=100000'])
    wait_for(process, tmp_path / 'iter_3.pth')
    command = (sys.executable, 'tools/train.py', tools.config, '--work-dir', tmp_path, '--cfg-options')
    message = tools.fail(*command, *tools.data_options)
    assert message.startswith(f"error: another run is training in '{tmp_path}': process {process.pid} on ")
    assert 'Choose another --work-dir, or end it' in message
    process.kill()
    process.communicate()
    # The kernel has released it.
    tools.train(tmp_path, options=['train_cfg.max_iters=1'])


def test_a_full_disk_is_one_sentence(tools, tmp_path):
    command = [sys.executable, 'tools/train.py', tools.config, '--work-dir', tmp_path, '--cfg-options']
    full = ['bash', '-c', 'ulimit -f 100; exec "$@"', 'full']  # no file may exceed 100 KiB
    message = tools.fail(*full, *command, *tools.data_options, 'default_hooks.checkpoint.interval=1')
    path = tmp_path / 'iter_1.pth'
    assert message == f"error: cannot write '{path}' (File too large): make room; there is no earlier one"
    assert not list(tmp_path.glob('*.pth*')) and not (tmp_path / 'last_checkpoint').exists()
    log = ''.join(file.read_text() for file in tmp_path.glob('*/*.log'))
    assert 'Traceback' in log and 'OSError' in log


# What the first process notes, and the status that srun returns.
STOPPED = 'echo "stopped by SIGUSR1 after iteration 3" > "$MMMETA_END_FILE"; exit 138'
FINISHED = 'echo finished > "$MMMETA_END_FILE"; exit 0'


@pytest.mark.parametrize(
    ('srun', 'requeue', 'status', 'asked'),
    [
        # Slurm may signal the script too.
        ('trap : USR1; kill -USR1 $PPID; sleep 0.2; stopped', '1', 138, True),
        ('trap "stopped; exit 138" USR1; kill -TERM $PPID; sleep 9 & wait', '1', 138, True),
        ('stopped', '0', 138, False),
        (FINISHED, '1', 0, False),
        ('exit 143', '1', 1, False),  # one was killed, and Slurm ended the others
        ('exit 137', '1', 1, False),
        ('exit 1', '1', 1, False),  # the lock, for instance
        ('exit 0', '1', 1, False),  # a node failed
    ],
)
def test_a_slurm_job_is_queued_again_if_a_signal_stopped_it(
    tools, tmp_path, monkeypatch, srun, requeue, status, asked
):
    for name, text in dict(srun=srun, stopped=STOPPED, scontrol=f'echo "$@" > {tmp_path}/asked').items():
        (tmp_path / name).write_text(f'#!/bin/bash\n{text}\n')
        (tmp_path / name).chmod(0o755)
    process = tools.finish(
        *(Path('tools/slurm_train.sh').absolute(), 'cpu', 'job', 'config.py', '--resume'),
        cwd=tmp_path,
        **dict(PATH=f'{tmp_path}:{tools.environment()["PATH"]}', REQUEUE=requeue, SLURM_JOB_ID='17'),
    )
    assert process.returncode == status, process.stderr
    path = tmp_path / 'asked'
    assert (path.read_text() if path.exists() else '') == ('requeue 17\n' if asked else '')
    assert ('not queued again' in process.stderr) == (requeue == '1' and status == 1)
    assert not list(tmp_path.glob('.slurm_end*'))


def test_a_slurm_job_that_was_cancelled_does_not_come_back(tools, tmp_path):
    scripts = dict(
        srun=STOPPED,
        scontrol=f'echo "$@" >> {tmp_path}/asked; echo "JobId=17 JobState=COMPLETING Reason=None"',
    )
    for name, text in scripts.items():
        (tmp_path / name).write_text(f'#!/bin/bash\n{text}\n')
        (tmp_path / name).chmod(0o755)
    process = tools.finish(
        *(Path('tools/slurm_train.sh').absolute(), 'cpu', 'job', 'config.py', '--resume'),
        cwd=tmp_path,
        **dict(PATH=f'{tmp_path}:{tools.environment()["PATH"]}', REQUEUE='1', SLURM_JOB_ID='17'),
    )
    assert process.returncode == 138 and 'not queued again: it was cancelled' in process.stderr
    assert (tmp_path / 'asked').read_text() == 'show job --oneliner 17\n'


def test_a_stop_is_noted_for_the_script_that_started_the_run(tools, tmp_path):
    note, options = tmp_path / 'end', ['train_cfg.max_iters=100000', 'default_hooks.checkpoint.interval=1']
    process = tools.start(
        *(sys.executable, 'tools/train.py', tools.config, '--work-dir', tmp_path, '--cfg-options'),
        *(*tools.data_options, *options),
        MMMETA_END_FILE=str(note),
    )
    wait_for(process, tmp_path / 'iter_1.pth')
    assert not note.exists()
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=100)
    assert note.read_text().startswith('stopped by SIGUSR1 after iteration ')
