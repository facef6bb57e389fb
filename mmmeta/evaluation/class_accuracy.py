"""Accuracy of a classifier for each class."""

import math
from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from rich.box import ASCII2
from rich.console import Console
from rich.table import Table

from mmmeta.registry import METRICS
from mmmeta.utils.errors import UsageError


@METRICS.register_module()
class ClassAccuracy(BaseMetric):
    """Share of the images of each class that are predicted as it, in a table of the log.

    The metric is the mean over the classes that have images (balanced accuracy), in percent.

    Args:
        collect_device (str): As in MMEngine. Defaults to ``'cpu'``.
    """

    default_prefix = 'accuracy'

    def __init__(self, collect_device: str = 'cpu') -> None:
        super().__init__(collect_device)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Note the class of each image, and whether it is predicted."""
        for sample in data_samples:
            if sample['gt_label'].numel() != 1:
                raise UsageError('images with several labels have no accuracy of a class: leave it out')
            label = int(sample['gt_label'])
            self.results.append((label, int(sample['pred_label']) == label))

    def compute_metrics(self, results: list[tuple[int, bool]]) -> dict[str, float]:
        """Log the table, and return the mean over the classes that have images."""
        names = self.dataset_meta['classes']
        labels, right = (torch.tensor(values, dtype=torch.long) for values in zip(*results, strict=True))
        images = torch.bincount(labels, minlength=len(names))
        accuracies = 100 * torch.bincount(labels, right.double(), minlength=len(names)) / images
        table = Table('class', 'accuracy', 'images', box=ASCII2)
        for name, accuracy, count in zip(names, accuracies.tolist(), images.tolist(), strict=True):
            table.add_row(name, 'nan' if math.isnan(accuracy) else f'{accuracy:.2f}', str(count))
        console = Console(width=10**4, markup=False, emoji=False, highlight=False)
        with console.capture() as capture:
            console.print(table)
        MMLogger.get_current_instance().info('\n' + capture.get().rstrip())
        return {'mean_class': accuracies[images > 0].mean().item()}
