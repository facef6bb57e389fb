"""Compare an exported file with PyTorch, on the same input and on the same image."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

from mmmeta.datasets.images import shown_size
from mmmeta.runtime.run import Network, Prepared, normalize, paste_mask

from .preprocessing import test_steps

# Largest differences of float32: shares of pixels whose label is another, outputs relative to the largest.
LABEL_PIXELS, RELATIVE = 1e-4, 1e-3
# Between scores of PyTorch that lie so close any order is right.
TIE = 2e-5
# Relative changes of an input by which it is found out which objects hang on rounding, and tries of each.
CHANGES, TRIES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4), 4


@dataclass(frozen=True)
class Limits:
    """Largest differences of objects.

    Attributes:
        box (float): Of boxes, in pixels.
        score (float): Of scores and of probabilities.
        mask_pixels (float): Share of pixels whose mask is another.
    """

    box: float
    score: float
    mask_pixels: float


# Of the same input in float32, where 2e-5 of a side of 1344 pixels is rounding; of the same input in lower
# precisions, where boxes within a pixel count as the same; of the same image, in pixels of the original.
EXACT, REDUCED, SAME_IMAGE = Limits(0.03, 1e-4, 1e-4), Limits(1.0, 1e-4, 1e-4), Limits(0.1, 1e-3, 1e-4)


# How each of the differences is said.
MEANINGS = {
    'of the largest output': 'outputs differ by {:.1e} of the largest one at most',
    'share of labels': '{:.3%} of the labels differ',
    'probability': 'probabilities differ by {:.1e} at most',
    'pixels': 'boxes differ by {:.1e} pixels at most',
    'score': 'scores differ by {:.1e} at most',
    'share of mask pixels': '{:.3%} of the pixels of masks differ',
    'objects that no tie explains': '{:.0f} objects are in one of the two alone',
}


@dataclass(frozen=True)
class Difference:
    """Differences between an exported file and PyTorch for a batch of images.

    Attributes:
        images (str): Number and size of the images.
        values (dict[str, float]): Largest differences, by what they are of.
        passed (bool): Whether they are within what rounding explains.
        of_objects (tuple[int, int] | None): How many of PyTorch's objects the file finds, of how many.
    """

    images: str
    values: dict[str, float]
    passed: bool
    of_objects: tuple[int, int] | None = None

    def __str__(self) -> str:
        parts = [MEANINGS[name].format(value) for name, value in self.values.items()]
        if self.of_objects:
            parts.insert(0, f'{self.of_objects[0]} of {self.of_objects[1]} objects')
        return f'{self.images}: {", ".join(parts)}'


@dataclass(frozen=True)
class Objects:
    """Objects of an image.

    Attributes:
        boxes (np.ndarray): ``(N, 4)``, left, top, right, bottom in pixels.
        scores (np.ndarray): ``(N,)``.
        labels (np.ndarray): ``(N,)``.
        masks (Sequence[np.ndarray] | None): N boolean maps of one size. Defaults to None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Sequence[np.ndarray] | None = None

    @classmethod
    def of(cls, instances: InstanceData) -> 'Objects':
        """Return PyTorch's objects."""
        names = ('bboxes', 'scores', 'labels', 'masks')
        return cls(*(instances[name].numpy() if name in instances else None for name in names))


def compare(model: nn.Module, network: Network, batches: Sequence[Sequence[np.ndarray]]) -> list[Difference]:
    """Compare a file with the model that it was exported from, on the file's own input.

    Args:
        model (nn.Module): In eval mode.
        network (Network): The opened file.
        batches (Sequence): RGB images; those of a batch have one size.

    Returns:
        list[Difference]: One for each batch.
    """
    return [_compare_inputs(model, network, images) for images in batches]


@torch.no_grad()
def compare_images(model: nn.Module, network: Network, paths: Sequence[Path]) -> list[Difference]:
    """Compare a file with what PyTorch predicts for the same images.

    PyTorch reads, resizes and pads an image as the test pipeline of the model's config says, the file as its
    runtime does; results are compared in pixels of the image.

    Args:
        model (nn.Module): In eval mode, with a config.
        network (Network): The opened file of a detector, a segmentor with labels, or a classifier.
        paths (Sequence[Path]): Files of images.

    Returns:
        list[Difference]: One for each image.
    """
    return [_compare_image(model, network, path) for path in paths]


@torch.no_grad()
def predict_as(
    network: Network, model: nn.Module, x: Tensor, prepared: Prepared
) -> InstanceData | Tensor | list[Tensor]:
    """What a model gives where an exported file of it is run.

    Args:
        network (Network): The file.
        model (nn.Module): The model, in eval mode.
        x (Tensor): Normalised images.
        prepared (Prepared): The first of them, whose sizes all have.

    Returns:
        InstanceData | Tensor | list[Tensor]: Objects, labels or probabilities, logits or maps.
    """
    task = network.description.task
    if task == 'detection':
        return _detect(model, x, prepared)
    if 'labels' in network.description.outputs:
        return _segment(model, x, prepared)
    if task == 'classification':
        return torch.stack([one.pred_score for one in model.predict(x)])
    if task == 'segmentation':
        return [model.inference(x, [_sizes(prepared, x)] * len(x))]
    return list(model(x))


