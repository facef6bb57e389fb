"""Inference of segmentors, detectors and classifiers on images."""

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from PIL import Image
from torch import nn

from mmmeta.config.backbones import build_backbone
from mmmeta.config.building import build
from mmmeta.config.inspection import class_metainfo, datasets, iter_dicts
from mmmeta.config.loading import load_config
from mmmeta.config.pipelines import reads_unchanged, without_annotations
from mmmeta.datasets.classes import class_colours, class_names, known_class_names
from mmmeta.registry import MODELS
from mmmeta.runtime.run import Description, draw, enlarge, read_pixels, scale_of, to_picture
from mmmeta.runtime.run import Prediction as Found
from mmmeta.utils.atomic import written
from mmmeta.utils.errors import UsageError
from mmmeta.utils.resources import resource_root
from mmmeta.utils.targets import check_writable
from mmmeta.validation.depth import explain_lost
from mmmeta.visualization.drawing import build_visualizer
from mmmeta.visualization.pictures import beside, free_path
from mmmeta.weights import get_weights
from mmmeta.weights import load as load_weights

from .classify import classify

# Of the segmentors in the zoo, which are ADE20K's.
SEGMENTOR_CLASSES = 150


def check_device(device: str) -> None:
    """Check that a device exists.

    Raises:
        UsageError: There is none of that name.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device '{device}' cannot be used ({reason}): take cpu, cuda or cuda:1") from error


def build_model(
    name: str,
    checkpoint: str | os.PathLike | None = None,
    device: str = 'cpu',
    options: dict | None = None,
    trusted: bool = False,
) -> BaseModel:
    """Build a network for inference, with all of its weights.

    Args:
        name (str): Name in the zoo, such as ``'caformer_s18'`` or ``'fpn_poolformer_s12_ade20k'``, or path of
            a config.
        checkpoint (str | os.PathLike | None): Path, URL, ``timm://...`` or ``mmmeta://...``, in any layout;
            ``'none'`` for the network before training. Defaults to None: those that are published under
            ``name``.
        device (str): Device of the model. Defaults to ``'cpu'``.
        options (dict | None): Overrides of the config, as in ``--cfg-options``. Defaults to None.
        trusted (bool): Whether code in the checkpoint may run. Defaults to False.

    Returns:
        BaseModel: In eval mode; its config under ``cfg``, and the names of the classes in ``dataset_meta``.

    Raises:
        UsageError: There is no such model or device, or the weights cannot be read or are not exactly those
            of the model.
    """
    check_device(device)
    is_config = name.endswith('.py')
    cfg = load_config(name if is_config else zoo_config_path(name), options)
    if checkpoint is None and is_config:
        raise UsageError(f"'{name}' is a config, and no weights are published for it: give a checkpoint")
    scope, dataset = cfg.get('default_scope'), None
    if scope == 'mmpretrain':
        if not cfg.get('test_dataloader'):  # ImageNet-21K has no images to test on; they are those of 1K
            tested = zoo_config_path(Path(name).stem.removesuffix('_in21k'))
            cfg.test_dataloader = load_config(tested).test_dataloader
    else:
        dataset = next(datasets(cfg.get('test_dataloader') or ConfigDict()), None)
        if scope not in ('mmseg', 'mmdet') or dataset is None:
            raise UsageError(
                f"predictions of '{name}' (default_scope='{scope}') cannot be drawn: give a config of "
                'mmseg, mmdet or mmpretrain with test data'
            )
        # Where mmseg and mmdet expect the pipeline; the data set may be wrapped or concatenated.
        dataset.pipeline = without_annotations(dataset.pipeline)
        cfg.test_pipeline = dataset.pipeline
        cfg.test_dataloader.dataset = dataset
    model = build_with_weights(cfg, checkpoint or f'mmmeta://{name}', trusted)
    if dataset is not None:
        model.dataset_meta = _metainfo(dataset, scope)
    elif (names := known_class_names(model)) is not None:
        model.dataset_meta = dict(classes=list(names))  # an exported file has them too
    return model.to(device).eval()


def build_with_weights(cfg: Config, checkpoint: str | os.PathLike, trusted: bool = False) -> BaseModel:
    """Build the model of a config, with all of its weights.

    Args:
        cfg (Config): The config. The model's own preprocessor and initial weights are replaced in it.
        checkpoint (str | os.PathLike): As :func:`build_model` takes it.
        trusted (bool): Whether code in the checkpoint may run. Defaults to False.

    Returns:
        BaseModel: Its config is under ``cfg``, and under ``_config``, where MMPretrain looks for it.

    Raises:
        UsageError: The weights cannot be read or are not exactly those of the model.
    """
    init_default_scope(cfg.default_scope)
    untrained = checkpoint == 'none'
    if 'backbone' in cfg.model and not untrained:
        cfg.model.backbone.init_cfg = None  # all weights come from the checkpoint
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = build(MODELS.build, cfg.model)
    if untrained:
        _draw_weights(model)
    else:
        load_weights(model, checkpoint, trusted=trusted)
    model.cfg = model._config = cfg
    return model


def _draw_weights(model: BaseModel) -> None:
    """Draw random weights, without MMEngine's line for each tensor."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)  # logging.disable would silence this logger for good
    try:
        model.init_weights()
    finally:
        logger.setLevel(level)


