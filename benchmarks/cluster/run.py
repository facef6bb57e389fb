#!/usr/bin/env python
"""Train on two hosts for real: on a Slurm cluster, and over cables that are cut.

The hosts are network namespaces of this machine, which reach each other and nothing else; the cluster is
Slurm's own daemons on them. Runs as root where ``iproute2``, ``slurm-wlm`` and ``munge`` are installed, on
CPUs by Gloo, ends all that it has started, and writes a table into ``docs/reliability.md``::

    python benchmarks/cluster/run.py [--only WORD ...]

The exit status is 1 if a row is not as expected.
"""

import argparse
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from network import PREFIX, SUBNET, Network, call  # noqa: E402
from slurm import Slurm  # noqa: E402

PAGE = ROOT / 'docs/reliability.md'
BEGIN, END = '<!-- cluster -->', '<!-- end of cluster -->'
NEEDED = dict(ip='iproute2', munged='munge', slurmctld='slurm-wlm', slurmd='slurm-wlm')
# Chance in the network and in the pipeline, averaged weights, and a data worker.
CONFIG = """
_base_ = ['{root}/tests/data/tiny_ema.py']
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(96, 96), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(64, 64)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(data_root='{data}', pipeline=pipeline))
val_dataloader = dict(dataset=dict(data_root='{data}'))
test_dataloader = dict(dataset=dict(data_root='{data}'))
model = dict(backbone=dict(drop_path_rate=0.3), decode_head=dict(dropout_ratio=0.1))
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=3))
randomness = dict(seed=0)
"""
ENDLESS = ('--cfg-options', 'train_cfg.max_iters=100000')
# Seconds for a start on a machine that has other things to do.
PATIENCE = 240


