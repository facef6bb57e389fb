#!/usr/bin/env python
"""Interrupt runs at random moments, resume them to their end, and compare them with uninterrupted ones.

python tests/soak/soak.py segmentor --runs 20

Each run has one or two processes, data workers or none, float32 or mixed precision, and one to three
interruptions: SIGKILL, SIGTERM, a disk that is full at the next checkpoint, images that vanish. Weights,
their averages, optimiser, random states and the losses in the log have to be those of an uninterrupted run,
bit for bit.
"""

import argparse
import csv
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests'))

from conftest import losses  # noqa: E402

from mmmeta.datasets import generate_ade20k, generate_coco, generate_imagenet  # noqa: E402

FAULTS = ('SIGKILL', 'SIGTERM', 'full disk', 'images vanish')
WITHOUT_WORKERS = ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']
# Generator of the data, and the ways in which it is trained: arguments and options.
TASKS = {
    'segmentor': (generate_ade20k, [([], []), (['--amp'], WITHOUT_WORKERS)]),
    'detector': (generate_coco, [([], []), ([], WITHOUT_WORKERS)]),
    'classifier': (generate_imagenet, [([], []), (['--amp'], WITHOUT_WORKERS)]),
}


class Task:
    """Runs of one config on generated data."""

    def __init__(self, name: str, folder: Path) -> None:
        generate, self.ways = TASKS[name]
        self.config = f'tests/soak/{name}.py'
        train, val = (180, 18) if name == 'classifier' else (40, 4)
        self.root = Path(generate(folder / 'data', train, val, 64))
        loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
        self.options = [f'{loader}.dataset.data_root={self.root}' for loader in loaders]
        if name == 'detector':
            annotations = f'{self.root}/annotations/instances_val2017.json'
            self.options += [f'{split}_evaluator.ann_file={annotations}' for split in ('val', 'test')]

    def start(self, work_dir: Path, processes: int, way: int, disk: int | None = None) -> subprocess.Popen:
        """Start or resume a run."""
        command = [sys.executable, 'tools/train.py', self.config]
        if processes > 1:
            command = ['tools/dist_train.sh', self.config, str(processes)]

        arguments, options = self.ways[way]

        def limit() -> None:
            if disk is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (disk, disk))

        log = open(work_dir.with_suffix('.log'), 'a')  # noqa: SIM115
        return subprocess.Popen(
            [
                *(*command, *arguments, '--resume', '--work-dir', str(work_dir)),
                *('--cfg-options', *self.options, *options),
            ],
            cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=limit,
            env=dict(os.environ, OMP_NUM_THREADS='1', PYTHON=sys.executable, CUDA_VISIBLE_DEVICES=''),
        )  # fmt: skip

    def interrupt(self, work_dir: Path, processes: int, way: int, fault: str, seconds: float) -> str:
        """Start a run and interrupt it; returns how it ended."""
        process = self.start(work_dir, processes, way, 200_000 if fault == 'full disk' else None)
        hidden = self.root.with_name('hidden')
        try:
            if fault != 'full disk':
                try:
                    process.wait(seconds)
                    return 'had ended'
                except subprocess.TimeoutExpired:
                    pass
            if fault == 'SIGKILL':
                kill_all(process)
            elif fault == 'SIGTERM':
                process.send_signal(signal.SIGTERM)
            elif fault == 'images vanish':
                self.root.rename(hidden)
            return f'status {process.wait(300)}'
        finally:
            if hidden.exists():
                hidden.rename(self.root)
            kill_all(process)


def kill_all(process: subprocess.Popen) -> None:
    """Kill a process and all that it started; a launcher that is killed leaves its processes running."""
    if process.poll() is None:
        started = psutil.Process(process.pid).children(recursive=True)
        for part in (process, *started):
            with suppress(psutil.NoSuchProcess):
                part.kill()


def outcome(work_dir: Path) -> tuple[dict, dict[int, float]]:
    """What has to be equal."""
    checkpoint = torch.load((work_dir / 'last_checkpoint').read_text(), weights_only=True)
    keys = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'random_states')
    return {key: checkpoint.get(key) for key in keys}, losses(work_dir)


def is_equal(a: object, b: object) -> bool:
    """Whether nested values are the same, bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(is_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(is_equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def differences(a: tuple, b: tuple) -> list[str]:
    """What is not the same."""
    (state, scalars), (expected, wanted) = a, b
    found = [key for key in expected if not is_equal(state[key], expected[key])]
    steps = [step for step in wanted if scalars.get(step) != wanted[step]]
    return found + ([f'losses of {steps[:5]}'] if steps else [])


def main() -> None:
    """Soak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('task', choices=TASKS)
    parser.add_argument('--runs', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--processes', type=int, nargs='+', default=[1, 2], help='one of these for each run')
    args = parser.parse_args()
    draw = random.Random(args.seed)
    writer = csv.writer(sys.stdout)
    writer.writerow(['task', 'run', 'processes', 'way', 'interruptions', 'result'])
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        task = Task(args.task, folder)
        whole, duration = {}, {}
        for run in range(args.runs):
            kind = processes, way = draw.choice(args.processes), draw.randrange(len(task.ways))
            work_dir = folder / f'run{run}'
            if kind not in whole:
                start, path = time.monotonic(), folder / f'whole{processes}{way}'
                status = task.start(path, *kind).wait()
                assert status == 0, path.with_suffix('.log').read_text()[-3000:]
                whole[kind], duration[kind] = outcome(path), time.monotonic() - start
            ends = []
            for _ in range(draw.randint(1, 3)):
                fault = draw.choice(FAULTS)
                moment = draw.uniform(0.5, 1) * duration[kind]
                ends.append(f'{fault}: {task.interrupt(work_dir, *kind, fault, moment)}')
            status = task.start(work_dir, *kind).wait()
            differing = [f'status {status}'] if status else differences(outcome(work_dir), whole[kind])
            same = not differing
            failed += not same
            named = ' '.join((*task.ways[way][0], *(['no workers'] if task.ways[way][1] else [])))
            result = 'equal' if same else f'DIFFERENT: {differing}'
            writer.writerow([args.task, run, processes, named, '; '.join(ends), result])
            sys.stdout.flush()
            if status:
                print((folder / f'run{run}.log').read_text()[-3000:], file=sys.stderr)
    sys.exit(bool(failed))


if __name__ == '__main__':
    main()
