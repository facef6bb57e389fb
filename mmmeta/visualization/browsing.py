"""Draw what leaves the pipeline of a data set."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmmeta.config.building import build
from mmmeta.config.data import check_data, explain_data_errors
from mmmeta.engine.console import quiet_packages
from mmmeta.utils.atomic import written
from mmmeta.utils.errors import UsageError
from mmmeta.utils.targets import check_writable

from .drawing import VISUALIZER_OF, draw_item
from .pictures import beside


def browse(
    cfg: Config, split: str, out_dir: str | Path, number: int | None = None
) -> tuple[int, Iterator[Path]]:
    """Draw the samples of a data set as they leave its pipeline.

    Args:
        cfg (Config): The config.
        split (str): ``'train'``, ``'val'`` or ``'test'``.
        out_dir (str | Path): Where the pictures go, as PNG files with the names of the images.
        number (int | None): Number of samples, from the first. Defaults to None: all.

    Returns:
        tuple[int, Iterator[Path]]: Number of pictures, and an iterator that draws them.

    Raises:
        UsageError: The config has no such data, they are not there, or the folder cannot be written to.
    """
    if number is not None and number < 1:
        raise UsageError(f'number={number}: give a positive number, or leave it out for all samples')
    loader = f'{split}_dataloader'
    if not isinstance((cfg.get(loader) or {}).get('dataset'), dict):
        raise UsageError(f"'{cfg.filename}' has no {loader}: choose another split")
    scope = cfg.get('default_scope')
    if scope not in VISUALIZER_OF:
        raise UsageError(
            f"default_scope='{scope}': the data of {', '.join(VISUALIZER_OF)} can be drawn; set one of them"
        )
    check_data(cfg, [loader])
    check_writable(out_dir, '--out-dir')
    init_default_scope(scope)
    with explain_data_errors(cfg, [loader], 'building'), quiet_packages():
        dataset = build(DATASETS.build, cfg[loader].dataset)
    count = min(number or len(dataset), len(dataset))
    return count, _draw(cfg, loader, dataset, scope, Path(out_dir), count)


def _draw(cfg: Config, loader: str, dataset: Any, scope: str, folder: Path, count: int) -> Iterator[Path]:
    """Draw the first samples."""
    for i in range(count):
        with explain_data_errors(cfg, [loader], 'reading'):
            item = dataset[i]
        source = Path(item['data_samples'].get('img_path', None) or f'{i}')
        # Several classes may have files of one name.
        path = folder / f'{i:06d}_{source.stem}.png'
        with written(path) as draft:
            beside(draw_item(scope, item, dataset)).save(draft)
        yield path