@dataclass
class Row:
    """What was tried, and what was seen.

    Attributes:
        tried (str): What was done.
        seen (str): What happened.
        seconds (float | None): From the fault to the end of all processes.
        problems (list[str]): What was not as expected.
    """

    tried: str
    seen: str = ''
    seconds: float | None = None
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The row in Markdown."""
        seconds = '' if self.seconds is None else f'{self.seconds:.0f}'
        seen = '**not as expected**' if self.problems else self.seen
        return f'| {self.tried} | {seen} | {seconds} |'

    def expect(self, is_met: object, what: str, evidence: str = '') -> None:
        """Note a problem where an expectation is not met."""
        if not is_met:
            self.problems.append(f'{what}: {evidence[-1500:]}')


class Bench:
    """The hosts, with what runs on them.

    Args:
        folder (Path): For all that is written.
    """

    def __init__(self, folder: Path, network: Network) -> None:
        self.folder, self.network = folder, network
        self.config = folder / 'random_upernet.py'
        self.env = {
            **os.environ,
            'PYTHON': sys.executable,
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
        }
        self.port = 29500
        self.count = 0

    def prepare(self) -> None:
        """Write the data and the config."""
        from mmmeta.datasets import generate_ade20k

        data = generate_ade20k(self.folder / 'data', num_train=10, num_val=4, size=64)
        self.config.write_text(CONFIG.format(root=ROOT, data=data))

    def work_dir(self) -> Path:
        """A new one."""
        self.count += 1
        return self.folder / f'work-{self.count}'

    def machine(
        self, rank: int, work_dir: Path, *arguments: str, config: Path | None = None, **variables: str
    ) -> tuple[subprocess.Popen, Path]:
        """Start one of two machines; its process, and the file with its output."""
        output = f'{work_dir.name}-machine-{rank}.out'
        command = ['tools/dist_train.sh', config or self.config, 1, '--work-dir', work_dir, *arguments]
        env = dict(NNODES='2', NODE_RANK=str(rank), MASTER_ADDR='n1', PORT=str(self.port), STOP_TIMEOUT='120')
        process = self.network.start(f'n{rank + 1}', command, output, ROOT, {**self.env, **env, **variables})
        return process, self.folder / output

    def machines(self, work_dir: Path, *arguments: str, **variables: str) -> tuple[list, list[Path]]:
        """Start both."""
        self.port += 1
        pairs = [self.machine(rank, work_dir, *arguments, **variables) for rank in (0, 1)]
        return [process for process, _ in pairs], [output for _, output in pairs]


def wait_for_checkpoint(work_dir: Path, iteration: int, is_alive: Callable[[], bool]) -> None:
    """Wait until a run has written the checkpoint of an iteration, or a later one."""
    begin = time.monotonic()
    while last_iteration(work_dir) < iteration:
        if not is_alive() or time.monotonic() - begin > PATIENCE:
            raise TimeoutError(f'{work_dir.name} has no checkpoint of iteration {iteration}')
        time.sleep(0.1)


def last_iteration(work_dir: Path) -> int:
    """The iteration of the last checkpoint; -1 without one."""
    path = work_dir / 'last_checkpoint'
    return int(re.findall(r'iter_(\d+)', path.read_text())[-1]) if path.exists() else -1


def end_of(processes: list, timeout: float = PATIENCE) -> tuple[list, float]:
    """Wait for the end of processes; their statuses, and the seconds."""
    begin = time.monotonic()
    while any(process.poll() is None for process in processes):
        if time.monotonic() - begin > timeout:
            return ['hangs' if p.poll() is None else p.returncode for p in processes], timeout
        time.sleep(0.1)
    return [process.returncode for process in processes], time.monotonic() - begin


def errors(path: Path) -> str:
    """The lines of an output that begin with ``error:``."""
    return '\n'.join(line for line in path.read_text().splitlines() if line.startswith('error:'))


def count_equal(a: Path, b: Path) -> tuple[int, int]:
    """Entries of the states of two checkpoints that are equal, and all of them."""
    import torch

    def flat(value, key=''):
        if isinstance(value, dict):
            for name, part in value.items():
                yield from flat(part, f'{key}.{name}')
        elif isinstance(value, (list, tuple)):
            for i, part in enumerate(value):
                yield from flat(part, f'{key}.{i}')
        else:
            yield key, value

    keys = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'random_states')
    states = [torch.load(path, weights_only=True) for path in (a, b)]
    first, second = (dict(flat({key: state[key] for key in keys})) for state in states)
    equal = sum(
        torch.equal(value, second[key]) if isinstance(value, torch.Tensor) else value == second[key]
        for key, value in first.items()
        if key in second
    )
    return equal, len(first.keys() | second.keys())


def compare(bench: Bench, work_dir: Path, row: Row) -> None:
    """Let an interrupted run go on for seven iterations, and compare it with one that was not interrupted."""
    last = last_iteration(work_dir) + 7
    options = ('--cfg-options', f'train_cfg.max_iters={last}')
    whole = bench.work_dir()
    for folder, more in ((work_dir, ('--resume',)), (whole, ())):
        processes, outputs = bench.machines(folder, *more, *options)
        statuses, _ = end_of(processes, 600)
        row.expect(statuses == [0, 0], f'{statuses} of the runs to compare', outputs[0].read_text())
    equal, total = count_equal(work_dir / f'iter_{last}.pth', whole / f'iter_{last}.pth')
    row.expect(equal == total, f'{equal} of {total} entries are equal')
    row.seen += f'; at iteration {last}, {equal} of {total} entries of the state equal an uninterrupted run'


# Two hosts.


def stop_on_one(bench: Bench) -> Row:
    """SIGTERM on the second host."""
    row, work_dir = Row('SIGTERM to the launcher of one host'), bench.work_dir()
    processes, outputs = bench.machines(work_dir, *ENDLESS)
    wait_for_checkpoint(work_dir, 10, lambda: processes[0].poll() is None)
    signal_launcher(bench, 'n2')
    statuses, row.seconds = end_of(processes)
    row.expect(statuses == [143, 143], f'statuses {statuses}', outputs[1].read_text())
    row.seen = f'both stop after iteration {last_iteration(work_dir)} with a checkpoint, status 143'
    compare(bench, work_dir, row)
    return row


def signal_launcher(bench: Bench, host: str) -> None:
    """Send SIGTERM to the launcher of a host."""
    for pid in bench.network.pids(host):
        if b'mmmeta.cli.launch' in Path(f'/proc/{pid}/cmdline').read_bytes():
            os.kill(pid, signal.SIGTERM)


def cut_cable(bench: Bench) -> Row:
    """The link of the second host goes down while training."""
    row, work_dir = Row('the cable of one host is cut while training'), bench.work_dir()
    processes, outputs = bench.machines(work_dir, *ENDLESS)
    wait_for_checkpoint(work_dir, 10, lambda: processes[0].poll() is None)
    bench.network.cut('n2')
    statuses, row.seconds = end_of(processes)
    bench.network.cut('n2', False)
    texts = [errors(output) for output in outputs]
    row.expect(statuses == [1, 1], f'statuses {statuses}', outputs[0].read_text())
    row.expect(row.seconds < 120, 'too late')
    for text in texts:
        row.expect('no sign of life' in text and "the last checkpoint is '" in text, 'no sentence', text)
    row.seen = f'both end, status 1: "{quote(texts[0], bench)}"'
    compare(bench, work_dir, row)
    return row


def kill_one(bench: Bench) -> Row:
    """SIGKILL for a process of the second host."""
    row, work_dir = Row('a process is killed on one host'), bench.work_dir()
    processes, outputs = bench.machines(work_dir, *ENDLESS)
    wait_for_checkpoint(work_dir, 10, lambda: processes[0].poll() is None)
    kill_tool(bench, 'n2')
    statuses, row.seconds = end_of(processes)
    row.expect(statuses == [1, 1], f'statuses {statuses}', outputs[0].read_text())
    row.expect('was ended by SIGKILL' in errors(outputs[1]), 'no sentence', errors(outputs[1]))
    row.expect('is gone' in errors(outputs[0]), 'no sentence', errors(outputs[0]))
    row.seen = (
        f'both end, status 1: "{quote(errors(outputs[1]), bench)}", "{quote(errors(outputs[0]), bench)}"'
    )
    return row


def kill_tool(bench: Bench, host: str) -> None:
    """Kill the training on a host, by SIGKILL."""
    pids = bench.network.pids(host)
    tools = [pid for pid in pids if b'tools/train.py\0' in Path(f'/proc/{pid}/cmdline').read_bytes()]
    tools = [pid for pid in tools if b'mmmeta.cli.launch' not in Path(f'/proc/{pid}/cmdline').read_bytes()]
    tools = [pid for pid in tools if b'srun\0' not in Path(f'/proc/{pid}/cmdline').read_bytes()]
    tools = [pid for pid in tools if b'bash\0' not in Path(f'/proc/{pid}/cmdline').read_bytes()]
    os.kill(min(tools), signal.SIGKILL)  # its data workers are younger


def quote(text: str, bench: Bench) -> str:
    """A message for the table."""
    text = text.removeprefix('error: ').replace(str(bench.folder), '').replace('|', r'\|')
    return re.sub(r'work-\d+', 'work_dir', text).split('\n')[0]


def _refused(
    bench: Bench, tried: str, words: list[str], start: Callable[[Path], list], limit: float = 100
) -> Row:
    """A start that has to end with a sentence on all machines."""
    row, work_dir = Row(tried), bench.work_dir()
    bench.port += 1
    begin = time.monotonic()
    pairs = start(work_dir)
    statuses, _ = end_of([process for process, _ in pairs], limit + 60)
    row.seconds = time.monotonic() - begin
    texts = [errors(output) for _, output in pairs]
    row.expect(all(status == 1 for status in statuses), f'statuses {statuses}', pairs[0][1].read_text())
    row.expect(row.seconds < limit, f'{row.seconds:.0f} s')
    for text, (_, output) in zip(texts, pairs, strict=True):
        row.expect(text.count('\n') == 0 and text, 'not one sentence', output.read_text())
    together = '\n'.join(texts)
    for word in words:
        row.expect(word in together, f'{word!r} is missing', together)
    best = next((text for text in texts if words[0] in text), together)
    row.seen = f'"{quote(best, bench)}"'
    row.expect(last_iteration(work_dir) == -1, 'it has trained')
    return row


def rank_0_alone(bench: Bench) -> Row:
    """The second host does not start."""
    row = _refused(
        bench,
        'one host of two starts',
        ['machine 1: 1 of 2 are at n1:'],
        lambda work_dir: [bench.machine(0, work_dir)],
    )
    text = (bench.folder / f'work-{bench.count}-machine-0.out').read_text()
    row.expect(len(re.findall(r'waiting for machine 1.* s of 60', text)) >= 4, 'no lines meanwhile', text)
    return row


def address_refused(bench: Bench) -> Row:
    """Nothing listens at the address."""
    return _refused(
        bench,
        'nothing listens at `MASTER_ADDR`',
        [f'no answer at n1:{bench.port + 1} from {SUBNET}.12 (eth0) (Connection refused)'],
        lambda work_dir: [bench.machine(1, work_dir)],
    )


def address_unreachable(bench: Bench) -> Row:
    """No host has the address."""
    return _refused(
        bench,
        '`MASTER_ADDR` is an address that no host has',
        [f'no answer at {SUBNET}.99:', 'is not an address of n1'],
        lambda work_dir: [bench.machine(rank, work_dir, MASTER_ADDR=f'{SUBNET}.99') for rank in (0, 1)],
    )


def name_unknown(bench: Bench) -> Row:
    """No host has the name."""
    return _refused(
        bench,
        '`MASTER_ADDR` is a name that is not known',
        ['MASTER_ADDR=nowhere is not known to n2'],
        lambda work_dir: [bench.machine(1, work_dir, MASTER_ADDR='nowhere')],
    )


def name_is_loopback(bench: Bench) -> Row:
    """The names of the hosts resolve to 127.0.0.1 on themselves."""
    row, work_dir = Row('the name of each host is 127.0.0.1 on itself'), bench.work_dir()
    for host in ('n1', 'n2'):
        bench.network.name_hosts(host, **{host: '127.0.0.1'})
    processes, outputs = bench.machines(work_dir)
    statuses, _ = end_of(processes)
    for host in ('n1', 'n2'):
        bench.network.name_hosts(host)
    row.expect(statuses == [0, 0], f'statuses {statuses}', ''.join(p.read_text() for p in outputs))
    row.seen = 'trains: the interface by which the hosts reach each other is found'
    return row


def interface_unreachable(bench: Bench) -> Row:
    """Gloo is told to take the loopback."""
    return _refused(
        bench,
        '`GLOO_SOCKET_IFNAME=lo`',
        ['does not reach', 'set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME there'],
        lambda work_dir: [bench.machine(rank, work_dir, GLOO_SOCKET_IFNAME='lo') for rank in (0, 1)],
    )


def configs_differ(bench: Bench) -> Row:
    """The hosts have other learning rates."""
    rates = ('1e-3', '5e-3')
    options = [('--cfg-options', f'optim_wrapper.optimizer.lr={rate}') for rate in rates]
    return _refused(
        bench,
        'other learning rates on the hosts',
        ['do not agree on optim_wrapper.optimizer.lr of the config', 'process 1 on n2: 0.005'],
        lambda work_dir: [bench.machine(rank, work_dir, *options[rank]) for rank in (0, 1)],
    )


def unshared_resume(bench: Bench) -> Row:
    """One host has a checkpoint to resume from."""
    source = bench.work_dir()
    processes, _ = bench.machines(source)
    end_of(processes)

    def start(work_dir: Path) -> list:
        return [
            bench.machine(0, source, '--resume', '--cfg-options', 'train_cfg.max_iters=90'),
            bench.machine(1, work_dir, '--resume', '--cfg-options', 'train_cfg.max_iters=90'),
        ]

    words = [
        'do not agree on the checkpoint to start from',
        'process 1 on n2: none',
        'share the work directory',
    ]
    return _refused(bench, 'folders that are not shared, `--resume`', words, start)


def unshared_start(bench: Bench) -> Row:
    """The hosts have folders of their own."""
    row = Row('folders that are not shared, from nothing')
    bench.port += 1
    pairs = [bench.machine(rank, bench.work_dir()) for rank in (0, 1)]
    statuses, _ = end_of([process for process, _ in pairs])
    text = pairs[0][1].read_text()
    row.expect(statuses == [0, 0], f'statuses {statuses}', text)
    found = re.search(r"the work directory '.*' of n2 is not that of n1.*", text)
    row.expect(found, 'no warning', text)
    row.seen = f'trains, with the warning "{quote(found[0], bench) if found else ""}"'
    return row


# Slurm.


@dataclass
class Job:
    """A batch job of the documented script, on one process on each of the two nodes."""

    slurm: Slurm
    bench: Bench
    work_dir: Path
    number: int = 0

    def submit(self, *arguments: str, limit: str = '30', script: str = 'tools/slurm/train_cpu.sh') -> 'Job':
        """Submit it."""
        shape = (
            '--partition=cpu',
            '--nodes=2',
            '--ntasks-per-node=1',
            '--cpus-per-task=2',
            f'--time={limit}',
        )
        tool = ('--work-dir', self.work_dir, *arguments)
        env = {key: self.bench.env[key] for key in ('PYTHON', 'OMP_NUM_THREADS', 'CUDA_VISIBLE_DEVICES')}
        self.number = self.slurm.submit(*shape, script, self.bench.config, *tool, **env)
        return self

    def state(self) -> str:
        """Its state in Slurm's words."""
        return self.slurm.job(self.number).get('JobState', '')

    def restarts(self) -> int:
        """How often it was queued again."""
        return int(self.slurm.job(self.number).get('Restarts') or 0)

    def output(self) -> str:
        """What it has printed."""
        return self.slurm.output(self.number)

    def wait_for_checkpoint(self, iteration: int) -> None:
        """Wait for a checkpoint."""
        states = ('PENDING', 'RUNNING', 'CONFIGURING', 'COMPLETING', 'SUSPENDED', 'PREEMPTED', 'REQUEUED')
        wait_for_checkpoint(self.work_dir, iteration, lambda: self.state() in states)

    def wait_for_end(self) -> float:
        """Wait until it has ended; the seconds."""
        ends = ('COMPLETED', 'FAILED', 'CANCELLED', 'TIMEOUT', 'NODE_FAIL', 'PREEMPTED')
        return self.slurm.wait_until(lambda: self.state() in ends, PATIENCE, f'the end of job {self.number}')

    def wait_for_requeue(self, timeout: float = PATIENCE) -> float:
        """Wait until it is queued again; the seconds."""
        return self.slurm.wait_until(lambda: self.restarts() > 0, timeout, f'job {self.number} queued again')

    def cancel(self) -> None:
        """End it."""
        self.slurm.call('scancel', self.number)
        self.slurm.wait_until(
            lambda: self.state() not in ('RUNNING', 'COMPLETING', 'PENDING'), 120, 'its end'
        )


