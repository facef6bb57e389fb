"""Compare what an exported file computes with what PyTorch does."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
def _compare_one(model: nn.Module, network: Network, images: Sequence[np.ndarray]) -> Difference:
    about = network.description
    prepared = [network.prepare(image) for image in images]
    inside = about['normalized_inside']
    x = np.stack([normalize(one.image, about) if inside else one.image for one in prepared])
    x = torch.from_numpy(x)
    title = f'{len(x)} x {x.shape[2]}x{x.shape[3]}'
    predictions = network.predict(images, len(images))
    if about['task'] == 'detection':
        expected = _detect(model, x, prepared[0])
        cfg = (getattr(model, 'roi_head', None) or model.bbox_head).test_cfg
        own = predictions[0].outputs
        return _compare_objects(
            title, expected, own, prepared[0], lambda: _before(cfg, model, x, prepared[0]), cfg
        )
    outputs = {name: np.stack([one.outputs[name] for one in predictions]) for name in about['outputs']}
    if 'labels' in outputs:
        share = float(np.mean(outputs['labels'] != _segment(model, x, prepared[0]).numpy()))
        return Difference(title, {'share of labels': share}, share <= LABEL_PIXELS)
    if about['task'] == 'classification':
        expected = torch.stack([one.pred_score for one in model.predict(x)])
        error = float(np.abs(outputs['probabilities'] - expected.numpy()).max())
        return Difference(title, dict(probability=error), error <= SCORE)
    if about['task'] == 'segmentation':
        expected = [model.inference(x, [_sizes(prepared[0], x)] * len(x))]
    else:
        expected = model(x)
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
    candidates: Callable[[], InstanceData],
    cfg: ConfigDict,
) -> Difference:
    """Compare objects, which may change places or be others only where scores tie.

    Args:
        title (str): Number and size of the images.
        expected (InstanceData): PyTorch's objects.
        own (dict[str, np.ndarray]): The file's.
        prepared (Prepared): The image.
        candidates (callable): Gives PyTorch's objects before suppression.
        cfg (ConfigDict): ``test_cfg`` of the head that suppresses.
    """
    kept = own['labels'] >= 0
    these, others = _arrays(expected), tuple(own[name][kept] for name in ('boxes', 'scores', 'labels'))
    pairs = _match(these, others)
    missing = sorted({*range(len(these[1]))} - {i for i, _ in pairs})
    extra = sorted({*range(len(others[1]))} - {j for _, j in pairs})
    unexplained = 0
    if missing or extra:
        # An object that took the place of another with its score is one that PyTorch saw, too.
        known = _arrays(candidates())
        tied = [
            (i, j)
            for i, j in itertools.product(missing, extra)
            if _ties(these, i, others, j) and _match(tuple(x[j : j + 1] for x in others), known)
        ]
        edges = [float(cfg.score_thr)]
        edges += [float(s.min()) for s in (these[1], others[1]) if len(s) == cfg.max_per_img]
        at_edge = [[k for k, score in enumerate(x[1]) if _is_near(score, edges)] for x in (these, others)]
        unexplained += len({*missing} - {i for i, _ in tied} - {*at_edge[0]})
        unexplained += len({*extra} - {j for _, j in tied} - {*at_edge[1]})
    order = [i for i, _ in sorted(pairs, key=lambda pair: pair[1])]
    back = [float(these[1][b] - these[1][a]) for a, b in itertools.pairwise(order) if a > b]
    values = dict(
        pixels=max((float(np.abs(these[0][i] - others[0][j]).max()) for i, j in pairs), default=0.0),
        score=max((float(abs(these[1][i] - others[1][j])) for i, j in pairs), default=0.0),
    )
    passed = unexplained <= len(these[1]) // 100 and values['score'] <= SCORE and max(back, default=0) <= TIE
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
    if unexplained:
        values['objects that no tie explains'] = unexplained
    return Difference(title, values, passed, (len(pairs), len(these[1])))


def _before(cfg: ConfigDict, model: nn.Module, x: Tensor, prepared: Prepared) -> InstanceData:
    """Objects before suppression."""
    kept = cfg.nms.iou_threshold, cfg.max_per_img
    cfg.nms.iou_threshold, cfg.max_per_img = 1.0, 2000
    try:
        return _detect(model, x, prepared)
    finally:
        cfg.nms.iou_threshold, cfg.max_per_img = kept


Objects = Sequence[np.ndarray]


def _match(true: Objects, own: Objects) -> list[tuple[int, int]]:
    """Pairs of the same box and class, those at the same place first."""
    same = np.abs(true[0][:, None] - own[0][None]).max(2, initial=0) <= BOX
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


def _is_near(score: float, edges: Sequence[float]) -> bool:
    return any(abs(score - edge) <= SCORE for edge in edges)


def _ties(these: Objects, i: int, others: Objects, j: int) -> bool:
    """Whether two objects of one class overlap and have the same score."""
    sides = np.minimum(these[0][i, 2:], others[0][j, 2:]) - np.maximum(these[0][i, :2], others[0][j, :2])
    return these[2][i] == others[2][j] and _is_near(these[1][i], [others[1][j]]) and bool((sides > 0).all())
