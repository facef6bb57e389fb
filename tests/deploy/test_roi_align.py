"""RoIAlign on maps with channels last."""

import pytest
import torch

pytest.importorskip('mmcv.ops', reason='this MMCV has no operators')

from torchvision.ops import roi_align as torchvision_roi_align

from mmmeta.deploy.roi_align import roi_align

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
    monkeypatch.setattr('mmmeta.deploy.roi_align.CHUNK', 1)
    assert torch.equal(roi_align(x, rois, (7, 7), 1 / 4), whole)


def test_no_regions():
    assert roi_align(torch.randn(1, 6, 8, 8), torch.zeros(0, 5), (7, 7), 1 / 4).shape == (0, 6, 7, 7)
