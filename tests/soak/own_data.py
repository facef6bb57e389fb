"""From generated data in the formats that people have to a result, by the command lines alone.

For each format ``python -m mmmeta new`` writes a config, an untrained network is tested, the network is
trained, and its last validation is printed beside that::

    python tests/soak/own_data.py [FORMAT ...]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests'))

from conventions import MASKS, store_masks, store_voc, store_yolo  # noqa: E402

from mmmeta.datasets import generate_ade20k, generate_coco, generate_imagenet  # noqa: E402

SMALL = ('--backbone', 'poolformer_s12')
SEGMENTATION = (*SMALL, '--method', 'fpn', '--size', '64', '--epochs', '10')
DETECTION = (*SMALL, '--size', '128', '--epochs', '10', '--batch-size', '4')


def _quiet(message: str) -> None:
    """Print nothing."""


def prepare(name: str, folder: Path) -> list[str]:
    """Write the data, and return the arguments of ``new``."""
    if name in MASKS:
        store_masks(generate_ade20k(folder, 160, 24, 96, progress=_quiet), folder, name)
        images = ['--images', f'{folder}/images', '--masks', f'{folder}/masks']
        return ['seg', *images, *MASKS[name][1], *SEGMENTATION]
    if name == 'folders':
        return ['cls', str(generate_imagenet(folder, 720, 90, 64, progress=_quiet)), '--epochs', '20', *SMALL]
    coco = generate_coco(folder, 160, 40, 128, progress=_quiet)
    if name == 'COCO':
        given = [
            '--images',
            f'{coco}/train2017',
            '--annotations',
            f'{coco}/annotations/instances_train2017.json',
        ]
        return ['det', *given, '--val-fraction', '0.2', '--method', 'retinanet', *DETECTION]
    store = {'VOC': store_voc, 'YOLO': store_yolo}[name]
    annotations = {'VOC': 'Annotations', 'YOLO': 'labels'}[name]
    store(coco, folder / 'own')
    given = ['--images', f'{folder}/own/images', '--annotations', f'{folder}/own/{annotations}']
    return ['det', *given, *DETECTION]


def run(*command: str) -> str:
    """Run a command line in the checkout."""
    process = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ)
    )
    if process.returncode:
        sys.exit(f'{" ".join(command)}\n{process.stdout[-2000:]}{process.stderr[-3000:]}')
    return process.stdout


def metric(folder: Path) -> float:
    """The last result in a work directory, in percent."""
    keys = {'mIoU': 1, 'coco/bbox_mAP_50': 100, 'accuracy/top1': 1}
    # A line for each entry of a training's log; a test has one file of one line.
    logs = sorted(folder.glob('*/vis_data/scalars.json')) or sorted(folder.glob('*/2*.json'))
    lines = logs[-1].read_text().splitlines() if logs else []
    for values in map(json.loads, lines[::-1]):
        for key, scale in keys.items():
            if key in values:
                return scale * values[key]
    return 0.0


def main() -> None:
    """Run the formats."""
    parser = argparse.ArgumentParser(description=__doc__)
    formats = [*MASKS, 'COCO', 'VOC', 'YOLO', 'folders']
    parser.add_argument('formats', nargs='*', metavar='FORMAT', help=f'default: {", ".join(formats)}')
    args = parser.parse_args()
    print(f'{"format":20}{"untrained (%)":>15}{"trained (%)":>15}{"seconds":>10}')
    for name in args.formats or formats:
        with tempfile.TemporaryDirectory() as temporary:
            folder, start = Path(temporary), time.monotonic()
            config = str(folder / 'my.py')
            run('-m', 'mmmeta', 'new', *prepare(name, folder), '--weights', 'none', '--out', config)
            run('tools/test.py', config, 'none', '--work-dir', f'{folder}/before')
            run('tools/train.py', config, '--work-dir', f'{folder}/train')
            before, after = metric(folder / 'before'), metric(folder / 'train')
            print(f'{name:20}{before:15.1f}{after:15.1f}{time.monotonic() - start:10.0f}', flush=True)


if __name__ == '__main__':
    main()