def normalized(network: Network, prepared: Sequence[Prepared]) -> Tensor:
    """Images as the model takes them."""
    metadata = network.description
    inside = metadata.normalized_inside
    images = [normalize(one.image, metadata) if inside else one.image for one in prepared]
    return torch.from_numpy(np.stack(images))


def _compare_inputs(model: nn.Module, network: Network, images: Sequence[np.ndarray]) -> Difference:
    metadata = network.description
    prepared = [network.prepare(image) for image in images]
    x = normalized(network, prepared)
    title = f'{len(x)} x {x.shape[2]}x{x.shape[3]}'
    predictions = network.predict(images, len(images))
    expected = predict_as(network, model, x, prepared[0])
    if metadata.task == 'detection':
        exact = metadata.precision == 'f32'
        rounded = _rounded(lambda x: _detect(model, x, prepared[0]), x) if exact else ()
        own = _pasted(predictions[0].outputs, prepared[0].size, metadata.mask_threshold)
        return _compare_objects(title, Objects.of(expected), own, rounded, EXACT if exact else REDUCED)
    outputs = {name: np.stack([one.outputs[name] for one in predictions]) for name in metadata.outputs}
    if 'labels' in outputs:
        return _compare_labels(title, expected.numpy(), outputs['labels'])
    if metadata.task == 'classification':
        return _compare_probabilities(title, expected.numpy(), outputs['probabilities'], EXACT)
    errors = [
        float(np.abs(own - one.numpy()).max() / one.abs().max())
        for own, one in zip(outputs.values(), expected, strict=True)
    ]
    return Difference(title, {'of the largest output': max(errors)}, max(errors) <= RELATIVE)


def _compare_image(model: nn.Module, network: Network, path: Path) -> Difference:
    metadata = network.description
    cfg = model.cfg
    init_default_scope(cfg.default_scope)
    data = model.data_preprocessor(
        pseudo_collate([Compose(test_steps(cfg))(dict(img_path=str(path), img_id=0))])
    )
    x, samples = data['inputs'], data['data_samples']
    prediction = network.predict([path])[0]
    height, width = shown_size(path)
    title = f'image of {height}x{width}'

    def predict(x: Tensor) -> BaseDataElement:
        return model.predict(x, samples)[0]

    expected = predict(x)
    if metadata.task == 'detection':
        exact = metadata.precision == 'f32'
        rounded = _rounded(lambda x: predict(x).pred_instances, x) if exact else ()
        own = Objects(prediction.boxes, prediction.scores, prediction.labels, prediction.masks)
        return _compare_objects(
            title, Objects.of(expected.pred_instances), own, rounded, SAME_IMAGE if exact else REDUCED
        )
    if metadata.task == 'segmentation':
        return _compare_labels(title, expected.pred_sem_seg.data[0].numpy(), prediction.labels)
    return _compare_probabilities(title, expected.pred_score.numpy(), prediction.scores, SAME_IMAGE)


def _compare_labels(title: str, expected: np.ndarray, own: np.ndarray) -> Difference:
    different = int(np.sum(own != expected))
    passed = different <= max(LABEL_PIXELS * expected.size, 1)  # one pixel of a small image may tie
    return Difference(title, {'share of labels': different / expected.size}, passed)


def _compare_probabilities(title: str, expected: np.ndarray, own: np.ndarray, limits: Limits) -> Difference:
    error = float(np.abs(own - expected).max())
    return Difference(title, dict(probability=error), error <= limits.score)


def _pasted(outputs: dict[str, np.ndarray], size: tuple[int, int], threshold: float) -> Objects:
    """Return the objects that a file gives for its input, with masks of the input's size."""
    kept = outputs['labels'] >= 0
    boxes, scores, labels = (outputs[name][kept] for name in ('boxes', 'scores', 'labels'))
    if 'masks' not in outputs:
        return Objects(boxes, scores, labels)
    masks = np.zeros((len(boxes), *size), bool)
    for mask, small, box in zip(masks, outputs['masks'][kept], boxes, strict=True):
        paste_mask(mask, small, box, threshold)
    return Objects(boxes, scores, labels, masks)


def _sizes(prepared: Prepared, x: Tensor) -> dict[str, Sequence[int]]:
    """What MMSegmentation knows of an image."""
    padded = tuple(x.shape[2:])
    height, width = prepared.size
    return dict(
        ori_shape=tuple(prepared.original),
        img_shape=padded,
        pad_shape=padded,
        padding_size=[0, padded[1] - width, 0, padded[0] - height],
    )


def _segment(model: nn.Module, x: Tensor, prepared: Prepared) -> Tensor:
    """Labels of images, ``(B, height, width)``."""
    from mmseg.structures import SegDataSample

    samples = [SegDataSample(metainfo=_sizes(prepared, x)) for _ in x]
    return torch.cat([one.pred_sem_seg.data for one in model.predict(x, samples)]).int()


