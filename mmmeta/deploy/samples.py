"""Parts of data sets, for what needs some images of an application."""

import json
import os
from pathlib import Path

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope

from mmmeta.config.building import build
from mmmeta.config.inspection import datasets
from mmmeta.utils.errors import UsageError


def training_images(cfg: Config, samples: int) -> list[str]:
    """Files of images of a training set, evenly spread over it.

    Args:
        cfg (Config): As :func:`~mmmeta.apis.load_config` returns it.
        samples (int): How many, at most.

    Raises:
        UsageError: The config has no training set, or a file is missing.
    """
    described = next(datasets(cfg.get('train_dataloader') or ConfigDict()), None)
    if described is None:
        raise UsageError(f"'{cfg.filename}' has no training set to calibrate with: give --calibration IMAGES")
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    try:
        data = build(DATASETS.build, ConfigDict(described))
    except FileNotFoundError as error:
        raise UsageError(
            f'the training set is not there ({error.filename or error}): give --calibration IMAGES'
        ) from error
    return [data.get_data_info(i)['img_path'] for i in _spread(len(data), samples)]


def take_samples(cfg: Config, samples: int, folder: Path) -> None:
    """Leave some images in the test set of a config, evenly spread over it.

    Args:
        cfg (Config): In place.
        samples (int): How many, at most.
        folder (Path): For annotations of these images alone, as COCO's metric judges by all that are listed.

    Raises:
        UsageError: The test set is of another kind.
    """
    dataset = cfg.test_dataloader.dataset if cfg.get('test_dataloader') else ConfigDict()
    if cfg.get('default_scope') != 'mmdet':
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        dataset.indices = _spread(len(build(DATASETS.build, ConfigDict(dataset))), samples)
        return
    path = Path(os.path.join(dataset.get('data_root') or '', dataset.ann_file))
    content = json.loads(path.read_text())
    chosen = [content['images'][i] for i in _spread(len(content['images']), samples)]
    names = {image['id'] for image in chosen}
    content['images'] = chosen
    content['annotations'] = [one for one in content['annotations'] if one['image_id'] in names]
    own = folder / 'annotations.json'
    own.write_text(json.dumps(content))
    dataset.ann_file = cfg.test_evaluator.ann_file = str(own)


def _spread(length: int, samples: int) -> list[int]:
    """Numbers of some of many, evenly spread."""
    if samples < 1:
        raise UsageError(f'samples={samples}: give a positive number')
    return np.linspace(0, length - 1, min(samples, length)).round().astype(int).tolist()
