"""Detectors for export give the boxes of MMDetection's own prediction; what they do not know is refused."""

import re

import pytest
import torch
from deploy.spread import spread
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope

from mmmeta.config.loading import load_config
from mmmeta.utils.errors import UsageError

pytest.importorskip('mmdet', reason='its detectors are exported')

from mmdet.structures import DetDataSample

from mmmeta.deploy.detection import wrap_detector

BACKBONE = dict(type='mmmeta.PoolFormer', arch=dict(base='s12', depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)))
SHAPE, SIZE = (128, 160), (128, 140)
DENSE = (
    'configs/retinanet_poolformer_s12_coco.py',
    'configs/rtmdet_convformer_s18_coco.py',
    'mmdet::atss/atss_r50_fpn_1x_coco.py',
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'mmdet::gfl/gfl_r50_fpn_1x_coco.py',
)
REGIONS = (
    'tests/data/tiny_mask_rcnn.py',
    'configs/cascade_mask_rcnn_convformer_s18_coco.py',
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
)


def narrow(value, width=32):
    """Reduce numbers of channels, in place."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key in ('out_channels', 'feat_channels', 'conv_out_channels', 'fc_out_channels') or (
                key == 'in_channels' and isinstance(part, int)
            ):
                value[key] = width
            else:
                narrow(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            narrow(part)


def build(path, **changes):
    """A detector in miniature, with a few candidates."""
    cfg = load_config(path, {f'model.test_cfg.{key}': value for key, value in changes.items()})
    model = cfg.model
    model.backbone = ConfigDict(BACKBONE)
    if 'init_cfg' in model:
        model.init_cfg = None
    levels = len(model.neck.in_channels)
    model.backbone.out_indices = tuple(range(4 - levels, 4))
    narrow(model)
    model.neck.in_channels = list(BACKBONE['arch']['dims'])[4 - levels :]
    if model.neck.type == 'CSPNeXtPAFPN':
        model.bbox_head.norm_cfg = model.neck.norm_cfg = dict(type='BN')
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.manual_seed(0)
        detector = MODELS.build(model).eval()
    detector.cfg = cfg
    return detector


def predict(detector, image, size=SIZE):
    shape = tuple(image.shape[2:])
    sizes = dict(img_shape=size, ori_shape=size, pad_shape=shape, batch_input_shape=shape)
    sample = DetDataSample(metainfo=dict(sizes, scale_factor=(1.0, 1.0)))
    with torch.no_grad():
        return detector.predict(image, [sample], rescale=False)[0].pred_instances


@pytest.fixture(scope='module')
def image():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 3, SHAPE[0] // 8, SHAPE[1] // 8, generator=generator)
    image = torch.nn.functional.interpolate(coarse, SHAPE, mode='bilinear')
    image += 0.3 * torch.randn(image.shape, generator=generator)
    image[..., SIZE[1] :] = 0
    return image


def run(detector, image, size=SIZE):
    with torch.no_grad():
        return wrap_detector(detector).eval()(image, torch.tensor(size, dtype=torch.float32))


def objects(scores, labels, boxes):
    """Scores, labels and boxes of objects, the best first; those of one score in an order of their own.

    A sigmoid is at most a quarter as steep as its input, so that logits that differ by a few roundings have
    one score. Files order such objects by the logits, PyTorch in any way.
    """
    rows = zip(scores.tolist(), labels.tolist(), boxes.tolist(), strict=True)
    return sorted(rows, key=lambda row: (-row[0], *row[1:]))


@pytest.mark.parametrize('path', [*DENSE, *REGIONS])
def test_the_same_boxes_in_the_same_order(path, image):
    detector = build(path)
    spread(detector, lambda: predict(detector, image))
    expected = predict(detector, image)
    boxes, scores, labels, *masks = run(detector, image)
    count = len(expected.scores)
    assert count >= 10 and len(expected.scores.unique()) > 5
    assert torch.equal(scores[:count], expected.scores)
    own = objects(scores[:count], labels[:count], boxes[:count])
    assert own == objects(expected.scores, expected.labels, expected.bboxes)
    assert (labels[count:] == -1).all()
    assert bool(masks) == ('masks' in expected)


@pytest.mark.parametrize('path', [DENSE[0], REGIONS[0]])
def test_no_and_few_objects(path, image):
    detector = build(path)
    spread(detector, lambda: predict(detector, image))
    scores = predict(detector, image).scores
    part = getattr(detector, 'roi_head', None) or detector.bbox_head
    for threshold, count in ((1.0, 0), (float(scores[3]), 3)):
        part.test_cfg.score_thr = threshold
        assert len(predict(detector, image).scores) == count
        boxes, scores_of_file, labels, *masks = run(detector, image)
        assert int((labels >= 0).sum()) == count
        assert torch.equal(scores_of_file[:count], scores[:count])
        assert not boxes[count:].any()
        assert all(part.isfinite().all() for part in masks)


def test_boxes_without_area_and_empty_levels(image):
    detector = build(REGIONS[1])  # in several stages, whose boxes are clipped to nothing
    spread(detector, lambda: predict(detector, image), dict(reg=20.0))
    expected = predict(detector, image)
    boxes, scores, labels, masks = run(detector, image)
    count = len(expected.scores)
    own = objects(scores[:count], labels[:count], boxes[:count])
    assert own == objects(expected.scores, expected.labels, expected.bboxes)
    assert masks.isfinite().all()


@pytest.mark.parametrize(
    ('path', 'changes', 'message'),
    [
        (REGIONS[2], {'rcnn.nms.type': 'soft_nms'}, "test_cfg of StandardRoIHead has nms.type='soft_nms'"),
        (REGIONS[2], {'rpn.nms.max_num': 3}, r'test_cfg of RPNHead has nms.max_num, .*: remove it'),
        (DENSE[0], {'min_bbox_size': 4}, 'test_cfg of RetinaHead has min_bbox_size=4'),
        (DENSE[0], {'nms_pre': -1}, 'test_cfg of RetinaHead has nms_pre=-1: export needs a value'),
    ],
)
def test_what_is_not_known_of_test_cfg(path, changes, message):
    with pytest.raises(UsageError, match=message):
        wrap_detector(build(path, **changes))


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('mmdet::yolox/yolox_s_8xb8-300e_coco.py', 'YOLOXHead has predict_by_feat of its own'),
        ('mmdet::detr/detr_r50_8xb2-150e_coco.py', 'DETR cannot be exported'),
        ('mmdet::htc/htc-without-semantic_r50_fpn_1x_coco.py', 'HybridTaskCascadeRoIHead has predict of its'),
        ('mmdet::groie/faste-rcnn_r50_fpn_groie_1x_coco.py', 'GenericRoIExtractor is not SingleRoIExtractor'),
        ('mmdet::paa/paa_r50_fpn_1x_coco.py', 'PAAHead has predict_by_feat of its own'),
        ('mmdet::ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco.py', 'MaskScoringRoIHead has predict'),
    ],
)
def test_other_methods(path, message):
    cfg = load_config(path)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(cfg.model).eval()
    with pytest.raises(UsageError, match=re.escape(message)):
        wrap_detector(detector)
