"""Draw samples of data sets with their annotations."""

from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import torch
from mmengine.registry import VISUALIZERS
from mmengine.structures import PixelData
from mmengine.visualization import Visualizer
from PIL import Image
from torch import Tensor

from mmmeta.config.pipelines import ANNOTATION_LOADERS, reads_unchanged
from mmmeta.datasets.classes import class_colours
from mmmeta.runtime.run import enlarge, scale_of, to_picture

VISUALIZER_OF: dict[str, dict[str, Any]] = dict(
    mmseg=dict(type='SegLocalVisualizer', alpha=0.6),
    mmdet=dict(type='DetLocalVisualizer'),
    mmpretrain=dict(type='UniversalVisualizer'),
)


@cache
def _visualizer(scope: str) -> Visualizer:
    # MMEngine keeps visualisers by name, and warns when one is built again.
    return VISUALIZERS.build(dict(VISUALIZER_OF[scope], name=f'mmmeta_{scope}'))


def build_visualizer(scope: str, dataset_meta: dict) -> Visualizer:
    """Build the visualiser for annotations or predictions.

    Args:
        scope (str): ``default_scope`` of the config, one of :data:`VISUALIZER_OF`.
        dataset_meta (dict): Classes and palette of the data set.
    """
    visualizer = _visualizer(scope)
    visualizer.dataset_meta = dataset_meta
    return visualizer


def as_picture(inputs: Tensor, steps: Iterable) -> np.ndarray:
    """Return what leaves a pipeline as a picture for people, RGB of 8 bits.

    Args:
        inputs (Tensor): ``(C, H, W)``.
        steps (Iterable): Steps of the pipeline, as dicts or built.
    """
    image = inputs.permute(1, 2, 0).numpy()
    is_bgr = image.shape[2] == 3 and not reads_unchanged(steps)
    return to_picture(image[..., ::-1] if is_bgr else image)


def draw_item(scope: str, item: dict[str, Any], dataset: Any) -> list[tuple[str, np.ndarray]]:
    """Draw a sample with its annotations.

    Args:
        scope (str): ``default_scope`` of the config, one of :data:`VISUALIZER_OF`.
        item (dict): What the data set's pipeline returns; its annotations are enlarged.
        dataset (Dataset): The data set, for its classes, colours and the order of its pipeline.

    Returns:
        list[tuple[str, np.ndarray]]: Pictures with their titles, the last one of the annotation.
    """
    sample, info = item['data_samples'], dict(dataset.metainfo)
    if scope != 'mmpretrain' and info.get('classes'):
        info['palette'] = class_colours(info, {}, scope)  # which may be shorter than the classes
    visualizer = build_visualizer(scope, info)
    image = as_picture(item['inputs'], getattr(dataset.pipeline, 'transforms', ()))
    if _annotates_original(dataset):
        shown = Image.fromarray(np.ascontiguousarray(image)).resize(sample.ori_shape[::-1])
        image = np.asarray(shown)
    scale = scale_of(*image.shape[:2])
    image = enlarge(np.ascontiguousarray(image), scale)
    if scope == 'mmpretrain':
        return [('annotation', visualizer.visualize_cls(image, sample, dataset.metainfo.get('classes')))]
    _enlarge_annotations(scope, sample, scale)
    visualizer.add_datasample('', image, sample, draw_pred=False)
    return [('image', image), ('annotation', visualizer.get_image())]


def _annotates_original(dataset: Any) -> bool:
    """Whether annotations are those of the file: loaded after the image was resized, as for tests."""
    names = [type(transform).__name__ for transform in getattr(dataset.pipeline, 'transforms', ())]
    loads = [i for i, name in enumerate(names) if name in ANNOTATION_LOADERS]
    return any('Resize' in name for name in names[: loads[0]]) if loads else False


def _enlarge_annotations(scope: str, sample: Any, scale: int) -> None:
    """Bring annotations to the size of an image that was enlarged."""
    if scope == 'mmseg':
        (labels,) = sample.gt_sem_seg.data.numpy()
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(enlarge(labels, scale))[None])
        return
    instances = sample.gt_instances
    instances.bboxes = instances.bboxes.tensor * scale
    if 'masks' in instances:
        masks = instances.masks.to_ndarray().astype(bool)
        instances.masks = masks.repeat(scale, 1).repeat(scale, 2)
