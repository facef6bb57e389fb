"""Confusion matrix of a segmentor."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from mmmeta.registry import METRICS
from mmmeta.utils.atomic import written


@METRICS.register_module()
class ConfusionMatrix(BaseMetric):
    """Pixels by annotated and predicted class, over a whole data set; written as CSV and drawn.

    Args:
        out_dir (str): Where ``confusion_matrix.csv`` (pixels; a row for each annotated class) and
            ``confusion_matrix.png`` (percent of each row) go.
        largest (int): How many classes are drawn, those with the most annotated pixels. Defaults to 30.
        ignore_index (int): Label of pixels that do not count. Defaults to 255.
        collect_device (str): As in MMEngine. Defaults to ``'cpu'``.
    """

    default_prefix = 'confusion'

    def __init__(
        self, out_dir: str, largest: int = 30, ignore_index: int = 255, collect_device: str = 'cpu'
    ) -> None:
        super().__init__(collect_device)
        self.out_dir, self.largest, self.ignore_index = Path(out_dir), largest, ignore_index

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of each image."""
        classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            annotated = sample['gt_sem_seg']['data'].squeeze(0).long()
            predicted = sample['pred_sem_seg']['data'].squeeze(0).to(annotated)
            counts = annotated != self.ignore_index
            pairs = annotated[counts] * classes + predicted[counts]
            # An image contains few of 150 classes: the pairs that occur take less memory than a matrix.
            self.results.append(tuple(part.cpu() for part in pairs.unique(return_counts=True)))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Sum over the images, write the files, and return the pixel accuracy in percent."""
        names = list(self.dataset_meta['classes'])
        flat = torch.zeros(len(names) ** 2, dtype=torch.int64)
        for pairs, counts in results:
            flat[pairs] += counts
        matrix = flat.reshape(len(names), -1).numpy()
        self.out_dir.mkdir(parents=True, exist_ok=True)
        header = ','.join(f'"{name}"' for name in names)
        np.savetxt(
            self.out_dir / 'confusion_matrix.csv', matrix, fmt='%d', delimiter=',', header=header, comments=''
        )
        self._draw(matrix, names)
        return {'aAcc': 100.0 * np.trace(matrix) / max(matrix.sum(), 1)}

    def _draw(self, matrix: np.ndarray, names: list[str]) -> None:
        """Draw the classes with the most pixels."""
        pixels = matrix.sum(1)
        order = [i for i in np.argsort(-pixels, kind='stable')[: self.largest] if pixels[i]]
        share = 100 * matrix[np.ix_(order, order)] / pixels[order][:, None]
        labels = [names[i].split(',')[0] for i in order]
        columns, others = list(labels), 100 - share.sum(1)
        if others.max(initial=0) > 0.05:  # rows add up to 100
            share, columns = np.column_stack([share, others]), [*labels, 'others']
        side = 2.5 + 0.3 * len(order)
        figure, axes = plt.subplots(figsize=(side, side), layout='constrained')
        image = axes.imshow(share, cmap='viridis', vmin=0, vmax=100)
        axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
        axes.set_yticks(range(len(order)), labels, fontsize=7)
        axes.set(xlabel='predicted', ylabel='annotated')
        if len(order) <= 30:
            for row, column in zip(*np.nonzero(share >= 1), strict=True):
                value = share[row, column]
                colour = 'black' if value > 60 else 'white'
                axes.text(column, row, f'{value:.0f}', ha='center', va='center', fontsize=6, color=colour)
        figure.colorbar(image, ax=axes, shrink=0.7, label='% of the annotated pixels')
        with written(self.out_dir / 'confusion_matrix.png') as draft:
            figure.savefig(draft, dpi=120)
        plt.close(figure)
