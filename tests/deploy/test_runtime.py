"""Pieces of the runtime against what they stand for."""

import cv2
import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms

from mmmeta.deploy.pooling import MatrixAdaptiveAvgPool2d
from mmmeta.deploy.runtime import encode_mask, paste_mask, resize_bilinear
from mmmeta.deploy.suppression import separate, suppress


@pytest.mark.parametrize('size', [(61, 93), (30, 41), (200, 77), (1, 1), (50, 70)])
def test_resizing_as_opencv_does(size):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    own = resize_bilinear(image, size).astype(int)
    expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    assert own.shape == expected.shape
    assert np.abs(own - expected).max() <= 1


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
    names = dict(inputs=['boxes', 'scores'], outputs=['kept'])
    formats.write_onnx(program, tmp_path / 'a.onnx', names, {})
    session = onnxruntime.InferenceSession(tmp_path / 'a.onnx')
    for threshold in (0.0, 0.9, 2.0):
        some = torch.where(scores >= threshold, scores, -1.0)
        (kept,) = session.run(None, dict(boxes=boxes.numpy(), scores=some.numpy()))
        assert kept.tolist() == suppress(boxes, some, 0.5, 12).tolist()
