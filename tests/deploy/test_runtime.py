"""Pieces of the runtime against what they stand for."""

from argparse import Namespace

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms
from mmengine.config import ConfigDict
from mmseg.models.utils import Upsample
from torch import nn

from mmmeta.deploy.exporting import _default_shape, _replaced
from mmmeta.deploy.pooling import MatrixAdaptiveAvgPool2d
from mmmeta.deploy.preprocessing import Preprocessing, read_preprocessing
from mmmeta.deploy.suppression import separate, suppress
from mmmeta.deploy.upsampling import SymbolicUpsample
from mmmeta.runtime.run import (
    Crop,
    Description,
    Fit,
    Prediction,
    _crop,
    _resize,
    as_json,
    draw,
    encode_mask,
    paste_mask,
    resize_bilinear,
)
from mmmeta.utils.errors import UsageError


@pytest.mark.parametrize('size', [(61, 93), (30, 41), (200, 77), (1, 1), (50, 70), (25, 35), (100, 140)])
def test_resizing_as_opencv_does(size):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize_bilinear(image, size), expected)


@pytest.mark.parametrize('channels', [1, 3, 6])
@pytest.mark.parametrize('size', [(61, 93), (30, 41), (25, 35), (1, 1)])
def test_resizing_of_deeper_images_as_opencv_does(size, channels):
    image = np.random.default_rng(0).uniform(0, 65535, (50, 70, channels)).astype(np.float32)
    expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(*size, channels)
    np.testing.assert_allclose(resize_bilinear(image, size), expected, atol=65535 * 1e-5)
    eight = image.astype(np.uint8)
    expected = cv2.resize(eight, size[::-1], interpolation=cv2.INTER_LINEAR).reshape(*size, channels)
    np.testing.assert_array_equal(resize_bilinear(eight, size), expected)


def test_sizes_that_keep_the_ratio_are_those_of_mmcv():
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = (int(side) for side in rng.integers(1, 120, 2))
        scale = tuple(int(side) for side in rng.integers(20, 90, 2))
        description = Description('detection', shape=[8, 8], dynamic='all', resize=Fit([*scale]))
        resized = _resize(np.zeros((height, width, 3), np.uint8), description)
        expected = mmcv.rescale_size((width, height), scale)
        assert resized.shape[1::-1] == tuple(max(side, 1) for side in expected), (height, width, scale)


@pytest.mark.parametrize('size', [(40, 57), (57, 40), (33, 33), (32, 90), (31, 64)])
@pytest.mark.parametrize(('short', 'side'), [(36, 32), (37, 32), (32, 32)])
def test_crops_as_mmpretrain_takes_them(size, short, side):
    transforms = pytest.importorskip('mmpretrain.datasets.transforms', reason='its transforms are repeated')
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    resize = transforms.ResizeEdge(short, edge='short', backend='pillow', interpolation='bicubic')
    results = transforms.CenterCrop(side)(resize(dict(img=image)))
    np.testing.assert_array_equal(_crop(image, Crop(short, side, 'bicubic'), (side, side)), results['img'])


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
@pytest.mark.parametrize('channels', [1, 4])
def test_crops_of_other_channels(channels, dtype):
    transforms = pytest.importorskip('mmpretrain.datasets.transforms', reason='its transforms are repeated')
    image = (np.random.default_rng(0).random((40, 57, channels)) * 255).astype(dtype)
    resize = transforms.ResizeEdge(37, edge='short', backend='cv2', interpolation='bilinear')
    results = transforms.CenterCrop(32)(resize(dict(img=image)))
    expected = results['img'].reshape(32, 32, channels)
    found = _crop(image, Crop(37, 32, 'opencv'), (32, 32))
    np.testing.assert_allclose(found, expected, atol=255 * 1e-5 if dtype == np.float32 else 0)


def test_upsampling_traced_for_any_size():
    model = nn.Sequential(Upsample(scale_factor=2, mode='bilinear', align_corners=False))
    x = torch.randn(2, 3, 5, 7)
    with _replaced(model, {Upsample: SymbolicUpsample}):
        axes = dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)
        program = torch.export.export(model, (torch.randn(2, 3, 8, 8),), dynamic_shapes=(axes,))
    torch.testing.assert_close(program.module()(x), model(x), rtol=0, atol=0)


FIRST, LAST = dict(type='LoadImageFromFile'), dict(type='PackSegInputs')
RESIZE = dict(type='Resize', scale=(64, 32), keep_ratio=True)


def read(*steps, **preprocessor):
    cfg = ConfigDict(test_pipeline=[FIRST, *steps, LAST])
    return read_preprocessing(cfg, Namespace(**preprocessor))


