"""RoIAlign on maps with channels last, and the detectors that use it."""

import pytest
import torch
from conftest import ROOT
from torchvision.ops import roi_align as torchvision_roi_align

from mmmeta.models.layers.roi_align import roi_align

# Inside, across each border, outside, a point, a line, larger than the map, and of the second image.
ROIS = torch.tensor(
    [
        [0, 10.0, 20.0, 70.0, 90.0],
        [1, 3.3, 5.7, 155.2, 119.9],
        [0, -30.0, -20.0, 15.0, 10.0],
        [1, 140.0, 100.0, 190.0, 170.0],
        [0, 400.0, 400.0, 500.0, 420.0],
        [0, 50.0, 50.0, 50.0, 50.0],
        [1, 20.0, 30.0, 120.0, 30.0],
        [0, -50.0, -50.0, 300.0, 300.0],
        [0, 64.0, 64.0, 65.0, 66.0],
    ]
)


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('output_size', [(7, 7), (14, 14), (3, 5), (1, 1)])
@pytest.mark.parametrize('stride', [1, 4, 32])
def test_the_same_as_torchvisions(stride, output_size, channels_last):
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(2, 6, 128 // stride, 160 // stride).contiguous(memory_format=memory_format)
    # In double precision: what differs is the rounding of coordinates.
    expected = torchvision_roi_align(x.double(), ROIS.double(), output_size, 1 / stride, 0, aligned=True)
    out = roi_align(x.double(), ROIS.double(), output_size, 1 / stride)
    assert out.dtype == torch.float64
    assert torch.allclose(out, expected, atol=1e-9)
    assert torch.allclose(roi_align(x, ROIS, output_size, 1 / stride).double(), expected, atol=1e-4)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_regions_that_are_nowhere(value):
    rois = ROIS.clone()
    rois[3, 2] = value
    with pytest.raises(ValueError, match='regions have coordinates that are not finite: weights or features'):
        roi_align(torch.randn(2, 8, 30, 40), rois, (7, 7), 0.25)


def test_pieces_change_nothing(monkeypatch):
    x = torch.randn(2, 6, 32, 40)
    rois = ROIS.repeat(5, 1)
    whole = roi_align(x, rois, (7, 7), 1 / 4)
    monkeypatch.setattr('mmmeta.models.layers.roi_align.CHUNK', 1)
    assert torch.equal(roi_align(x, rois, (7, 7), 1 / 4), whole)


def test_no_regions():
    assert roi_align(torch.randn(1, 6, 8, 8), torch.zeros(0, 5), (7, 7), 1 / 4).shape == (0, 6, 7, 7)


class TestExtractor:
    @staticmethod
    def build(kind='mmmeta.SingleRoIExtractor', **layer):
        pytest.importorskip('mmdet', reason='the extractor is on top of its own')
        from mmengine.registry import MODELS

        return MODELS.build(
            dict(
                type=kind,
                roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0) | layer,
                out_channels=6,
                featmap_strides=[4, 8],
            )
        )

    maps = (torch.randn(2, 6, 32, 40), torch.randn(2, 6, 16, 20))

    @pytest.mark.parametrize(
        'layer', [{}, dict(sampling_ratio=2), dict(pool_mode='max'), dict(aligned=False)]
    )
    def test_the_same_as_mmdetections(self, layer):
        extractors = [
            self.build(kind, **layer) for kind in ('mmmeta.SingleRoIExtractor', 'mmdet.SingleRoIExtractor')
        ]
        with torch.no_grad():
            out, expected = (extractor(self.maps, ROIS) for extractor in extractors)
        assert torch.allclose(out, expected, atol=1e-4)
        assert torch.equal(out, expected) is bool(layer)  # rounding is its own where it is

    def test_in_training_it_is_mmdetections_and_looks_at_strides(self):
        grads = []
        for kind, memory_format in (
            ('mmdet.SingleRoIExtractor', torch.contiguous_format),
            ('mmmeta.SingleRoIExtractor', torch.contiguous_format),
            ('mmmeta.SingleRoIExtractor', torch.channels_last),
        ):
            maps = [x.clone(memory_format=memory_format).requires_grad_() for x in self.maps]
            out = self.build(kind)(maps, ROIS)
            out.square().sum().backward()
            grads.append([out, *(x.grad for x in maps)])
        for tensors in grads[1:]:
            for tensor, expected in zip(tensors, grads[0], strict=True):
                assert torch.equal(tensor, expected)


def test_a_detector_of_ours_finds_what_mmdetections_does():
    """A whole detector with and without all that is ours in neck and heads."""
    pytest.importorskip('mmdet', reason='the detector is one of MMDetection')
    from mmdet.structures import DetDataSample
    from mmengine.registry import MODELS, init_default_scope

    from mmmeta.apis.config import load_config

    init_default_scope('mmdet')
    cfg = load_config(str(ROOT / 'configs/mask_rcnn_poolformer_s12_coco.py')).model
    cfg.backbone.init_cfg = None
    cfg.backbone.arch = dict(base='s12', depths=(1, 1, 1, 1))
    torch.manual_seed(0)
    ours = MODELS.build(cfg).eval()
    assert cfg.neck.pop('conv_cfg').type == 'mmmeta.Conv2d'
    cfg.rpn_head.type = 'RPNHead'
    for name in ('bbox_roi_extractor', 'mask_roi_extractor'):
        assert cfg.roi_head[name].type == 'mmmeta.SingleRoIExtractor'
        cfg.roi_head[name].type = 'SingleRoIExtractor'
    stock = MODELS.build(cfg).eval()
    stock.load_state_dict(ours.state_dict())
    size = (256, 320)
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1, 1))
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        features = [model.extract_feat(image) for model in (ours, stock)]
        assert not torch.equal(features[0][0], features[1][0])
        for out, expected in zip(*features, strict=True):
            assert torch.allclose(out, expected, rtol=1e-5, atol=1e-5 * expected.abs().max())
        scores = [model.rpn_head(maps)[0] for model, maps in zip((ours, stock), features, strict=True)]
        for out, expected in zip(*scores, strict=True):
            assert torch.allclose(out, expected, rtol=1e-5, atol=1e-5 * expected.abs().max())
        boxes = torch.tensor(
            [[10.0, 20.0, 70.0, 90.0], [0.0, 0.0, 320.0, 256.0], [100.0, 50.0, 300.0, 120.0]]
        )
        outs = []
        for model, maps in zip((ours, stock), features, strict=True):
            rois = torch.cat([torch.zeros(3, 1), boxes], 1)
            found = model.roi_head._bbox_forward(maps, rois), model.roi_head._mask_forward(maps, rois)
            outs.append([found[0]['cls_score'], found[0]['bbox_pred'], found[1]['mask_preds']])
        for out, expected in zip(*outs, strict=True):
            assert torch.allclose(out, expected, rtol=1e-4, atol=1e-4 * expected.abs().max())
        assert len(ours(image, [DetDataSample(metainfo=meta)], mode='predict')) == 1
