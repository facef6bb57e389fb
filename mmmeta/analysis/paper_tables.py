"""The numbers that the papers print, for comparing with what is measured."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAPER_DIR = Path(__file__).parent / 'paper'


def load_paper_table(name: str) -> list[dict[str, str]]:
    """Read one table of the papers.

    Args:
        name (str): ``'imagenet'``, ``'ade20k'`` or ``'coco'``.

    Returns:
        list[dict[str, str]]: A dict for each row, cells as printed; an empty string where nothing is printed.
    """
    with open(PAPER_DIR / f'{name}.csv', newline='') as file:
        return list(csv.DictReader(file))


# Methods as the tables name them, and the configs' names of them.
METHODS = {
    'Semantic FPN': 'fpn',
    'UperNet': 'upernet',
    'RetinaNet': 'retinanet',
    'Mask R-CNN': 'mask_rcnn',
    'Cascade Mask R-CNN': 'cascade_mask_rcnn',
}
OTHERS = ('swin', 'convnext')


def is_ours(backbone: str) -> bool:
    """Whether a row's backbone is a MetaFormer and not one that the papers compare with."""
    return not backbone.startswith(OTHERS)


def config_of(name: str, row: dict[str, str]) -> str:
    """The config that a row of a table belongs to.

    Args:
        name (str): The table, as :func:`load_paper_table` takes it.
        row (dict[str, str]): The row.

    Returns:
        str: The path in the repository.
    """
    if name == 'imagenet':
        return f'configs/imagenet/{row["model"]}_in1k.py'
    return f'configs/{METHODS[row["method"]]}_{row["backbone"]}_{name}.py'


@dataclass(frozen=True)
class Printed:
    """A number that a paper prints of what a model costs.

    Attributes:
        source (str): Where it is printed.
        config (str): The config of the model.
        shape (tuple[int, int]): Height and width of the image.
        kind (str): ``'params'`` (millions), ``'frozen'`` (millions), of these those that are not trained, or
            ``'macs'`` (billions).
        text (str): The number as printed.
    """

    source: str
    config: str
    shape: tuple[int, int]
    kind: str
    text: str

    def deviation(self, counted: float) -> float:
        """How far a count is off beyond the printed digits, as a part of what is printed.

        Args:
            counted (float): The count in the same unit.
        """
        decimals = len(self.text.partition('.')[2])
        beyond = max(abs(counted - float(self.text)) - 0.5 * 10**-decimals, 0.0)
        return beyond / float(self.text)


def printed_complexities() -> Iterator[Printed]:
    """Parameters and MACs of Tables I, III, V, IX and X, of all models that are ours."""
    columns = {
        'imagenet': (
            ('params_m', 'params', (224, 224)),
            ('frozen_params_m', 'frozen', (224, 224)),
            ('macs_g_224', 'macs', (224, 224)),
            ('macs_g_384', 'macs', (384, 384)),
        ),
        'ade20k': (('params_m', 'params', (512, 2048)), ('macs_g_512x2048', 'macs', (512, 2048))),
        'coco': (('macs_g', 'macs', (800, 1280)),),
    }
    for table, kinds in columns.items():
        for row in load_paper_table(table):
            if not is_ours(row.get('backbone', '')):
                continue
            for column, kind, shape in kinds:
                if row[column]:
                    yield Printed(row['source'], config_of(table, row), shape, kind, row[column])


@dataclass(frozen=True)
class Result:
    """A result that a paper prints.

    Attributes:
        source (str): Where it is printed.
        config (str): The config that obtains it, relative to the repository.
        metric (str): What is measured.
        key (str): Name of the metric in a record.
        printed (str): The number as printed, in percent.
        scale (float): What a record's number is multiplied with. Defaults to 1.0.
        tta (bool): Whether scales and flips are averaged. Defaults to False.
        test_data (str | None): Name of the config of other test data. Defaults to None.
        options (tuple): Keys and values of the config that the test changes. Defaults to ().
    """

    source: str
    config: str
    metric: str
    key: str
    printed: str
    scale: float = 1.0
    tta: bool = False
    test_data: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Name of the config."""
        return Path(self.config).stem


def _segmentation_results() -> Iterator[Result]:
    # The configs align test images to multiples of 32; the zoo has results without as well.
    plain = (('test_dataloader.dataset.pipeline.2.size_divisor', 1),)
    plain_tta = (('tta_pipeline.1.transforms.1.0.size_divisor', 1),)
    for row in load_paper_table('ade20k'):
        if not is_ours(row['backbone']):
            continue
        zoo = 'zoo' in row['source']
        columns = (
            ('miou', 'mIoU, not aligned' if zoo else 'mIoU', False, plain if zoo else ()),
            ('miou_ms_flip', 'mIoU, ms+flip, not aligned', True, plain_tta),
            ('miou_star', 'mIoU*', False, ()),
            ('miou_star_ms_flip', 'mIoU*, ms+flip', True, ()),
        )
        for column, metric, tta, options in columns:
            if row[column]:
                config = config_of('ade20k', row)
                yield Result(row['source'], config, metric, 'mIoU', row[column], tta=tta, options=options)


def _detection_results() -> Iterator[Result]:
    for row in load_paper_table('coco'):
        if not is_ours(row['backbone']):
            continue
        for column in ('ap_box', 'ap50_box', 'ap75_box', 'ap_mask', 'ap50_mask', 'ap75_mask'):
            if row[column]:
                level, _, kind = column.partition('_')
                threshold = f'_{level[2:]}' if level != 'ap' else ''
                key = f'coco/{dict(box="bbox", mask="segm")[kind]}_mAP{threshold}'
                metric = f'{level.upper()} {kind}'
                yield Result(row['source'], config_of('coco', row), metric, key, row[column], scale=100.0)


def _classification_results() -> Iterator[Result]:
    columns = dict(
        top1_224='_in1k', top1_384='_384_in1k', top1_224_in21k='_in21ft1k', top1_384_in21k='_384_in21ft1k'
    )
    for row in load_paper_table('imagenet'):
        for column, suffix in columns.items():
            if row[column]:
                config = f'configs/imagenet/{row["model"]}{suffix}.py'
                yield Result(row['source'], config, 'top-1', 'accuracy/top1', row[column])
    metrics = dict(
        mce=('mCE, ImageNet-C', 'imagenet-c/mCE', 'imagenet_c'),
        imagenet_a=('top-1, ImageNet-A', 'accuracy/top1', 'imagenet_a'),
        imagenet_r=('top-1, ImageNet-R', 'accuracy/top1', 'imagenet_r'),
        imagenet_sketch=('top-1, ImageNet-Sketch', 'accuracy/top1', 'imagenet_sketch'),
    )
    for row in load_paper_table('robustness'):
        for column, (metric, key, data) in metrics.items():
            config = config_of('imagenet', row)
            yield Result(row['source'], config, metric, key, row[column], test_data=data)


def printed_results() -> list[Result]:
    """Every result that the papers and MMSegmentation's zoo print of models that are ours."""
    return [*_segmentation_results(), *_detection_results(), *_classification_results()]