def _continues(job: Job, row: Row) -> None:
    """A job that was queued again resumes, and is stopped for good."""
    stopped = last_iteration(job.work_dir)
    job.slurm.start_now(job.number)
    job.wait_for_checkpoint(stopped + 5)
    resumed = re.findall(r'resumed epoch: \d+, iter: (\d+)', job.output())
    row.expect(resumed and int(resumed[-1]) == stopped, f'resumed at {resumed}, not {stopped}', job.output())
    row.seen += f'stopped after iteration {stopped}, queued again, goes on from there'
    job.cancel()


def slurm_trains(slurm: Slurm, bench: Bench) -> Row:
    """To the end, and a test."""
    row, job = (
        Row('`sbatch tools/slurm/train_cpu.sh`, to its end'),
        Job(slurm, bench, bench.work_dir()).submit(),
    )
    job.wait_for_end()
    row.expect(job.state() == 'COMPLETED' and job.restarts() == 0, job.state(), job.output())
    row.seen = f'{job.state()}, {last_iteration(job.work_dir)} iterations'
    return row


def slurm_time_limit(slurm: Slurm, bench: Bench) -> Row:
    """SIGUSR1 two minutes before the limit, which Slurm may send a minute earlier."""
    row = Row('time limit of 5 minutes, `#SBATCH --signal=USR1@120`')
    job = Job(slurm, bench, bench.work_dir()).submit(*ENDLESS, limit='5')
    begin = time.monotonic()
    job.wait_for_requeue(400)
    after = time.monotonic() - begin
    row.expect('stopped by SIGUSR1' in job.output(), 'not by SIGUSR1', job.output())
    row.seen = f'{after:.0f} s after its start '
    _continues(job, row)
    compare(bench, job.work_dir, row)
    return row