def test_preprocessing_of_a_test_pipeline():
    plain = read(RESIZE, dict(type='LoadAnnotations'), pad_size_divisor=32)
    assert plain == Preprocessing(Fit([64, 32]), divisor=32) and plain.keeps_ratio
    aligned = read(RESIZE, dict(type='ResizeToMultiple', size_divisor=16), test_cfg=dict(size_divisor=8))
    assert aligned == Preprocessing(Fit([64, 32], multiple=16), divisor=8)
    padded = read(RESIZE, dict(type='mmdet.Pad', size=(96, 64), pad_val=dict(img=(1, 2, 3))))
    assert padded.padded_size == (64, 96) and padded.padding == [3, 2, 1] and not padded.keeps_ratio
    multiples = read(RESIZE, dict(type='Pad', size_divisor=32, pad_val=5), pad_size_divisor=32)
    assert multiples.divisor == 32 and multiples.padding == [5, 5, 5]
    inner = dict(type='ADE20KDataset', pipeline=[FIRST, RESIZE, LAST])
    wrapped = dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', dataset=inner, times=2)])
    cfg = ConfigDict(test_dataloader=dict(dataset=wrapped), test_pipeline=[])
    assert read_preprocessing(cfg, None).resize == Fit([64, 32])
    edge = dict(type='ResizeEdge', scale=48, edge='short', backend='pillow', interpolation='bicubic')
    assert read(edge, dict(type='CenterCrop', crop_size=32)).resize == Crop(48, 32, 'bicubic')


@pytest.mark.parametrize(
    ('steps', 'preprocessor', 'message'),
    [
        ([], {}, 'does not resize as the runtime'),
        (
            [dict(RESIZE, interpolation='bicubic')],
            {},
            r"Resize\(.*interpolation='bicubic'\), which the runtime",
        ),
        ([dict(RESIZE, backend='pillow')], {}, r"Resize\(.*backend='pillow'"),
        ([dict(type='Resize', scale_factor=0.5)], {}, r'Resize\(scale_factor=0.5\)'),
        ([RESIZE, dict(type='RandomFlip', prob=0.5)], {}, r'RandomFlip\(prob=0.5\)'),
        ([RESIZE, dict(type='mmdet.LetterResize')], {}, r'LetterResize\(\)'),
        ([RESIZE, dict(type='Pad', pad_to_square=True)], {}, 'Pad'),
        ([RESIZE], dict(test_cfg=dict(size=(64, 64))), r'test_cfg.size=\(64, 64\) pads images'),
        ([RESIZE], dict(pad_size_divisor=32, pad_value=7), 'the data preprocessor pads with 7'),
        ([RESIZE, dict(type='Pad', size_divisor=8)], dict(pad_size_divisor=32), 'leave out one of the two'),
    ],
)
def test_preprocessing_that_the_runtime_does_not_repeat(steps, preprocessor, message):
    with pytest.raises(UsageError, match=message):
        read(*steps, **preprocessor)


def test_a_scale_without_a_limit():
    """MMCV takes an infinite side for any."""
    unlimited = read(dict(RESIZE, scale=(float('inf'), 96)))
    assert _default_shape(unlimited, 'segmentation') == (96, 96)
    with pytest.raises(
        UsageError, match=r'resizes to scale=\(inf, 96\), a side without a limit: give the sh'
    ):
        _default_shape(unlimited, 'detection')


def test_masks_as_mmdetection_pastes_them():
    mask_head = pytest.importorskip(
        'mmdet.models.roi_heads.mask_heads.fcn_mask_head', reason='compared with it'
    )
    rng = np.random.default_rng(0)
    for _ in range(50):
        corner, side = rng.uniform(-5, 60, 2), rng.uniform(0, 50, 2)
        box = np.concatenate([corner, corner + side]).astype(np.float32).clip(0, 80)
        mask = rng.random((28, 28), dtype=np.float32)
        canvas = np.zeros((70, 80), bool)
        paste_mask(canvas, mask, box, 0.5)
        region, (rows, columns) = mask_head._do_paste_mask(
            torch.from_numpy(mask)[None, None], torch.from_numpy(box)[None], 70, 80
        )
        expected = np.zeros((70, 80), bool)
        if (box[2:] > box[:2]).all():
            expected[rows, columns] = (region[0] >= 0.5).numpy()
        assert (canvas != expected).sum() <= 1  # of what lies at the threshold


def test_a_probability_equal_to_the_threshold_is_of_the_object():
    canvas = np.zeros((6, 6), bool)
    paste_mask(canvas, np.full((4, 4), 0.5, np.float32), np.array([1, 1, 5, 5], np.float32), 0.5)
    assert canvas[1:5, 1:5].all() and canvas.sum() == 16