def zoo_config_path(name: str) -> str:
    """Return the path of the config of a model of the zoo.

    Args:
        name (str): Such as ``'caformer_s18'``, ``'convformer_b36_384_in21ft1k'`` or
            ``'fpn_poolformer_s12_ade20k'``.

    Raises:
        UsageError: There is none of that name.
    """
    weights = get_weights(name)
    folder = resource_root() / 'configs'
    if weights.num_classes == SEGMENTOR_CLASSES:
        return str(folder / f'{name}.py')
    model = f'{weights.family}_{weights.size}'
    if weights.num_classes == 0:
        raise UsageError(f"'{name}' is a backbone without a classifier: choose a classifier, such as {model}")
    training = name.removeprefix(model)
    suffix = {'': '_in1k', '_384': '_384_in1k'}.get(training, training)
    return str(folder / f'imagenet/{model}{suffix}.py')


def build_exportable(
    name: str, checkpoint: str | os.PathLike, options: dict | None = None, trusted: bool = False
) -> nn.Module:
    """Build a network for :func:`mmmeta.deploy.export`.

    Args:
        name (str): A config, or a backbone as :func:`~mmmeta.apis.build_backbone` takes it, such as
            ``caformer_s18,window=13``.
        checkpoint (str | os.PathLike): Weights; ``'none'`` for random ones.
        options (dict | None): Overrides of the config. Defaults to None.
        trusted (bool): Whether code in the checkpoint may run. Defaults to False.

    Raises:
        UsageError: The model is unknown, or the weights do not match it.
    """
    if name.endswith('.py'):
        return build_model(name, checkpoint, options=options, trusted=trusted)
    if options:
        raise UsageError(
            f"'{name}' is a backbone, which has no config for --cfg-options: give arguments after commas"
        )
    backbone = build_backbone(name)
    if checkpoint != 'none':
        load_weights(backbone, checkpoint, 'backbone', trusted)
    return backbone


def _metainfo(dataset: ConfigDict, scope: str) -> dict:
    """Classes and palette of a data set."""
    own = class_metainfo(dataset, scope)
    given = {key.lower(): value for key, value in (dataset.get('metainfo') or {}).items()}
    found = {**own, **given}
    if given and found.get('classes'):
        named = dict(classes=found['classes'], palette=given.get('palette'))
        found['palette'] = class_colours(named, own, scope)
    return found


@dataclass(frozen=True)
class Prediction:
    """The prediction of a network for an image.

    Attributes:
        image (str): The file.
        picture (Path): The file that it was drawn into.
        header (Sequence[str]): Names of the columns of ``rows``.
        rows (Sequence[Sequence[str]]): Predicted classes, the most frequent or likeliest first.
    """

    image: str
    picture: Path
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def predict(
    model: BaseModel,
    images: str | Path | np.ndarray | Sequence[str | Path | np.ndarray],
    out_dir: str | Path,
    top: int = 5,
    score_thr: float = 0.3,
) -> Iterator[Prediction]:
    """Draw the predictions of a network, one image at a time.

    Args:
        model (BaseModel): What :func:`build_model` returns.
        images (str | Path | ndarray | Sequence): A file, or an array ``(H, W, 3)`` of 8 bits in the order
            red, green, blue; or several. Pictures of arrays are called ``image_0`` and so on.
        out_dir (str | Path): Where the pictures go, as PNG files with the names of the images, and a number
            where there is one of that name: the image beside what was predicted, enlarged to 512 pixels.
        top (int): Number of classes to report per image. Defaults to 5.
        score_thr (float): Objects with a lower score are left out. Defaults to 0.3.

    Yields:
        Prediction: One for each image.

    Raises:
        UsageError: A number or an array does not fit, or the pictures cannot be written.
    """
    if isinstance(images, (str, Path, np.ndarray)):
        images = [images]
    if top < 1:
        raise UsageError(f'top={top}: give a positive number')
    if not 0 <= score_thr <= 1:
        raise UsageError(f'score_thr={score_thr}: give a score from 0 to 1')
    folder = Path(out_dir)
    check_writable(folder, 'folder')
    _keep_scores(model, score_thr)
    with tempfile.TemporaryDirectory() as temporary:
        if reads_unchanged(_test_pipeline(model)) and any(isinstance(image, np.ndarray) for image in images):
            raise UsageError('this network reads images as they are stored: give files in place of arrays')
        files = [_as_file(image, Path(temporary, f'image_{i}.png')) for i, image in enumerate(images)]
        stems = Counter(file.stem for file in files)
        for file in files:
            name = file.stem if stems[file.stem] == 1 else file.name
            picture = free_path(folder / f'{name}.png')
            panels, header, rows = show(model, str(file), top, score_thr)
            with written(picture) as draft:
                beside(panels).save(draft)
            yield Prediction(str(file), picture, header, rows)


