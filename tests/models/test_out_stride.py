"""``out_stride``: fine maps in the last stages, with the same weights."""

import pytest
import torch
import torch.nn.functional as F
from timm_peer import randomise

from mmmeta.models import FAMILIES, CAFormer, ConvFormer, MetaFormer, PoolFormer
from mmmeta.models.layers import Pooling
from mmmeta.utils.errors import UsageError

TINY = dict(depths=(1, 1, 2, 2), dims=(32, 32, 64, 64))


def features(backbone, size=(96, 64)):
    torch.manual_seed(1)
    with torch.no_grad():
        return backbone(torch.randn(2, 3, *size, dtype=torch.float64))


def pair(family, out_stride, **arguments):
    """A backbone, and the same with another stride, with equal weights and no entry that is zero."""
    plain = family(**arguments).double().eval()
    randomise(plain)
    dilated = family(**arguments, out_stride=out_stride).double().eval()
    dilated.load_state_dict(plain.state_dict())
    return plain, dilated


@pytest.mark.parametrize('family', FAMILIES.values())
@pytest.mark.parametrize(('out_stride', 'strides'), [(8, (4, 8, 8, 8)), (16, (4, 8, 16, 16))])
def test_the_last_stages_keep_their_stride_and_every_tensor_loads(family, out_stride, strides):
    plain, dilated = pair(family, out_stride, arch=dict(base=next(iter(family.arch_table)), depths=(1,) * 4))
    assert dilated.strides == strides
    shapes = [tuple(out.shape) for out in features(dilated)]
    assert shapes == [
        (2, dim, 96 // stride, 64 // stride) for dim, stride in zip(plain.dims, strides, strict=True)
    ]


@pytest.mark.parametrize('out_stride', [8, 16])
@pytest.mark.parametrize('size', [(96, 64), (77, 101)])
@pytest.mark.parametrize(
    ('family', 'arch'),
    [(ConvFormer, dict(TINY, base='s18')), (PoolFormer, dict(TINY, base='s12', norm='LN'))],
)
def test_at_the_places_of_the_strided_network_features_are_equal(family, arch, out_stride, size):
    # Where norms see one place at a time, a dilated network computes the strided one at every offset.
    plain, dilated = pair(family, out_stride, arch=arch, output_norm='LN')
    for i, (coarse, fine) in enumerate(zip(features(plain, size), features(dilated, size), strict=True)):
        step = 4 * 2**i // dilated.strides[i]
        torch.testing.assert_close(fine[..., ::step, ::step], coarse, rtol=1e-10, atol=1e-10)


def test_the_whole_stride_is_the_default():
    plain, same = pair(CAFormer, 32, arch=dict(TINY, base='s18'))
    assert all(a.equal(b) for a, b in zip(features(plain), features(same), strict=True))
    assert str(plain) == str(same)


@pytest.mark.parametrize('size', [3, 5])
@pytest.mark.parametrize('dilation', [1, 2, 4])
def test_dilated_pooling_is_the_mean_of_what_is_on_the_map(size, dilation):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 14, dtype=torch.float64, requires_grad=True)
    pool = Pooling(3, size, dilation)
    kernel = torch.ones(3, 1, size, size, dtype=torch.float64)
    reach = dilation * (size // 2)
    total, count = (
        F.conv2d(part, kernel, padding=reach, dilation=dilation, groups=3) for part in (x, torch.ones_like(x))
    )
    torch.testing.assert_close(pool(x), total / count - x)
    assert torch.autograd.gradcheck(pool, x)


@pytest.mark.parametrize('out_stride', [8, 16])
def test_a_small_image_needs_no_more_than_the_stride(out_stride):
    backbone = CAFormer(dict(TINY, base='s18'), out_stride=out_stride)
    assert backbone(torch.zeros(1, 3, out_stride, 16))[-1].shape[2:] == (1, 16 // out_stride)
    with pytest.raises(UsageError, match=f'smaller than the stride {out_stride} of CAFormer'):
        backbone(torch.zeros(1, 3, out_stride - 1, 16))


@pytest.mark.parametrize('out_stride', [2, 64, '8', True])
def test_another_stride_is_refused(out_stride):
    with pytest.raises(UsageError, match=f'out_stride={out_stride}: choose the stride of a stage, 4, 8, 16'):
        MetaFormer(dict(TINY, token_mixers='pooling'), out_stride=out_stride)