def slurm_preemption(slurm: Slurm, bench: Bench) -> Row:
    """A job of a partition with a higher priority."""
    row = Row('preemption by another partition, `GraceTime=60`')
    job = Job(slurm, bench, bench.work_dir()).submit(*ENDLESS)
    job.wait_for_checkpoint(10)
    begin = time.monotonic()
    urgent = slurm.submit('--partition=urgent', '--nodes=2', '--exclusive', '--wrap=sleep 5')
    job.wait_for_requeue()
    row.seconds = time.monotonic() - begin
    slurm.wait_until(lambda: slurm.job(urgent).get('JobState') == 'COMPLETED', 180, 'the other job')
    row.expect(re.search('stopped by SIG(TERM|USR1)', job.output()), 'no checkpoint', job.output())
    _continues(job, row)
    return row


def slurm_signal(slurm: Slurm, bench: Bench) -> Row:
    """``scancel --signal``."""
    row = Row('`scancel --signal=USR1`')
    job = Job(slurm, bench, bench.work_dir()).submit(*ENDLESS)
    job.wait_for_checkpoint(10)
    slurm.call('scancel', '--signal=USR1', job.number)
    row.seconds = job.wait_for_requeue()
    _continues(job, row)
    return row


def slurm_script_signal(slurm: Slurm, bench: Bench) -> Row:
    """SIGTERM for the batch script alone."""
    row = Row('`scancel --batch --signal=TERM`: to the script alone')
    job = Job(slurm, bench, bench.work_dir()).submit(*ENDLESS)
    job.wait_for_checkpoint(10)
    slurm.call('scancel', '--batch', '--signal=TERM', job.number)
    row.seconds = job.wait_for_requeue()
    _continues(job, row)
    return row


