"""Compare what an exported file computes with what PyTorch does."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .runtime import Network, Prepared, normalize, paste_mask

# Largest differences of float32: pixels of boxes, scores and probabilities, shares of pixels whose mask or
# label is another, outputs relative to the largest.
BOX, SCORE, MASK_PIXELS, LABEL_PIXELS, RELATIVE = 0.01, 1e-4, 1e-4, 1e-4, 1e-3
# Between scores of PyTorch that lie so close any order is right.
TIE = 2e-5
# Pixels of boxes that are the same in precisions below float32.
REDUCED_BOX = 1.0
# Relative changes of an image by which it is found out which objects hang on rounding, and tries of each.
CHANGES, TRIES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4), 4


@dataclass(frozen=True)
class Difference:
    """What a file computes otherwise than PyTorch, for a batch of images.

    Attributes:
        images (str): Number and size.
        values (dict[str, float]): Largest differences, by what they are of.
        passed (bool): Whether they are within what rounding explains.
        of_objects (tuple[int, int] | None): How many objects are the same, of how many.
    """

    images: str
    values: dict[str, float]
    passed: bool
    of_objects: tuple[int, int] | None = None

    def __str__(self) -> str:
        parts = [f'{name} {value:.1e}' for name, value in self.values.items()]
        if self.of_objects:
            parts.insert(0, f'{self.of_objects[0]} of {self.of_objects[1]} objects')
        return f'{self.images}: {", ".join(parts)}'


def compare(model: nn.Module, network: Network, batches: Sequence[Sequence[np.ndarray]]) -> list[Difference]:
    """Compare a file with the model that it was exported from.

    Args:
        model (nn.Module): In eval mode.
        network (Network): The opened file.
        batches (Sequence): RGB images; those of a batch have one size.

    Returns:
        list[Difference]: One for each batch.
    """
    return [_compare_one(model, network, images) for images in batches]


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
    task = network.description['task']
    if task == 'detection':
        return _detect(model, x, prepared)
    if 'labels' in network.description['outputs']:
        return _segment(model, x, prepared)
    if task == 'classification':
        return torch.stack([one.pred_score for one in model.predict(x)])
    if task == 'segmentation':
        return [model.inference(x, [_sizes(prepared, x)] * len(x))]
    return list(model(x))


def normalized(network: Network, prepared: Sequence[Prepared]) -> Tensor:
    """Images as the model takes them."""
    about = network.description
    inside = about['normalized_inside']
    images = [normalize(one.image, about) if inside else one.image for one in prepared]
    return torch.from_numpy(np.stack(images))


def _compare_one(model: nn.Module, network: Network, images: Sequence[np.ndarray]) -> Difference:
    about = network.description
    prepared = [network.prepare(image) for image in images]
    x = normalized(network, prepared)
    title = f'{len(x)} x {x.shape[2]}x{x.shape[3]}'
    predictions = network.predict(images, len(images))
    expected = predict_as(network, model, x, prepared[0])
    if about['task'] == 'detection':
        cfg = (getattr(model, 'roi_head', None) or model.bbox_head).test_cfg
        own = predictions[0].outputs
        exact = about['precision'] == 'f32'
        rounded = _rounded(model, x, prepared[0]) if exact else ()
        return _compare_objects(
            title, expected, own, prepared[0], rounded, cfg, BOX if exact else REDUCED_BOX
        )
    outputs = {name: np.stack([one.outputs[name] for one in predictions]) for name in about['outputs']}
    if 'labels' in outputs:
        share = float(np.mean(outputs['labels'] != expected.numpy()))
        return Difference(title, {'share of labels': share}, share <= LABEL_PIXELS)
    if about['task'] == 'classification':
        error = float(np.abs(outputs['probabilities'] - expected.numpy()).max())
        return Difference(title, dict(probability=error), error <= SCORE)
    errors = [
        float(np.abs(own - one.numpy()).max() / one.abs().max())
        for own, one in zip(outputs.values(), expected, strict=True)
    ]
    return Difference(title, {'of the largest output': max(errors)}, max(errors) <= RELATIVE)


def _sizes(prepared: Prepared, x: Tensor) -> dict:
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
    title: str,
    expected: InstanceData,
    own: dict[str, np.ndarray],
    prepared: Prepared,
    rounded: Iterable[InstanceData],
    cfg: ConfigDict,
    limit: float = BOX,
) -> Difference:
    """Compare objects, which may change places or be others only where scores tie.

    Which of two overlapping boxes or proposals suppresses the other, and whether one is above a threshold,
    hangs on rounding where the scores tie. It does in PyTorch as well: an object may be missing, or be one
    more, if PyTorch loses or finds it, too, when the image changes by so little that no score of the others
    moves by more than :data:`SCORE`.

    Args:
        title (str): Number and size of the images.
        expected (InstanceData): PyTorch's objects.
        own (dict[str, np.ndarray]): The file's.
        prepared (Prepared): The image.
        rounded (Iterable): PyTorch's objects of images that are nearly this one.
        cfg (ConfigDict): ``test_cfg`` of the head that suppresses.
        limit (float): Pixels by which boxes may differ. Defaults to those of float32.
    """
    kept = own['labels'] >= 0
    these, others = _arrays(expected), tuple(own[name][kept] for name in ('boxes', 'scores', 'labels'))
    pairs = _match(these, others, limit)
    missing = {*range(len(these[1]))} - {i for i, _ in pairs}
    extra = {*range(len(others[1]))} - {j for _, j in pairs}
    unstable = iter(rounded)
    while missing | extra and (objects := next(unstable, None)) is not None:
        nearby = _arrays(objects)
        kept_pairs = _match(these, nearby)
        if all(abs(these[1][i] - nearby[1][j]) <= SCORE for i, j in kept_pairs):
            missing &= {i for i, _ in kept_pairs}
            extra -= {i for i, _ in _match(others, nearby)}
    order = [i for i, _ in sorted(pairs, key=lambda pair: pair[1])]
    back = [float(these[1][b] - these[1][a]) for a, b in itertools.pairwise(order) if a > b]
    values = dict(
        pixels=max((float(np.abs(these[0][i] - others[0][j]).max()) for i, j in pairs), default=0.0),
        score=max((float(abs(these[1][i] - others[1][j])) for i, j in pairs), default=0.0),
    )
    unexplained = len(missing) + len(extra)
    passed = not unexplained and values['score'] <= SCORE and max(back, default=0) <= TIE
    if 'masks' in own:
        pixels = total = 0
        small = own['masks'][kept]
        for i, j in pairs:
            mask = np.zeros(prepared.size, bool)
            paste_mask(mask, small[j], others[0][j], cfg.mask_thr_binary)
            pixels += int((mask != expected.masks[i].numpy()).sum())
            total += mask.size
        values['share of mask pixels'] = pixels / max(total, 1)
        passed = passed and values['share of mask pixels'] <= MASK_PIXELS
    if unexplained and limit == BOX:
        values['objects that no tie explains'] = unexplained
    return Difference(title, values, passed, (len(pairs), len(these[1])))


def _rounded(model: nn.Module, x: Tensor, prepared: Prepared) -> Iterator[InstanceData]:
    """Objects of images that are nearly the one given, the nearest first."""
    generator = torch.Generator().manual_seed(0)
    for change in CHANGES:
        for _ in range(TRIES):
            noise = torch.randn(x.shape, generator=generator)
            yield _detect(model, x * (1 + change * noise), prepared)  # padding stays zero


Objects = Sequence[np.ndarray]


def agreement(about: dict[str, Any], expected: dict[str, np.ndarray], own: dict[str, np.ndarray]) -> float:
    """How far two outputs of a network agree, from 0 to 1.

    Args:
        about (dict): The description of the network.
        expected (dict[str, np.ndarray]): What the network should give for an image.
        own (dict[str, np.ndarray]): What it gives.

    Returns:
        float: The share of objects of the same class and within a pixel, of pixels with the same label, of
        images with the same class; of features 1 less the mean error relative to their size.
    """
    if about['task'] == 'detection':
        these, others = (
            tuple(one[name][one['labels'] >= 0] for name in ('boxes', 'scores', 'labels'))
            for one in (expected, own)
        )
        most = max(len(these[1]), len(others[1]))
        return len(_match(these, others, REDUCED_BOX)) / most if most else 1.0
    if about['task'] == 'features':
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


def _match(true: Objects, own: Objects, limit: float = BOX) -> list[tuple[int, int]]:
    """Pairs of the same box and class, those at the same place first."""
    same = np.abs(true[0][:, None] - own[0][None]).max(2, initial=0) <= limit
    same &= true[2][:, None] == own[2][None]
    pairs, taken = [], set()
    for i in range(len(true[1])):
        candidates = [int(j) for j in np.flatnonzero(same[i]) if int(j) not in taken]
        if candidates:
            j = min(candidates, key=lambda j: abs(j - i))
            pairs.append((i, j))
            taken.add(j)
    return pairs


def _arrays(objects: InstanceData) -> Objects:
    return tuple(getattr(objects, name).numpy() for name in ('bboxes', 'scores', 'labels'))
