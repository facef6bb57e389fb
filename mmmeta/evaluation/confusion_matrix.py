"""Confusion matrix of a segmentor, a classifier or a detector."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmmeta.registry import METRICS
from mmmeta.utils.atomic import written
from mmmeta.utils.errors import UsageError

# Last class of a detector: what is annotated and was not found, and what was found and is not annotated.
BACKGROUND = 'background'


@METRICS.register_module()
class ConfusionMatrix(BaseMetric):
    """What was annotated by what was predicted, over a whole data set; written as CSV and drawn.

    Of a segmentor pixels are counted, of a classifier images, and of a detector objects: a predicted object
    is that of the annotation which it overlaps most, each taken once, whatever their classes.

    Args:
        out_dir (str): Where ``confusion_matrix.csv`` (counts; a row for each annotated class) and
            ``confusion_matrix.png`` (percent of each row) go.
        largest (int): How many classes are drawn, those with the most annotations. Defaults to 30.
        ignore_index (int): Label of pixels that do not count. Defaults to 255.
        score_thr (float): Objects with a lower score do not count. Defaults to 0.3.
        iou_thr (float): Intersection over union from which objects are the same. Defaults to 0.5.
        collect_device (str): As in MMEngine. Defaults to ``'cpu'``.
    """

    default_prefix = 'confusion'

    def __init__(
        self,
        out_dir: str,
        largest: int = 30,
        ignore_index: int = 255,
        score_thr: float = 0.3,
        iou_thr: float = 0.5,
        collect_device: str = 'cpu',
    ) -> None:
        super().__init__(collect_device)
        self.out_dir, self.largest, self.ignore_index = Path(out_dir), largest, ignore_index
        self.score_thr, self.iou_thr = score_thr, iou_thr

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels or objects of each image, or the image."""
        for sample in data_samples:
            unit, annotated, predicted = self._pairs(sample)
            # An image contains few of 150 classes: the pairs that occur take less memory than a matrix.
            pairs = torch.stack([annotated, predicted]).cpu().unique(dim=1, return_counts=True)
            self.results.append((unit, *pairs))

    def _pairs(self, sample: Mapping[str, Any]) -> tuple[str, Tensor, Tensor]:
        """What is counted, and its annotated and its predicted classes; -1 for none."""
        if 'pred_sem_seg' in sample:
            annotated = sample['gt_sem_seg']['data'].squeeze(0).long()
            predicted = sample['pred_sem_seg']['data'].squeeze(0).to(annotated)
            counts = annotated != self.ignore_index
            return 'pixels', annotated[counts], predicted[counts]
        if 'pred_label' in sample:
            if sample['gt_label'].numel() != 1:
                raise UsageError(
                    'images with several labels have no confusion matrix: give a config with one'
                )
            return 'images', sample['gt_label'].flatten().long(), sample['pred_label'].flatten().long()
        if 'pred_instances' not in sample:
            raise UsageError('what this network predicts is neither classes of pixels, images nor objects')
        return 'objects', *self._match(sample)

    def _match(self, sample: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Classes of annotated and predicted objects, side by side where they are the same object."""
        from mmdet.structures.bbox import bbox_overlaps

        found, annotated = sample['pred_instances'], sample['gt_instances']
        kept = found['scores'] >= self.score_thr
        boxes, labels = found['bboxes'][kept].float(), found['labels'][kept]
        ignored = _tensor(sample.get('ignored_instances', {}).get('bboxes', boxes[:0])).to(boxes)
        if len(ignored) and len(boxes):  # crowds
            outside = bbox_overlaps(boxes, ignored, mode='iof').amax(1) < self.iou_thr
            boxes, labels = boxes[outside], labels[outside]
        given = annotated['labels'].to(labels)
        overlaps = bbox_overlaps(_tensor(annotated['bboxes']).to(boxes), boxes)
        matched = torch.full_like(given, -1)
        while overlaps.numel() and overlaps.max() >= self.iou_thr:
            place = int(overlaps.argmax())
            row, column = divmod(place, overlaps.shape[1])
            matched[row] = column
            overlaps[row], overlaps[:, column] = -1, -1
        alone = torch.ones_like(labels, dtype=torch.bool)
        alone[matched[matched >= 0]] = False
        predicted = torch.where(matched >= 0, labels[matched] if len(labels) else matched, -1)
        return (
            torch.cat([given, torch.full_like(labels[alone], -1)]),
            torch.cat([predicted, labels[alone]]),
        )

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Sum over the images, write the files, and return the share that is right in percent."""
        names, unit = list(self.dataset_meta['classes']), results[0][0]
        if unit == 'objects':
            names.append(BACKGROUND)
        matrix = torch.zeros(len(names), len(names), dtype=torch.int64)
        for _, (annotated, predicted), counts in results:
            matrix[annotated, predicted] += counts  # each pair once; -1 is the last class
        matrix = matrix.numpy()
        self.out_dir.mkdir(parents=True, exist_ok=True)
        header = ','.join(f'"{name}"' for name in names)
        np.savetxt(
            self.out_dir / 'confusion_matrix.csv', matrix, fmt='%d', delimiter=',', header=header, comments=''
        )
        self._draw(matrix, names, unit)
        if unit == 'objects':
            return {'recall': 100.0 * np.trace(matrix) / max(matrix[:-1].sum(), 1)}
        return {'aAcc': 100.0 * np.trace(matrix) / max(matrix.sum(), 1)}

    def _draw(self, matrix: np.ndarray, names: list[str], unit: str) -> None:
        """Draw the classes with the most annotations."""
        annotated = matrix.sum(1)
        order = [i for i in np.argsort(-annotated, kind='stable')[: self.largest] if annotated[i]]
        if unit == 'objects' and len(names) - 1 not in order:
            order.append(len(names) - 1)  # what was not found is always shown
        share = 100 * matrix[np.ix_(order, order)] / np.maximum(annotated[order], 1)[:, None]
        labels = [names[i].split(',')[0] for i in order]
        columns, others = list(labels), np.where(annotated[order] > 0, 100 - share.sum(1), 0)
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
        figure.colorbar(image, ax=axes, shrink=0.7, label=f'% of the annotated {unit}')
        with written(self.out_dir / 'confusion_matrix.png') as draft:
            figure.savefig(draft, dpi=120)
        plt.close(figure)


def _tensor(boxes: Any) -> Tensor:
    """Boxes as a tensor; MMDetection wraps annotated ones."""
    return getattr(boxes, 'tensor', boxes)