def _test_pipeline(model: BaseModel) -> list[dict]:
    """Return the steps that images pass before the network."""
    return next((dataset.pipeline for dataset in datasets(model.cfg.get('test_dataloader') or {})), [])


def _as_file(image: str | Path | np.ndarray, path: Path) -> Path:
    """The file of an image; that of an array is written without loss."""
    if not isinstance(image, np.ndarray):
        return Path(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UsageError(
            f'an image is an array of {image.dtype} and shape {image.shape}: give (H, W, 3) of uint8'
        )
    Image.fromarray(image).save(path)
    return path


def _keep_scores(model: BaseModel, score_thr: float) -> None:
    """Let a detector's heads keep objects with scores from a threshold on."""
    for module in model.modules():
        parts = getattr(module, 'test_cfg', None)
        for part in iter_dicts(parts) if isinstance(parts, dict) else ():
            if part.get('score_thr', 0.0) > score_thr:
                part['score_thr'] = score_thr


Panels = list[tuple[str, np.ndarray]]
Shown = tuple[Panels, Sequence[str], Sequence[Sequence[str]]]


def show(model: BaseModel, image: str, top: int = 5, score_thr: float = 0.3) -> Shown:
    """Predict what an image shows, and draw it.

    Args:
        model (BaseModel): What :func:`build_model` returns.
        image (str): The file.
        top (int): Number of classes to report. Defaults to 5.
        score_thr (float): Objects with a lower score are left out. Defaults to 0.3.

    Returns:
        tuple: Pictures with their titles, the last one of the prediction, enlarged; and ``header`` and
        ``rows`` of a :class:`Prediction`.

    Raises:
        UsageError: The image stores more than the network's pipeline reads.
    """
    scope = model.cfg.default_scope
    init_default_scope(scope)
    for step in _test_pipeline(model):
        lost = explain_lost(image, step) if step['type'].rpartition('.')[2] == 'LoadImageFromFile' else None
        if lost is not None:
            raise UsageError(lost[0])
    return dict(mmseg=_segment, mmdet=_detect, mmpretrain=_classify)[scope](model, image, top, score_thr)


def _draw_prediction(task: str, metainfo: dict, image: str, found: Found, score_thr: float = 0.0) -> Panels:
    """Draw what was predicted for an image, as exported networks do."""
    pixels = to_picture(read_pixels(image))
    description = Description(task, classes=metainfo['classes'], palette=metainfo.get('palette') or [])
    drawn = np.asarray(draw(pixels, found, description, score_thr))
    return [('image', enlarge(pixels, scale_of(*pixels.shape[:2]))), ('prediction', drawn)]


def _classify(model: BaseModel, image: str, top: int, score_thr: float) -> Shown:
    from mmpretrain.structures import DataSample

    ((_, guesses),) = classify(model, [image], top)
    scores = torch.zeros(model.head.num_classes)
    scores[[guess.label for guess in guesses]] = torch.tensor([guess.score for guess in guesses])
    sample = DataSample().set_pred_label([guess.label for guess in guesses]).set_pred_score(scores)
    visualizer = build_visualizer('mmpretrain', dict(classes=class_names(model)))
    pixels = to_picture(read_pixels(image))
    drawn = visualizer.visualize_cls(enlarge(pixels, scale_of(*pixels.shape[:2])), sample)
    rows = [(str(guess.label), guess.name, f'{guess.score:.4f}') for guess in guesses]
    return [('prediction', drawn)], ('class', 'name', 'score'), rows


def _segment(model: BaseModel, image: str, top: int, score_thr: float) -> Shown:
    from mmseg.apis import inference_model

    sample = inference_model(model, image)
    (found,) = sample.pred_sem_seg.data.cpu().numpy()
    panels = _draw_prediction('segmentation', model.dataset_meta, image, Found(labels=found))
    labels = found.flatten().tolist()
    names = model.dataset_meta['classes']
    rows = [(names[i], f'{count / len(labels):.1%}') for i, count in Counter(labels).most_common(top)]
    return panels, ('class', 'area'), rows


def _detect(model: BaseModel, image: str, top: int, score_thr: float) -> Shown:
    from mmdet.apis import inference_detector

    sample = inference_detector(model, image)
    found = sample.pred_instances
    found = found[found.scores >= score_thr]
    arrays = {
        key: found[key].cpu().numpy() for key in ('bboxes', 'scores', 'labels', 'masks') if key in found
    }
    objects = Found(arrays.pop('bboxes'), **arrays)
    panels = _draw_prediction('detection', model.dataset_meta, image, objects, score_thr)
    names = model.dataset_meta['classes']
    best: dict[int, float] = {}
    for label, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True):
        best[label] = max(score, best.get(label, 0.0))
    counts = Counter(found.labels.tolist()).most_common(top)
    rows = [(names[i], str(count), f'{best[i]:.3f}') for i, count in counts]
    return panels, ('class', 'objects', 'best score'), rows
