"""Detectors of MMDetection as networks from an image to a fixed number of boxes, for export.

MMDetection's own ``predict`` cannot be exported: its shapes depend on values everywhere. Here its parts
(the features, heads, coders and the choice of levels) are called as they are, and what lies between them is
written with fixed numbers of candidates, of which those that are none have a negative score.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.ops import RoIAlign
from mmdet.models.dense_heads import GFLHead, RPNHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder, DistancePointBBoxCoder
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmmeta.utils.errors import UsageError

from .regions import extract_regions
from .suppression import LEFT_OUT, separate, suppress

# Methods by which a dense head predicts; heads with others of these are other methods.
PREDICTING = ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
OF_REGIONS = ('predict', 'predict_bbox', 'predict_mask', '_bbox_forward', '_mask_forward')
OF_BOXES = ('predict_by_feat', '_predict_by_feat_single', 'regress_by_class')
CODERS = (DeltaXYWHBBoxCoder, DistancePointBBoxCoder)


class Detection(nn.Module):
    """A detector for one image of a fixed or any size.

    Args:
        detector (nn.Module): A detector of MMDetection in eval mode.
    """

    names: tuple[str, ...] = ('boxes', 'scores', 'labels')

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """Detect objects.

        Args:
            image (Tensor): Normalised and padded with zeros, ``(1, 3, H, W)``.
            size (Tensor): Height and width without the padding, ``(2,)``, as floats.

        Returns:
            tuple[Tensor, ...]: K boxes ``(K, 4)`` in pixels of the image, their scores and labels, both
            ``(K,)``, the best first and label -1 where there are fewer; with masks ``(K, h, w)`` of the
            boxes, probabilities.
        """
        raise NotImplementedError


class OneStageDetection(Detection):
    """A detector with a dense head."""

    def __init__(self, detector: SingleStageDetector) -> None:
        super().__init__(detector)
        head = detector.bbox_head
        _check_same(head, BaseDenseHead, PREDICTING, but=GFLHead)
        _check_coder(head)
        if getattr(head.loss_cls, 'custom_cls_channels', False):
            raise _unsupported(head, 'has classes of its own kind')
        _check_test_cfg(head, head.test_cfg, ('nms_pre', 'score_thr', 'nms', 'max_per_img'))

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """Detect objects, see :class:`Detection`."""
        head = self.detector.bbox_head
        cfg = head.test_cfg
        outs = head(self.detector.extract_feat(image))
        priors = _grid_priors(head, outs[0])
        levels = []
        for level, (logits, deltas) in enumerate(zip(outs[0], outs[1], strict=True)):
            logits, own = _rows(logits, head.cls_out_channels), priors[level]
            if isinstance(head, GFLHead):
                # As its Integral, without a conversion of the buffer, at which the exporter to ONNX fails.
                bins = _rows(deltas, head.reg_max + 1).softmax(1)
                deltas = F.linear(bins, head.integral.project).view(-1, 4)
                deltas = deltas * head.prior_generator.strides[level][0]
                own = head.anchor_center(own)
            else:
                deltas = _rows(deltas, head.bbox_coder.encode_size)
            scores, places, labels = _best_pairs(logits, head.use_sigmoid_cls, cfg.nms_pre)
            valid = scores > cfg.score_thr
            if len(outs) > 2:
                factors = _rows(outs[2][level], 1)[:, 0].sigmoid()
                scores = scores * factors[places]
            levels.append((own[places], deltas[places], torch.where(valid, scores, LEFT_OUT), labels))
        own, deltas, scores, labels = (torch.cat(parts) for parts in zip(*levels, strict=True))
        boxes = _clip(head.bbox_coder, head.bbox_coder.decode(own, deltas), size)
        scores = _leave_out_small(boxes, scores, cfg)
        groups = torch.zeros_like(labels) if cfg.nms.get('class_agnostic') else labels
        apart = separate(boxes, groups, scores >= 0)
        kept = suppress(apart[None], scores[None], cfg.nms.iou_threshold, cfg.max_per_img)
        return _take(kept, boxes, scores, labels)


class TwoStageDetection(Detection):
    """A detector with proposals, and heads for boxes and masks in one or several stages."""

    def __init__(self, detector: TwoStageDetector) -> None:
        super().__init__(detector)
        self.check(detector)
        heads = detector.roi_head
        self.cascaded = isinstance(heads, CascadeRoIHead)
        if heads.with_mask:
            self.names = (*Detection.names, 'masks')

    @staticmethod
    def check(detector: TwoStageDetector) -> None:
        """Check that all parts are known.

        Raises:
            UsageError: One is not.
        """
        rpn, heads = detector.rpn_head, detector.roi_head
        _check_same(rpn, RPNHead, PREDICTING)
        _check_coder(rpn)
        _check_test_cfg(rpn, rpn.test_cfg, ('nms_pre', 'nms', 'max_per_img'))
        kind = CascadeRoIHead if isinstance(heads, CascadeRoIHead) else StandardRoIHead
        _check_same(heads, kind, OF_REGIONS)
        if heads.with_shared_head:
            raise _unsupported(heads, 'has a shared head')
        _check_test_cfg(heads, heads.test_cfg, ('score_thr', 'nms', 'max_per_img'))
        for head in _stages(heads.bbox_head):
            _check_same(head, BBoxHead, OF_BOXES)
            _check_coder(head)
            if head.custom_cls_channels or not head.with_reg:
                raise _unsupported(head, 'has classes of its own kind, or gives no boxes')
        extractors = list(_stages(heads.bbox_roi_extractor))
        if heads.with_mask:
            for head in _stages(heads.mask_head):
                _check_same(head, FCNMaskHead, ('predict_by_feat', '_predict_by_feat_single', 'forward'))
            extractors += _stages(heads.mask_roi_extractor)
        for extractor in extractors:
            layers = extractor.roi_layers
            plain = all(type(layer) is RoIAlign and layer.pool_mode == 'avg' for layer in layers)
            if type(extractor) is not SingleRoIExtractor or not plain:
                raise _unsupported(extractor, 'is not SingleRoIExtractor with RoIAlign')

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """Detect objects, see :class:`Detection`."""
        features = list(self.detector.extract_feat(image))
        proposals, valid = self._propose(features, size)
        heads = self.detector.roi_head
        stages = list(zip(_stages(heads.bbox_roi_extractor), _stages(heads.bbox_head), strict=True))
        logits = []
        for number, (extractor, head) in enumerate(stages, 1):
            cls_score, deltas = head(extract_regions(extractor, features, proposals))
            logits.append(cls_score)
            if number < len(stages):
                if not head.reg_class_agnostic:
                    classes = cls_score[:, :-1].argmax(1)
                    deltas = deltas.view(len(proposals), -1, 4)
                    deltas = deltas[torch.arange(len(proposals)), classes]
                proposals = _clip(head.bbox_coder, head.bbox_coder.decode(proposals, deltas), size)
        scores = (sum(logits) / len(logits)).softmax(-1)[:, :-1]
        boxes = self._decode(head, proposals, deltas, size)
        boxes, scores, labels = self._suppress(boxes, scores, valid)
        if not heads.with_mask:
            return boxes, scores, labels
        return boxes, scores, labels, self._masks(features, boxes, labels)

    def _propose(self, features: list[Tensor], size: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes of the region proposal network, and which of them are some; others have no area."""
        head = self.detector.rpn_head
        cfg = head.test_cfg
        logits, deltas = head(features)
        priors = _grid_priors(head, logits)
        levels = []
        for level in range(len(logits)):
            scores = _rows(logits[level], head.cls_out_channels)
            scores = scores[:, 0] if head.use_sigmoid_cls else scores.softmax(-1)[:, 0]
            best, places = scores.topk(_at_most(cfg.nms_pre, scores.shape[0]))
            best = best.sigmoid() if head.use_sigmoid_cls else best
            decoded = head.bbox_coder.decode(priors[level][places], _rows(deltas[level], 4)[places])
            boxes = _clip(head.bbox_coder, decoded, size)
            levels.append((boxes, _leave_out_small(boxes, best, cfg)))
        boxes = torch.stack([_padded(one, cfg.nms_pre, 0) for one, _ in levels])
        scores = torch.stack([_padded(one, cfg.nms_pre, LEFT_OUT) for _, one in levels])
        numbers = torch.arange(len(levels))[:, None]
        apart = separate(boxes, numbers, scores >= 0)
        kept = suppress(apart, scores, cfg.nms.iou_threshold, cfg.max_per_img)
        valid = kept >= 0
        return torch.where(valid[:, None], boxes.flatten(0, 1)[kept.clamp(min=0)], 0), valid

    @staticmethod
    def _decode(head: BBoxHead, proposals: Tensor, deltas: Tensor, size: Tensor) -> Tensor:
        """Boxes of each class, ``(classes or 1, proposals, 4)``."""
        count = len(proposals)
        classes = 1 if head.reg_class_agnostic else head.num_classes
        deltas = deltas.view(count, classes, 4).transpose(0, 1)
        from_each = proposals.expand(classes, count, 4)
        boxes = head.bbox_coder.decode(from_each.reshape(-1, 4), deltas.reshape(-1, 4))
        return _clip(head.bbox_coder, boxes, size).view(classes, count, 4)

    def _suppress(self, boxes: Tensor, scores: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best boxes of all classes."""
        cfg = self.detector.roi_head.test_cfg
        scores = scores.t()
        classes, count = scores.shape
        boxes = boxes.expand(classes, count, 4)
        scores = torch.where(valid & (scores > cfg.score_thr), scores, LEFT_OUT)
        labels = torch.arange(classes)[:, None].expand(classes, count)
        if cfg.nms.get('class_agnostic'):
            boxes, scores, labels = (part.flatten(0, 1)[None] for part in (boxes, scores, labels))
            apart = boxes
        else:
            apart = separate(boxes, labels, scores >= 0)
        kept = suppress(apart, scores, cfg.nms.iou_threshold, cfg.max_per_img)
        return _take(kept, boxes.reshape(-1, 4), scores.flatten(), labels.flatten())

    def _masks(self, features: list[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Probabilities inside each box, the mean of all stages."""
        heads = self.detector.roi_head
        masks = []
        for extractor, head in zip(_stages(heads.mask_roi_extractor), _stages(heads.mask_head), strict=True):
            logits = head(extract_regions(extractor, features, boxes))
            if head.class_agnostic:
                logits = logits[:, 0]
            else:
                logits = logits[torch.arange(len(boxes)), labels.clamp(min=0)]
            masks.append(logits.sigmoid())
        return sum(masks) / len(masks)


def _stages(part: nn.Module) -> Sequence[nn.Module]:
    """A part of each stage; of a head without stages itself."""
    return part if isinstance(part, nn.ModuleList) else [part]


def _rows(x: Tensor, channels: int) -> Tensor:
    """A map of one image, ``(1, anchors * channels, H, W)``, as ``(H * W * anchors, channels)``."""
    return x[0].permute(1, 2, 0).reshape(-1, channels)


def _grid_priors(head: BaseDenseHead, maps: Sequence[Tensor]) -> list[Tensor]:
    sizes = [x.shape[-2:] for x in maps]
    return head.prior_generator.grid_priors(sizes, dtype=maps[0].dtype, device=maps[0].device)


def _at_most(count: int, length: int) -> int:
    """The smaller of two numbers, of which the second may be symbolic; ``len`` would fix it."""
    return torch.sym_min(count, length)


def _best_pairs(logits: Tensor, sigmoid: bool, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of place and class: scores, places and classes.

    The best k pairs lie within the k places of the largest best class, so that nothing has to be sorted but
    the best class of each place, and then the classes of k places.
    """
    if not sigmoid:
        logits = logits.softmax(-1)[:, :-1]
    classes = logits.shape[1]
    best = logits.amax(1)
    _, places = best.topk(_at_most(count, best.shape[0]))
    pairs = logits[places].flatten()
    scores, order = pairs.topk(_at_most(count, pairs.shape[0]))
    rows = torch.div(order, classes, rounding_mode='floor')
    return scores.sigmoid() if sigmoid else scores, places[rows], order - rows * classes


def _clip(coder: nn.Module, boxes: Tensor, size: Tensor) -> Tensor:
    """Clip boxes to an image, as the coder does where it is told the size."""
    if not coder.clip_border:
        return boxes
    limits = size.flip(0).repeat(2)
    return torch.minimum(boxes.clamp(min=0), limits)


def _leave_out_small(boxes: Tensor, scores: Tensor, cfg: ConfigDict) -> Tensor:
    """Scores, negative for boxes of which a side is too short."""
    least = cfg.get('min_bbox_size', -1)
    if least < 0:
        return scores
    sides = boxes[:, 2:] - boxes[:, :2]
    return torch.where((sides > least).all(1), scores, LEFT_OUT)


def _padded(x: Tensor, length: int, value: float) -> Tensor:
    """Lengthen a tensor along its first axis."""
    filling = x.new_full((length, *x.shape[1:]), value)
    return torch.cat([x, filling])[:length]


def _take(kept: Tensor, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What was kept; zeros, and label -1, where that is less than was asked for."""
    valid, places = kept >= 0, kept.clamp(min=0)
    return (
        torch.where(valid[:, None], boxes[places], 0),
        torch.where(valid, scores[places], 0),
        torch.where(valid, labels[places], -1),
    )


def _unsupported(part: nn.Module, why: str) -> UsageError:
    return UsageError(
        f'{type(part).__name__} {why}, which cannot be exported: dense heads that predict as BaseDenseHead '
        'does or as GFLHead, and region heads that do as StandardRoIHead or CascadeRoIHead can be'
    )


def _check_same(part: nn.Module, kind: type, names: Sequence[str], but: type | None = None) -> None:
    """Check that a part predicts as a known kind does."""
    if not isinstance(part, kind):
        raise _unsupported(part, f'is no {kind.__name__}')
    for name in names:
        known = [getattr(one, name, None) for one in (kind, but) if one]
        if getattr(type(part), name, None) not in known:
            raise _unsupported(part, f'has {name} of its own')


def _check_coder(head: nn.Module) -> None:
    coder = head.bbox_coder
    if type(coder) not in CODERS:
        raise _unsupported(head, f'has {type(coder).__name__}')


def _check_test_cfg(head: nn.Module, cfg: ConfigDict, needed: Sequence[str]) -> None:
    """Check that post-processing is what is written here."""
    for key in needed:
        if cfg.get(key) is None or (key in ('nms_pre', 'max_per_img') and cfg[key] <= 0):
            raise UsageError(
                f'test_cfg of {type(head).__name__} has {key}={cfg.get(key)}: export needs a value, and a '
                'positive one of numbers of boxes'
            )
    nms = cfg.nms
    if nms.get('type', 'nms') != 'nms':
        raise UsageError(
            f"test_cfg of {type(head).__name__} has nms.type='{nms.type}', which cannot be exported: set "
            "it to 'nms'"
        )
    extra = nms.keys() - {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
    if extra:
        raise UsageError(
            f'test_cfg of {type(head).__name__} has nms.{extra.pop()}, which cannot be exported: remove it'
        )
    if cfg.get('min_bbox_size', 0) > 0 and not isinstance(head, RPNHead):
        raise UsageError(
            f'test_cfg of {type(head).__name__} has min_bbox_size={cfg.min_bbox_size}, in pixels of the '
            'original image, which an exported file does not know: set it to 0'
        )


def wrap_detector(detector: nn.Module) -> Detection:
    """A detector as a network from an image to boxes.

    Args:
        detector (nn.Module): Of MMDetection.

    Raises:
        UsageError: It is of another kind, or a part of it cannot be exported.
    """
    if type(detector).predict is SingleStageDetector.predict and isinstance(detector, SingleStageDetector):
        return OneStageDetection(detector)
    if type(detector).predict is TwoStageDetector.predict and detector.with_rpn:
        return TwoStageDetection(detector)
    raise UsageError(
        f'{type(detector).__name__} cannot be exported: detectors with a dense head, and with a region '
        'proposal network and heads for regions, can be'
    )
