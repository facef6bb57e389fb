"""Class activation maps and features of a stage, drawn over the image."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.visualization import Visualizer
from torch import Tensor, nn

from mmmeta.config.pipelines import without_annotations
from mmmeta.datasets.classes import class_names
from mmmeta.models import MetaFormer
from mmmeta.runtime.run import enlarge, scale_of
from mmmeta.utils.atomic import written
from mmmeta.utils.errors import UsageError, nearest, shorten

from .drawing import as_picture
from .pictures import beside, check_picture

# Methods without a target work for every network, those with one for classifiers and segmentors.
WITHOUT_TARGET = ('EigenCAM',)
WITH_TARGET = ('GradCAM', 'GradCAMPlusPlus', 'XGradCAM', 'LayerCAM')
METHODS = ('features', *WITHOUT_TARGET, *WITH_TARGET)


class _Scores(nn.Module):
    """A model from preprocessed images to scores of classes, ``(B, classes)`` or ``(B, classes, H, W)``."""

    def __init__(self, model: BaseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        if hasattr(self.model, 'decode_head'):
            return self.model(image, mode='tensor')
        if hasattr(self.model, 'head'):
            return self.model.head(self.model.extract_feat(image))
        # A detector has no score of a class for the whole picture; maps without a target need none.
        return self.model.backbone(image)[-1].mean((2, 3))


def _prepare(model: BaseModel, image: str) -> tuple[Tensor, np.ndarray]:
    """The preprocessed input of the network, and the same as RGB between 0 and 1."""
    init_default_scope(model.cfg.default_scope)
    pipeline = without_annotations(model.cfg.test_dataloader.dataset.pipeline)
    item = Compose(pipeline)(dict(img_path=image, img_id=0))
    data = model.data_preprocessor(pseudo_collate([item]), training=False)
    height, width = item['inputs'].shape[1:]
    raw = as_picture(item['inputs'], pipeline) / 255
    inputs = data['inputs']
    padded = np.zeros((*inputs.shape[2:], 3), np.float32)
    padded[:height, :width] = raw
    return inputs, padded


def _class_names_of(model: BaseModel) -> Sequence[str]:
    """Names of the classes, or their numbers."""
    names = (getattr(model, 'dataset_meta', None) or {}).get('classes')
    if names:
        return names
    return class_names(model) if hasattr(model, 'head') else ()


def _find_class(target: int | str | None, names: Sequence[str]) -> int | None:
    """The number of a class.

    Raises:
        UsageError: There is none of that name.
    """
    if not isinstance(target, str) or target.isdigit():
        return None if target is None else int(target)
    found = [i for i, name in enumerate(names) if target in (name, *name.split(', '))]
    if not found:
        meant = nearest(target, names)
        hint = f"is it '{meant}'?" if meant else f'classes are {shorten(names, 8)}'
        raise UsageError(f"target='{target}' is no class of this network: {hint}")
    return found[0]


def draw_cam(
    model: BaseModel,
    image: str,
    path: str | Path,
    stage: int = 3,
    method: str = 'GradCAM',
    target: int | str | None = None,
    channels: int = 16,
) -> str | None:
    """Draw what a stage of the backbone responds to.

    Args:
        model (BaseModel): From :func:`~mmmeta.apis.inference.build_model`, with a backbone of ours.
        image (str): The picture.
        path (str | Path): The PNG file that is written.
        stage (int): Stage of the backbone, counted from 0. Defaults to 3.
        method (str): One of :data:`METHODS`: ``'features'`` draws the channels with the strongest responses
            beside each other, the others are class activation maps of pytorch-grad-cam. Defaults to
            ``'GradCAM'``.
        target (int | str | None): Target class of the map, its number or its name. Defaults to None: the one
            with the highest score, or that covers most.
        channels (int): How many channels ``'features'`` draws. Defaults to 16.

    Returns:
        str | None: Name of the class, for a map that has one.

    Raises:
        UsageError: An argument does not fit, or pytorch-grad-cam is missing.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, MetaFormer):
        raise UsageError(f'stages are those of a MetaFormer, and this backbone is {type(backbone).__name__}')
    if not 0 <= stage < len(backbone.stages):
        raise UsageError(f'stage={stage}: choose from 0 to {len(backbone.stages) - 1}')
    if method not in METHODS:
        raise UsageError(f"unknown method '{method}': choose one of {', '.join(METHODS)}")
    detects = not (hasattr(model, 'decode_head') or hasattr(model, 'head'))
    if detects and method in WITH_TARGET:
        raise UsageError(
            f'{method} needs the score of a class, which a detector has for boxes only: choose features or '
            f'{", ".join(WITHOUT_TARGET)}'
        )
    if target is not None and method not in WITH_TARGET:
        raise UsageError(f'target={target}: {method} has no target; choose one of {", ".join(WITH_TARGET)}')
    check_picture(path)
    names = _class_names_of(model)
    target = _find_class(target, names)
    inputs, picture = _prepare(model, image)
    layer = backbone.stages[stage]
    if method == 'features':
        drawn = _draw_features(model, layer, inputs, picture, channels)
    else:
        drawn, target = _draw_cam(model, layer, inputs, picture, method, target, names)
    name = None if target is None else names[target]
    shown = [(f'{method}, stage {stage}' + ('' if name is None else f', {name}'), drawn)]
    if method != 'features':
        shown.insert(0, ('image', (picture * 255).round().astype(np.uint8)))
    scale = scale_of(*drawn.shape[:2])
    with written(path) as draft:
        beside([(title, enlarge(pixels, scale)) for title, pixels in shown]).save(draft)
    return name


