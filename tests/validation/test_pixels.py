"""Channels, sizes and values of images against the network."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmmeta.validation.pixels import check_pixels, check_sizes


def config(channels=3, scope='mmseg', **preprocessor):
    init_cfg = dict(type='Pretrained', checkpoint='mmmeta://poolformer_s12')
    backbone = dict(type='mmmeta.PoolFormer', arch='s12', in_channels=channels, init_cfg=init_cfg)
    return Config(
        dict(
            default_scope=scope,
            model=dict(type='EncoderDecoder', data_preprocessor=preprocessor, backbone=backbone),
            val_dataloader=dict(batch_size=2),
        )
    )


@pytest.mark.parametrize('channels', [1, 2, 4, 6])
def test_images_of_other_channels_have_a_mean_of_their_own(channels):
    """The weights know that of red, green and blue."""
    right = config(channels, mean=[1000.0] * channels, std=[600.0] * channels)
    assert not list(check_pixels(right))
    wrong = config(channels, mean=[123.675, 116.28, 103.53], std=[600.0] * channels)
    (finding,) = check_pixels(wrong)
    assert finding.key == 'model.data_preprocessor.mean'
    assert finding.text.endswith(f'in_channels={channels}: give {channels} numbers, those of your images')


def test_mmdetection_normalises_four_channels_in_the_pipeline():
    """Its data preprocessors take one or three numbers."""
    (finding, _) = check_pixels(config(4, 'mmdet', mean=[1.0] * 4, std=[1.0] * 4))
    assert (
        finding.is_fatal
        and "write model.data_preprocessor.mean=None and dict(type='Normalize'" in finding.text
    )
    assert not list(check_pixels(config(1, 'mmdet', mean=[1.0], std=[1.0])))


def images(*shapes):
    return [dict(inputs=torch.zeros(shape)) for shape in shapes]


@pytest.mark.parametrize(
    ('shapes', 'arguments', 'key', 'text'),
    [
        ([(3, 64, 64)] * 2, {}, None, None),
        ([(3, 64, 64), (3, 16, 64)], dict(scope='mmdet'), 'dataset.pipeline', 'makes images of 16x64 pixels'),
        ([(3, 64, 64)], dict(channels=4), 'dataset.pipeline', 'makes images of 3 channels, and'),
        ([(1, 64, 64)], {}, 'dataset.pipeline', 'write model.backbone.in_channels=1, or read images of 3'),
    ],
)
def test_what_a_pipeline_makes(shapes, arguments, key, text):
    findings = list(check_sizes(config(**arguments), 'val_dataloader', images(*shapes), []))
    assert [finding.key for finding in findings] == ([f'val_dataloader.{key}'] if key else [])
    assert all(text in finding.text for finding in findings)


def test_other_backbones_are_left_alone():
    cfg = config()
    cfg.model.backbone.type = 'ResNet'
    assert not list(check_sizes(cfg, 'val_dataloader', images((1, 8, 8)), []))
    assert not list(check_sizes(cfg, 'val_dataloader', SimpleNamespace(), []))