def slurm_cancel(slurm: Slurm, bench: Bench) -> Row:
    """``scancel``, which signals all processes of the job."""
    row = Row('`scancel`')
    job = Job(slurm, bench, bench.work_dir()).submit(*ENDLESS)
    job.wait_for_checkpoint(10)
    slurm.call('scancel', job.number)
    row.seconds = slurm.wait_until(lambda: not bench.network.has_tool('n1'), 120, 'the end of the processes')
    slurm.wait_until(lambda: job.state() not in ('RUNNING', 'COMPLETING'), 60, 'the end of the job')
    row.expect(job.state() == 'CANCELLED' and not job.restarts(), job.state(), job.output())
    row.expect(re.search('stopped by SIG(TERM|USR1)', job.output()), 'no checkpoint', job.output())
    row.seen = f'stopped after iteration {last_iteration(job.work_dir)} with a checkpoint, not queued again'
    return row


def slurm_kill(slurm: Slurm, bench: Bench) -> Row:
    """A task is killed."""
    row = Row('a task is killed by `kill -9`')
    job = Job(slurm, bench, bench.work_dir()).submit(*ENDLESS)
    job.wait_for_checkpoint(10)
    kill_tool(bench, 'n2')
    row.seconds = job.wait_for_end()
    row.expect(job.state() == 'FAILED' and job.restarts() == 0, f'{job.state()}', job.output())
    row.expect('not queued again: it was not stopped' in job.output(), 'no sentence', job.output())
    row.seen = f'{job.state()}, exit code {slurm.job(job.number).get("ExitCode")}, not queued again'
    return row


