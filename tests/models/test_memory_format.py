"""Features leave the backbone channels first in memory, as operators that read memory directly expect."""

import pytest
import torch
from conftest import ROOT
from timm_peer import FAMILIES

from mmmeta import models
from mmmeta.config.loading import load_config

ARCH = dict(depths=(1, 1, 1, 1), dims=(32, 32, 64, 64))


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('output_norm', ['LN', 'GN1', False])
def test_features_are_contiguous(family, output_norm):
    name = 's18' if family in ('convformer', 'caformer') else 's12'
    arguments = dict(arch=dict(base=name, **ARCH), output_norm=output_norm, drop_path_rate=0.1)
    model = getattr(models, FAMILIES[family])(**arguments)
    image = torch.randn(2, 3, 64, 96)
    for given in (image, image.contiguous(memory_format=torch.channels_last)):
        for out in model.train()(given):
            assert out.is_contiguous()
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
            for out in model.eval()(given):
                assert out.is_contiguous()


def test_compiled():
    """A single image, whose strides compilers see in another way."""
    model = models.CAFormer(dict(base='s18', **ARCH)).eval()
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager_decomp_partition')
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for out, expected in zip(compiled(image), model(image), strict=True):
            assert torch.allclose(out, expected, atol=1e-5)
            assert out.stride() == expected.stride()


@pytest.mark.parametrize('training', [False, True])
def test_regions_are_cut_out_where_they_are(training):
    """MMCV's RoIAlign, which does not look at strides, against torchvision's, which does."""
    pytest.importorskip('mmdet', reason='the detector is one of MMDetection')
    from mmengine.registry import MODELS, init_default_scope
    from torchvision.ops import roi_align

    torch.manual_seed(0)
    init_default_scope('mmdet')
    detector = MODELS.build(load_config(str(ROOT / 'tests/data/tiny_mask_rcnn.py')).model).train(training)
    features = detector.extract_feat(torch.randn(2, 3, 128, 160))
    rois = torch.tensor(
        [[0, 10.0, 20, 70, 90], [1, 5, 5, 155, 120], [1, 60, 30, 76, 50], [0, 0, 0, 159, 127]]
    )
    extractor = detector.roi_head.bbox_roi_extractor
    found = extractor(features[:4], rois)
    levels = extractor.map_roi_levels(rois, 4)
    for roi, level, out in zip(rois, levels, found, strict=True):
        scale = 1 / extractor.featmap_strides[level]
        expected = roi_align(features[level], roi[None], (7, 7), scale, sampling_ratio=0, aligned=True)
        assert torch.allclose(out, expected[0], atol=1e-5)
