"""Normalisation in exported networks against that of the packages."""

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmmeta.deploy.networks import Normalized, normalization_of
from mmmeta.deploy.preprocessing import Preprocessing
from mmmeta.runtime.run import Description, normalize

# Of channels in the order in which the network takes them; no two are alike.
MEAN, STD = [10.0, 120.0, 70.0], [20.0, 50.0, 5.0]


class Echo(nn.Module):
    """A network that gives what it takes."""

    names = ('image',)

    def forward(self, image):
        return (image,)


@pytest.mark.parametrize('turns', [False, True])
@pytest.mark.parametrize(
    ('scope', 'name', 'key', 'more'),
    [
        ('mmseg', 'SegDataPreProcessor', 'bgr_to_rgb', dict(size_divisor=1)),
        ('mmdet', 'DetDataPreprocessor', 'bgr_to_rgb', {}),
        ('mmpretrain', 'ClsDataPreprocessor', 'to_rgb', {}),
    ],
)
def test_means_belong_to_the_channels_of_the_network(scope, name, key, more, turns):
    pytest.importorskip(scope, reason='its data preprocessor is repeated')
    with DefaultScope.overwrite_default_scope(scope):
        preprocessor = MODELS.build(dict(type=f'{scope}.{name}', mean=MEAN, std=STD, **{key: turns}, **more))
    rgb = np.random.default_rng(0).integers(0, 256, (3, 6, 8), dtype=np.uint8)
    # Pipelines read blue first.
    inputs = [torch.from_numpy(rgb[::-1].copy())]
    expected = preprocessor(dict(inputs=inputs, data_samples=None))['inputs']
    mean, std, is_bgr = normalization_of(preprocessor, Preprocessing())
    assert (mean, std, is_bgr) == (MEAN, STD, not turns)
    values = dict(mean=mean, std=std, is_bgr=is_bgr, normalized_inside=True)
    (own,) = Normalized(Echo(), Description('features', **values))(torch.from_numpy(rgb).float()[None])
    torch.testing.assert_close(own, expected)
    outside = normalize(rgb.astype(np.float32), Description('features', **values))
    torch.testing.assert_close(torch.from_numpy(outside.copy())[None], expected)
