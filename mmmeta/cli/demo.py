"""The first run: train a real config on a small data set, and show what it learned."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS, init_default_scope

from mmmeta.analysis.curves import plot_curves, read_curves
from mmmeta.analysis.segmentation import most_common_class_miou
from mmmeta.apis.inference import build_model, show
from mmmeta.config.building import build
from mmmeta.config.loading import load_config
from mmmeta.datasets import generate_ade20k, generate_coco
from mmmeta.utils.atomic import written
from mmmeta.utils.errors import UsageError
from mmmeta.utils.resources import resource_root
from mmmeta.visualization.drawing import draw_item
from mmmeta.visualization.pictures import grid

from .arguments import add_config_options


@dataclass(frozen=True)
class Demo:
    """Settings of a demo task.

    Attributes:
        title (str): The network.
        config (str): The config.
        folder (str): Name of the data set's folder.
        generate (callable): Generates a small data set in the given folder.
        metrics (dict[str, str]): Names of the metrics that are reported, and their keys; values up to
            ``scale`` stand for 100 percent.
        scale (float): See ``metrics``.
        annotations (str | None): Annotation file of the metric, relative to the data set; None where there is
            no file of its own.
        pictures (str): Where the pictures are, in their folder.
    """

    title: str
    config: str
    folder: str
    generate: Callable[[Path], Path]
    metrics: dict[str, str]
    scale: float = 1.0
    annotations: str | None = None
    pictures: str = ''


DEMOS = {
    'segmentation': Demo(
        'CAFormer-S18 + UperNet',
        'configs/demo/upernet_caformer_s18_shapes.py',
        'ADEChallengeData2016',
        generate_ade20k,
        {'mIoU': 'mIoU'},
        scale=100.0,
        pictures='vis_data/vis_image/',
    ),
    'detection': Demo(
        'CAFormer-S18 + Mask R-CNN',
        'configs/demo/mask_rcnn_caformer_s18_shapes.py',
        'coco',
        generate_coco,
        {'AP50 box': 'coco/bbox_mAP_50', 'AP50 mask': 'coco/segm_mAP_50'},
        annotations='annotations/instances_val2017.json',
    ),
}


def _run(step: str, *command: str) -> None:
    """Run a command line of ours in the foreground."""
    print(f'\n== {step}\n$ {" ".join(command)}', flush=True)
    result = subprocess.run(command, cwd=resource_root(), env={**os.environ, 'PYTHON': sys.executable})
    if result.returncode:
        raise UsageError(f'{step} failed (exit status {result.returncode}); see the output above')


def _logged_metrics(work_dir: Path) -> dict[str, float]:
    """Metrics of the newest evaluation in a work directory."""
    results = sorted(work_dir.glob('*/[0-9]*.json'))
    if not results:
        raise UsageError(f"no evaluation in '{work_dir}'")
    return json.loads(results[-1].read_text())


def run_demo(task: str, data: str | None, work_dir: str, processes: int, options: list[str]) -> None:
    """Train and evaluate a network through the command lines, and report.

    Args:
        task (str): ``'segmentation'``, CAFormer-S18 with UperNet, or ``'detection'``, with Mask R-CNN.
        data (str | None): Folder that holds ``ADEChallengeData2016`` or ``coco``; None generates a small data
            set.
        work_dir (str): Output folder.
        processes (int): Processes to train and test on.
        options (list[str]): More ``KEY=VALUE`` pairs for ``--cfg-options``.

    Raises:
        UsageError: A step failed.
    """
    start = time.monotonic()
    demo = DEMOS[task]
    data_root = Path(data) / demo.folder if data else demo.generate(resource_root() / 'data/shapes')
    data_root = data_root.resolve()
    work = Path(work_dir).resolve()
    # Remove the output of an earlier run, which would mix with this one's; nothing else is touched.
    for part in ('before', 'train', 'after'):
        shutil.rmtree(work / part, ignore_errors=True)
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    data_options = [f'{name}.dataset.data_root={data_root}' for name in loaders]
    if demo.annotations:
        metrics = ('val_evaluator', 'test_evaluator')
        data_options += [f'{name}.ann_file={data_root / demo.annotations}' for name in metrics]
    options = ['--cfg-options', *data_options, *options]

    def tool_command(tool: str, *arguments: str) -> tuple[str, ...]:
        if processes == 1:
            return sys.executable, f'tools/{tool}.py', demo.config, *arguments
        return f'tools/dist_{tool}.sh', demo.config, *arguments, str(processes)

    def evaluate(step: str, checkpoint: str, *more: str) -> dict[str, float]:
        folder = work / step
        command = (*tool_command('test', checkpoint), '--work-dir', str(folder))
        _run(f'evaluate {step} training', *command, *more, *options)
        found = _logged_metrics(folder)
        # A detector that finds nothing at all is not evaluated.
        return {name: 100 / demo.scale * found.get(key, 0.0) for name, key in demo.metrics.items()}

    before = evaluate('before', 'none')
    _run('train', *tool_command('train'), '--work-dir', str(work / 'train'), *options)
    checkpoint = (work / 'train/last_checkpoint').read_text()
    pictures = work / 'after/pictures'
    after = evaluate('after', checkpoint, '--show-dir', str(pictures))
    plot_curves({'train': read_curves(work / 'train', ['loss'])}, work / 'loss.png')

    draw_grid(demo.config, checkpoint, _parse_options(options), work / 'demo.png')

    print(f'\n{demo.title:36}{"before":>10}{"after":>10}{"ratio":>10}')
    for name, value in before.items():
        print(f'{name + " (%)":36}{value:10.2f}{after[name]:10.2f}{after[name] / max(value, 0.01):9.1f}x')
    if task == 'segmentation':
        guess = most_common_class_miou(data_root / 'annotations/validation')
        print(f'{"mIoU (%) of the most common class":36}{guess:10.2f}{guess:10.2f}')
    print(f'\nbefore and after: {work}/demo.png')
    print(f'all predictions:  {pictures}/{demo.pictures}')
    print(f'loss curve:       {work}/loss.png')
    print(f'checkpoint:       {checkpoint}')
    print(f'time:             {time.monotonic() - start:.0f} s')


def _parse_options(options: list[str]) -> dict[str, Any]:
    """``--cfg-options`` as a tool reads them."""
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    return parser.parse_args(options).cfg_options


def draw_grid(config: str, checkpoint: str, options: dict[str, Any], path: Path, count: int = 3) -> None:
    """Draw some images with their annotations, and with what is predicted before and after training.

    Args:
        config (str): The config.
        checkpoint (str): Checkpoint of the trained network.
        options (dict): Overrides of the config.
        path (Path): The PNG file.
        count (int): Number of images. Defaults to 3.
    """
    cfg = load_config(str(resource_root() / config), options)
    init_default_scope(cfg.default_scope)
    dataset = build(DATASETS.build, cfg.test_dataloader.dataset)
    rows, images = [], []
    for i in range(min(count, len(dataset))):
        item = dataset[i]
        images.append(item['data_samples'].img_path)
        rows.append([pixels for _, pixels in draw_item(cfg.default_scope, item, dataset)])
    for weights in ('none', checkpoint):
        model = build_model(str(resource_root() / config), weights, options=options)
        for row, image in zip(rows, images, strict=True):
            row.append(show(model, image)[0][-1][1])
    titles = 'image', 'annotation', 'prediction before training', 'prediction after training'
    with written(path) as draft:
        grid(titles, rows, height=80).save(draft)  # to be read where all is as wide as a page