@torch.no_grad()
def _detect(model: nn.Module, x: Tensor, prepared: Prepared) -> InstanceData:
    """Objects in pixels of the network's input."""
    from mmdet.structures import DetDataSample

    padded = tuple(x.shape[2:])
    sizes = dict(img_shape=prepared.size, ori_shape=prepared.size, pad_shape=padded, batch_input_shape=padded)
    sample = DetDataSample(metainfo=dict(sizes, scale_factor=(1.0, 1.0)))
    return model.predict(x, [sample], rescale=False)[0].pred_instances


def _compare_objects(
    title: str, expected: Objects, own: Objects, rounded: Iterable[Objects], limits: Limits
) -> Difference:
    """Compare objects, which may change places or be others only where scores tie.

    Which of two overlapping boxes or proposals suppresses the other, and whether one is above a threshold,
    hangs on rounding where the scores tie. It does in PyTorch as well: an object may be missing, or be one
    more, if PyTorch loses or finds it, too, when the input changes by so little that no score of the others
    moves by more than that of :data:`EXACT`.

    Args:
        title (str): Number and size of the images.
        expected (Objects): PyTorch's objects.
        own (Objects): The file's.
        rounded (Iterable): PyTorch's objects of inputs that are nearly this one.
        limits (Limits): By which objects may differ.
    """
    pairs = _match(expected, own, limits.box)
    missing = {*range(len(expected.scores))} - {i for i, _ in pairs}
    extra = {*range(len(own.scores))} - {j for _, j in pairs}
    unstable = iter(rounded)
    while missing | extra and (nearby := next(unstable, None)) is not None:
        kept_pairs = _match(expected, nearby, limits.box)
        if all(abs(expected.scores[i] - nearby.scores[j]) <= EXACT.score for i, j in kept_pairs):
            missing &= {i for i, _ in kept_pairs}
            extra -= {i for i, _ in _match(own, nearby, limits.box)}
    order = [i for i, _ in sorted(pairs, key=lambda pair: pair[1])]
    back = [float(expected.scores[b] - expected.scores[a]) for a, b in itertools.pairwise(order) if a > b]
    values = dict(
        pixels=max((float(np.abs(expected.boxes[i] - own.boxes[j]).max()) for i, j in pairs), default=0.0),
        score=max((float(abs(expected.scores[i] - own.scores[j])) for i, j in pairs), default=0.0),
    )
    unexplained = len(missing) + len(extra)
    passed = not unexplained and values['score'] <= limits.score and max(back, default=0) <= TIE
    if own.masks is not None and expected.masks is not None:
        different = [np.mean(expected.masks[i] != own.masks[j]) for i, j in pairs]
        values['share of mask pixels'] = float(np.mean(different)) if different else 0.0
        passed = passed and values['share of mask pixels'] <= limits.mask_pixels
    if unexplained:
        values['objects that no tie explains'] = unexplained
    return Difference(title, values, passed, (len(pairs), len(expected.scores)))


def _rounded(detect: Callable[[Tensor], InstanceData], x: Tensor) -> Iterator[Objects]:
    """Yield objects of inputs that are nearly the one given, the nearest first."""
    generator = torch.Generator().manual_seed(0)
    for change in CHANGES:
        for _ in range(TRIES):
            noise = torch.randn(x.shape, generator=generator)
            yield Objects.of(detect(x * (1 + change * noise)))  # padding stays zero


def agreement(task: str, expected: dict[str, np.ndarray], own: dict[str, np.ndarray]) -> float:
    """How far two outputs of a network agree, from 0 to 1.

    Args:
        task (str): Of the network.
        expected (dict[str, np.ndarray]): What the network should give for an image.
        own (dict[str, np.ndarray]): What it gives.

    Returns:
        float: The share of objects of the same class and within a pixel, of pixels with the same label, of
        images with the same class; of features 1 less the mean error relative to their size.
    """
    if task == 'detection':
        these, others = (
            Objects(*(one[name][one['labels'] >= 0] for name in ('boxes', 'scores', 'labels')))
            for one in (expected, own)
        )
        most = max(len(these.scores), len(others.scores))
        return len(_match(these, others, REDUCED.box)) / most if most else 1.0
    if task == 'features':
        errors = [
            np.sqrt(np.square(own[name] - one).mean() / np.square(one).mean())
            for name, one in expected.items()
        ]
        return 1.0 - float(np.mean(errors))
    ((name, true),) = expected.items()
    found = own[name]
    if name != 'labels':
        true, found = true.argmax(1), found.argmax(1)
    return float(np.mean(true == found))


def _match(true: Objects, own: Objects, limit: float) -> list[tuple[int, int]]:
    """Return pairs of the same box and class, those at the same place first."""
    same = np.abs(true.boxes[:, None] - own.boxes[None]).max(2, initial=0) <= limit
    same &= true.labels[:, None] == own.labels[None]
    pairs, taken = [], set()
    for i in range(len(true.scores)):
        candidates = [int(j) for j in np.flatnonzero(same[i]) if int(j) not in taken]
        if candidates:
            j = min(candidates, key=lambda j: abs(j - i))
            pairs.append((i, j))
            taken.add(j)
    return pairs