def test_a_score_equal_to_the_threshold_is_drawn_and_written():
    image = np.zeros((64, 64, 3), np.uint8)
    boxes = np.array([[8, 8, 40, 40], [12, 12, 50, 50]], np.float32)
    prediction = Prediction(boxes, np.array([0.5, 0.25], np.float32), np.array([0, 1]))
    description = Description('detection', classes=['a', 'b'], palette=[[255, 0, 0], [0, 255, 0]])
    for threshold, count in ((0.5, 1), (0.5001, 0), (0.25, 2)):
        assert len(as_json(prediction, description, threshold)['objects']) == count
        drawn = np.asarray(draw(image, prediction, description, threshold))
        corners = [drawn[8 * side, 8 * side].tolist() for side in (40, 50)]
        assert corners == [[255, 0, 0] if count else [0] * 3, [0, 255, 0] if count > 1 else [0] * 3]


def test_the_likeliest_classes_come_first():
    prediction = Prediction(scores=np.array([0.125, 0.5, 0.125, 0.25], np.float32))
    found = as_json(prediction, Description('classification', classes=[*'abcd']), 0.3, top=3)['classes']
    assert [(one['name'], one['score']) for one in found] == [('b', 0.5), ('d', 0.25), ('a', 0.125)]


def test_masks_as_coco_writes_them():
    mask_utils = pytest.importorskip('pycocotools.mask', reason='it reads them')
    mask = np.random.default_rng(0).random((13, 17)) > 0.5
    encoded = encode_mask(mask)
    decoded = mask_utils.decode(mask_utils.frPyObjects(encoded, *mask.shape))
    assert (decoded == mask).all()


@pytest.mark.parametrize('count', [5, 40, 500])
@pytest.mark.parametrize('threshold', [0.0, 0.5, 2.0])
def test_suppression_as_mmcv_does_it(count, threshold):
    generator = torch.Generator().manual_seed(count)
    corners = 50 * torch.rand(7, 30, 2, generator=generator)
    boxes = torch.cat([corners, corners + 5 + 30 * torch.rand(7, 30, 2, generator=generator)], -1)
    scores = torch.rand(7, 30, generator=generator)
    valid = scores >= threshold
    labels = torch.arange(7)[:, None].expand(7, 30)
    apart = separate(boxes, labels, valid)
    kept = suppress(apart, torch.where(valid, scores, -1.0), 0.5, count)
    assert kept.shape == (count,)
    places = valid.flatten().nonzero().squeeze(1)
    if len(places) == 0:
        assert (kept == -1).all()
        return
    nms = dict(type='nms', iou_threshold=0.5)
    flat = boxes.reshape(-1, 4)[places], scores.flatten()[places], labels.flatten()[places]
    _, expected = batched_nms(*flat, nms)
    expected = places[expected][:count]
    assert torch.equal(kept[: len(expected)], expected)
    assert (kept[len(expected) :] == -1).all()


@pytest.mark.parametrize('output_size', [1, 2, 3, 6, (2, 5), (None, 4)])
def test_pooling_as_pytorch_does_it(output_size):
    x = torch.randn(2, 3, 13, 10)
    own, plain = MatrixAdaptiveAvgPool2d(output_size), torch.nn.AdaptiveAvgPool2d(output_size)
    torch.testing.assert_close(own(x), plain(x))


def test_suppression_in_a_file(tmp_path):
    formats = pytest.importorskip('mmmeta.deploy.formats', reason='it writes the file')
    onnxruntime = pytest.importorskip('onnxruntime', reason='it runs the file')

    class Suppress(torch.nn.Module):
        def forward(self, boxes, scores):
            return suppress(boxes, scores, 0.5, 12)

    corners = 50 * torch.rand(3, 30, 2)
    boxes = (
        torch.cat([corners, corners + 5 + 30 * torch.rand(3, 30, 2)], -1)
        + 100 * torch.arange(3.0)[:, None, None]
    )
    scores = torch.rand(3, 30)
    program = formats.trace(Suppress(), (boxes, scores), None)
    description = Description('features', inputs=['boxes', 'scores'], outputs=['kept'])
    formats.write_onnx(program, tmp_path / 'a.onnx', description)
    session = onnxruntime.InferenceSession(tmp_path / 'a.onnx')
    for threshold in (0.0, 0.9, 2.0):
        some = torch.where(scores >= threshold, scores, -1.0)
        (kept,) = session.run(None, dict(boxes=boxes.numpy(), scores=some.numpy()))
        assert kept.tolist() == suppress(boxes, some, 0.5, 12).tolist()