def _draw_features(
    model: BaseModel, layer: nn.Module, inputs: Tensor, picture: np.ndarray, channels: int
) -> np.ndarray:
    """The channels with the largest responses, each over the picture."""
    if channels < 1:
        raise UsageError(f'channels={channels}: give a positive number')
    kept = []
    hook = layer.register_forward_hook(lambda module, args, out: kept.append(out))
    try:
        with torch.no_grad():
            model.backbone(inputs)
    finally:
        hook.remove()
    (features,) = kept[0]
    columns = int(np.ceil(np.sqrt(min(channels, len(features)))))
    rows = -(-min(channels, len(features)) // columns)
    return Visualizer.draw_featmap(
        features.float().cpu(),
        (picture * 255).astype(np.uint8),
        channel_reduction=None,
        topk=min(channels, len(features)),
        arrangement=(rows, columns),
        alpha=0.3,
    )


def _draw_cam(
    model: BaseModel,
    layer: nn.Module,
    inputs: Tensor,
    picture: np.ndarray,
    method: str,
    target: int | None,
    names: Sequence[str],
) -> tuple[np.ndarray, int | None]:
    """A class activation map over the picture, and its class."""
    if find_spec('pytorch_grad_cam') is None:
        raise UsageError(f'{method} needs pytorch-grad-cam: pip install grad-cam')
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.image import show_cam_on_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, SemanticSegmentationTarget

    network = _Scores(model)
    targets: Sequence | None = None
    if method in WITH_TARGET:
        with torch.no_grad():
            scores = network(inputs)[0]
        if target is not None and not 0 <= target < len(scores):
            raise UsageError(f'target={target}: the classes are counted from 0 to {len(scores) - 1}')
        if scores.ndim == 1:
            target = int(scores.argmax()) if target is None else target
            targets = [ClassifierOutputTarget(target)]
        else:
            labels = scores.argmax(0)
            target = int(labels.flatten().mode().values) if target is None else target
            mask = (labels == target).float()
            if not mask.any():
                raise UsageError(
                    f"target='{names[target]}': this class is not predicted for the picture; predicted are "
                    f'{", ".join(names[i] for i in labels.unique().tolist())}'
                )
            targets = [SemanticSegmentationTarget(target, mask.cpu().numpy())]
    else:
        targets = [lambda output: output.sum()]
    with getattr(pytorch_grad_cam, method)(model=network, target_layers=[layer]) as cam:
        # With a gradient of its own, without which frozen stages would have none.
        (heat,) = cam(input_tensor=inputs.detach().requires_grad_(), targets=targets)
    return show_cam_on_image(picture, heat, use_rgb=True), target
