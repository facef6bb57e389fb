"""Evaluate exported networks on the test set of a config."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

from mmengine.config import Config

from mmmeta.deploy.samples import take_samples
from mmmeta.runtime import Network, load
from mmmeta.utils.errors import UsageError

from .run import evaluate, testing

# Metrics that are judged by, and what one of theirs is in points.
POINTS = {'mIoU': 1, 'accuracy/top1': 1, 'coco/bbox_mAP': 100, 'coco/segm_mAP': 100}


def evaluate_exported(
    cfg: Config, file: str, engine: str | None = None, threads: int = 0, trusted: bool = False
) -> dict[str, float]:
    """Evaluate an exported file on the test set of a config, with its metrics.

    Images are read and resized by the runtime of the file, not by the pipeline of the config.

    Args:
        cfg (Config): As :func:`~mmmeta.apis.load_config` returns it.
        file (str): What :func:`mmmeta.deploy.export` wrote.
        engine (str | None): As of :func:`mmmeta.deploy.load`. Defaults to None.
        threads (int): As there. Defaults to 0.
        trusted (bool): Whether the file may execute code, as there. Defaults to False.

    Returns:
        dict[str, float]: The metrics.

    Raises:
        UsageError: As :func:`~mmmeta.apis.train`, or the file cannot be run, or is of another task.
    """
    task = load(file, engine, threads, trusted=trusted).description.task
    tasks = dict(mmdet='detection', mmseg='segmentation', mmpretrain='classification')
    if tasks.get(cfg.get('default_scope')) != task:
        raise UsageError(f"'{file}' is of a network for {task}, and '{cfg.filename}' tests something else")
    own = dict(file=os.path.abspath(file), engine=engine, threads=threads, trusted=trusted)
    cfg.model = dict(type='mmmeta.ExportedModel', **own)
    return evaluate(cfg, None, checks=False)


@contextmanager
def judging(cfg: Config, samples: int) -> Iterator[Callable[[Network], float]]:
    """Judge exported networks by the metric of a config, on a part of its test set.

    Args:
        cfg (Config): As :func:`~mmmeta.apis.load_config` returns it.
        samples (int): Images, evenly spread over the test set.

    Yields:
        callable: Gives the metric of a network in points: mIoU, top-1, or the mean of the APs.

    Raises:
        UsageError: As :func:`evaluate`, or the config has none of these metrics.
    """
    with tempfile.TemporaryDirectory() as folder:
        take_samples(cfg, samples, Path(folder))
        cfg.work_dir, cfg.log_level = folder, 'WARNING'
        cfg.model = dict(type='mmmeta.ExportedModel')
        with testing(cfg, None, trust_checkpoint=False, checks=False) as runner:

            def judge(network: Network) -> float:
                runner.model.network = network
                with redirect_stdout(StringIO()):
                    metrics = runner.test()
                found = [scale * metrics[key] for key, scale in POINTS.items() if key in metrics]
                if not found:
                    raise UsageError(
                        f"'{cfg.filename}' has none of the metrics {', '.join(POINTS)}: leave out --max-drop"
                    )
                return sum(found) / len(found)

            yield judge