def slurm_lock(slurm: Slurm, bench: Bench) -> Row:
    """Another run has the work directory."""
    row, work_dir = Row('another job has the work directory'), bench.work_dir()
    # Those that the second one sees when it begins stay.
    keep = (*ENDLESS, 'default_hooks.checkpoint.max_keep_ckpts=-1')
    first = Job(slurm, bench, work_dir).submit(*keep)
    first.wait_for_checkpoint(5)
    second = Job(slurm, bench, work_dir).submit(*keep)
    row.seconds = second.wait_for_end()
    row.expect(second.state() == 'FAILED' and second.restarts() == 0, second.state(), second.output())
    row.expect('another run is training in' in second.output(), 'no sentence', second.output())
    row.expect('not queued again' in second.output(), 'no sentence', second.output())
    row.seen = f'{second.state()}, not queued again: "another run is training in …"'
    first.cancel()
    return row


def slurm_drain(slurm: Slurm, bench: Bench) -> Row:
    """A node is drained while a job runs on it."""
    row = Row('a node is drained')
    job = Job(slurm, bench, bench.work_dir()).submit(*ENDLESS)
    job.wait_for_checkpoint(5)
    slurm.call('scontrol', 'update', 'NodeName=n2', 'State=DRAIN', 'Reason=benchmark')
    job.wait_for_checkpoint(last_iteration(job.work_dir) + 10)
    slurm.call('scancel', '--signal=USR1', job.number)
    row.seconds = job.wait_for_requeue()
    job.slurm.start_now(job.number)
    time.sleep(5)
    row.expect(job.state() == 'PENDING', f'{job.state()} on a node that is drained')
    slurm.call('scontrol', 'update', 'NodeName=n2', 'State=RESUME')
    row.seen = 'the job goes on; '
    _continues(job, row)
    return row


