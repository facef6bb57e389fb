"""The first run: train a real config on a small data set, and show what it learned."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mmmeta.analysis.curves import plot_loss
from mmmeta.analysis.segmentation import most_common_class_miou
from mmmeta.datasets import generate_ade20k
from mmmeta.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'configs/demo/upernet_caformer_s18_shapes.py'


def _run(step: str, *command: str) -> None:
    """Run a command line of ours in the foreground."""
    print(f'\n== {step}\n$ {" ".join(command)}', flush=True)
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, 'PYTHON': sys.executable})
    if result.returncode:
        raise UsageError(f'{step} failed (exit status {result.returncode}); what went wrong stands above')


def _miou(work_dir: Path) -> float:
    """The mIoU that the newest evaluation in a work directory found."""
    results = sorted(work_dir.glob('*/[0-9]*.json'))
    if not results:
        raise UsageError(f"no evaluation in '{work_dir}'")
    return json.loads(results[-1].read_text())['mIoU']


def run_demo(data: str | None, work_dir: str, processes: int, options: list[str]) -> None:
    """Train and evaluate CAFormer-S18 + UperNet through the command lines, and report.

    Args:
        data (str | None): Folder that holds ``ADEChallengeData2016``; None generates a small data set.
        work_dir (str): Where everything goes.
        processes (int): Processes to train and test on.
        options (list[str]): More ``KEY=VALUE`` pairs for ``--cfg-options``.

    Raises:
        UsageError: A step failed.
    """
    start = time.monotonic()
    data_root = Path(data) / 'ADEChallengeData2016' if data else generate_ade20k(ROOT / 'data/shapes')
    data_root = data_root.resolve()
    work = Path(work_dir).resolve()
    # What an earlier run left would mix with this one's results; nothing else in the folder is touched.
    for part in ('before', 'train', 'after'):
        shutil.rmtree(work / part, ignore_errors=True)
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    options = ['--cfg-options', *(f'{name}.dataset.data_root={data_root}' for name in loaders), *options]

    def evaluate(step: str, checkpoint: str, *more: str) -> float:
        folder = work / step
        command = ('tools/dist_test.sh', CONFIG, checkpoint, str(processes), '--work-dir', str(folder))
        _run(f'evaluate {step} training', *command, *more, *options)
        return _miou(folder)

    before = evaluate('before', 'none')
    command = ('tools/dist_train.sh', CONFIG, str(processes), '--work-dir', str(work / 'train'))
    _run('train', *command, *options)
    checkpoint = (work / 'train/last_checkpoint').read_text()
    pictures = work / 'after/pictures'
    after = evaluate('after', checkpoint, '--show-dir', str(pictures))
    plot_loss(work / 'train', work / 'loss.png')
    guess = most_common_class_miou(data_root / 'annotations/validation')

    print(f'\n{"mIoU (%)":24}{"before":>10}{"after":>10}{"ratio":>10}')
    print(f'{"CAFormer-S18 + UperNet":24}{before:10.2f}{after:10.2f}{after / max(before, 0.01):9.1f}x')
    print(f'{"most common class":24}{guess:10.2f}{guess:10.2f}')
    print(f'\nannotation | prediction: {pictures}/vis_data/vis_image/')
    print(f'loss curve:              {work}/loss.png')
    print(f'checkpoint:              {checkpoint}')
    print(f'time:                    {time.monotonic() - start:.0f} s')
