"""The numbers that the papers print, for comparing with what is measured."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAPER_DIR = Path(__file__).parent / 'paper'


def load_paper_table(name: str) -> list[dict[str, str]]:
    """Read one table of the papers.

    Args:
        name (str): ``'imagenet'``, ``'robustness'``, ``'ade20k'``, ``'coco'`` or ``'speed'``.

    Returns:
        list[dict[str, str]]: A dict for each row, cells as printed; an empty string where nothing is printed.
    """
    with open(PAPER_DIR / f'{name}.csv', newline='') as file:
        return list(csv.DictReader(file))


# Names of the methods in the tables and in the configs.
METHOD_PREFIXES = {
    'Semantic FPN': 'fpn',
    'UperNet': 'upernet',
    'RetinaNet': 'retinanet',
    'Mask R-CNN': 'mask_rcnn',
    'Cascade Mask R-CNN': 'cascade_mask_rcnn',
}
OTHERS = ('swin', 'convnext', 'maxvit')


def is_ours(backbone: str) -> bool:
    """Whether a row's backbone is a MetaFormer and not one that the papers compare with."""
    return not backbone.startswith(OTHERS)


def row_config_path(name: str, row: dict[str, str]) -> str:
    """The config that a row of a table belongs to.

    Args:
        name (str): The table, as :func:`load_paper_table` takes it.
        row (dict[str, str]): The row.

    Returns:
        str: The path in the repository.
    """
    if name == 'imagenet':
        return f'configs/imagenet/{row["model"]}_in1k.py'
    return f'configs/{METHOD_PREFIXES[row["method"]]}_{row["backbone"]}_{name}.py'


@dataclass(frozen=True)
class PrintedComplexity:
    """A complexity that a paper prints for a model.

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
        """Relative deviation of a count from the printed number, beyond its rounding.

        Args:
            counted (float): The count in the same unit.
        """
        decimals = len(self.text.partition('.')[2])
        beyond = max(abs(counted - float(self.text)) - 0.5 * 10**-decimals, 0.0)
        return beyond / float(self.text)


def printed_complexities() -> Iterator[PrintedComplexity]:
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
                    yield PrintedComplexity(
                        row['source'], row_config_path(table, row), shape, kind, row[column]
                    )


@dataclass(frozen=True)
class Result:
    """A result that a paper prints.

    Attributes:
        source (str): Where it is printed.
        config (str): The config that obtains it, relative to the repository.
        metric (str): What is measured.
        key (str): Name of the metric in a record.
        printed (str): The number as printed, in percent.
        scale (float): Factor from a record's number to percent. Defaults to 1.0.
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
    # The configs align test images to multiples of 32; the zoo also has results without alignment.
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
                config = row_config_path('ade20k', row)
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
                yield Result(
                    row['source'], row_config_path('coco', row), metric, key, row[column], scale=100.0
                )


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
            config = row_config_path('imagenet', row)
            yield Result(row['source'], config, metric, key, row[column], test_data=data)


def printed_results() -> list[Result]:
    """Every result that the papers and MMSegmentation's zoo print of models that are ours."""
    return [*_segmentation_results(), *_detection_results(), *_classification_results()]


def _other_config(method: str, backbone: str) -> str | None:
    """Config of a model that the papers compare with; None if no package ships one."""
    kind, _, size = backbone.partition('_')
    long = dict(t='tiny', s='small', b='base', l='large').get(size)
    match method, kind:
        case 'classifier', 'swin':
            return f'mmpretrain::swin_transformer/swin-{long}_16xb64_in1k.py'
        case 'classifier', 'convnext':
            return f'mmpretrain::convnext/convnext-{long}_{"64xb64" if size == "l" else "32xb128"}_in1k.py'
        case 'classifier', 'maxvit':
            return f'timm::maxvit_{long}_tf_224'
        case 'UperNet', 'swin':
            return f'mmseg::swin/swin-{long}-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
        case 'UperNet', 'convnext':
            return f'mmseg::convnext/convnext-{long}_upernet_8xb2-amp-160k_ade20k-512x512.py'
        case 'Mask R-CNN', 'swin' | 'convnext':
            return f'mmdet::{kind}/mask-rcnn_{kind}-{size}-p4-w7_fpn_amp-ms-crop-3x_coco.py'
        case 'Cascade Mask R-CNN', 'convnext' if size != 'b':
            name = f'cascade-mask-rcnn_convnext-{size}-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco'
            return f'mmdet::convnext/{name}.py'
    return None


@dataclass(frozen=True)
class PrintedSpeed:
    """A speed that arXiv:2210.13452 prints, and the setting of its measurement.

    Attributes:
        name (str): Name of the model.
        config (str | None): Its config, of this repository or another package; ``timm::`` and a name for a
            classifier of timm's; None where no package ships one.
        shape (tuple[int, int]): Height and width of the images.
        batch (int): Images at a time.
        per_second (float): Images a second as printed.
        options (dict): Overrides of the config. Defaults to {}.
    """

    name: str
    config: str | None
    shape: tuple[int, int]
    batch: int
    per_second: float
    options: dict[str, Any] = field(default_factory=dict)


def _shipped(table: str, row: dict[str, str]) -> str:
    return row_config_path(table, row).replace('configs/', 'mmmeta::')


def printed_speeds(table: str) -> list[PrintedSpeed]:
    """Speeds that a table prints.

    Args:
        table (str): ``'IX'`` (COCO, V100), ``'X'`` (ADE20K, V100) or ``'XII'`` (classifiers with GELU in the
            place of StarReLU, TF32, A100).
    """
    speeds = []
    if table == 'XII':
        for row in load_paper_table('speed'):
            name = row['model']
            if row['source'] != 'Table XII':
                continue
            ours = is_ours(name)
            config = _shipped('imagenet', row) if ours else _other_config('classifier', name)
            options = {'model.backbone.arch': dict(base=name.partition('_')[2], act='GELU')} if ours else {}
            speeds.append(PrintedSpeed(name, config, (224, 224), 128, float(row['per_second']), options))
        return speeds
    # Images of the sizes that the tables give the MACs for.
    data, shape = dict(IX=('coco', (800, 1280)), X=('ade20k', (512, 2048)))[table]
    for row in load_paper_table(data):
        if row['source'] == f'Table {table}':
            method, backbone = row['method'], row['backbone']
            config = _shipped(data, row) if is_ours(backbone) else _other_config(method, backbone)
            name = f'{METHOD_PREFIXES[method]}_{backbone}'
            speeds.append(PrintedSpeed(name, config, shape, 1, float(row['fps_v100'])))
    return speeds


def printed_activations() -> dict[str, float]:
    """Runs a second of the activations of Table XI, on a tensor of 1x1M and an A100."""
    rows = load_paper_table('speed')
    return {row['model']: float(row['per_second']) for row in rows if row['source'] == 'Table XI'}