def slurm_node_fails(slurm: Slurm, bench: Bench) -> Row:
    """The cable of a node is cut."""
    row = Row("a node's cable is cut")
    job = Job(slurm, bench, bench.work_dir()).submit(*ENDLESS)
    job.wait_for_checkpoint(10)
    bench.network.cut('n2')
    try:
        row.seconds = job.slurm.wait_until(
            lambda: job.restarts() or job.state() not in ('RUNNING', 'COMPLETING'), PATIENCE, 'its end'
        )
    finally:
        bench.network.cut('n2', False)
    output = job.output()
    row.expect('is gone (no sign of life' in output or job.restarts(), 'no sentence', output)
    row.seen = 'Slurm notices it and queues the job again' if job.restarts() else f'{job.state()}'
    job.cancel()
    slurm.wait_until(lambda: slurm.call('sinfo', '-h', '-N', '-o', '%T').count('idle') >= 4, 120, 'the nodes')
    return row


NETWORK_CASES = (
    *(stop_on_one, cut_cable, kill_one, configs_differ, unshared_resume, unshared_start, rank_0_alone),
    *(address_refused, address_unreachable, name_unknown, name_is_loopback, interface_unreachable),
)
SLURM_CASES = (
    *(slurm_trains, slurm_time_limit, slurm_preemption, slurm_signal, slurm_script_signal, slurm_cancel),
    *(slurm_kill, slurm_lock, slurm_drain, slurm_node_fails),
)


def tried(case: Callable[..., Row], *arguments: object) -> Row:
    """Run a case; one that fails is a row as well."""
    begin = time.monotonic()
    try:
        row = case(*arguments)
    except (TimeoutError, RuntimeError, OSError) as error:
        row = Row(case.__name__, problems=[f'{type(error).__name__}: {error}'])
    state = 'as expected' if not row.problems else 'NOT AS EXPECTED'
    print(f'{case.__name__}: {state}, {time.monotonic() - begin:.0f} s; {row.line()}', flush=True)
    for problem in row.problems:
        print(f'    {problem}', flush=True)
    return row


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = ['| tried | seen | seconds to the end |', '|---|---|---|']
    return '\n'.join([*lines, *(row.line() for row in rows)])


def main() -> int:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--only', nargs='+', default=[], metavar='WORD', help='cases with one of these in their name'
    )
    args = parser.parse_args()
    missing = sorted({package for name, package in NEEDED.items() if not shutil.which(name)})
    if os.geteuid() or missing:
        what = f'install {", ".join(missing)}' if missing else 'run it as root'
        print(f'error: hosts are network namespaces, and the cluster is Slurm: {what}', file=sys.stderr)
        return 1
    if PREFIX in call('ip netns list'):
        print(
            f'error: there are network namespaces {PREFIX}*: another one of this is running', file=sys.stderr
        )
        return 1

    def selected(cases: tuple) -> list:
        return [case for case in cases if not args.only or any(word in case.__name__ for word in args.only)]

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and end what was started
    folder = Path(tempfile.mkdtemp(prefix='mmmeta-cluster-'))
    folder.chmod(0o755)
    print(f'outputs are in {folder}', flush=True)
    rows: list[list[Row]] = [[], []]
    with Network(folder) as network:
        bench = Bench(folder, network)
        bench.prepare()
        rows[0] = [tried(case, bench) for case in selected(NETWORK_CASES)]
        cases = selected(SLURM_CASES)
        if cases:
            with Slurm(network, ROOT) as slurm:
                rows[1] = [tried(case, slurm, bench) for case in cases]
    is_good = not any(row.problems for part in rows for row in part)
    if is_good:
        shutil.rmtree(folder)
    if not args.only:
        write(rows)
    return 0 if is_good else 1


def write(rows: list[list[Row]]) -> None:
    """Write the tables into the page."""
    import torch

    version = call('slurmd -V').split()[1]
    text = (
        'Two hosts with a cable between them, `NNODES=2 tools/dist_train.sh`, one process on each:\n\n'
        f'{table(rows[0])}\n\nSlurm {version} on the same two hosts, `tools/slurm/train_cpu.sh`:\n\n'
        f'{table(rows[1])}\n\nPython {platform.python_version()}, torch {torch.__version__}, Linux '
        f'{platform.release().partition("-")[0]}, {os.cpu_count()} cores, Gloo.'
    )
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f'{before}{BEGIN}\n\n{text}\n\n{END}{after}')


if __name__ == '__main__':
    sys.exit(main())
