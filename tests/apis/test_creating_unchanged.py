"""Configs for images of other depth and channels than 8 bits of red, green and blue."""

import numpy as np
import pytest
from mistakes.unusual import SHAPE, create, draw, store, write
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from PIL import Image

from mmmeta.apis import check, load_config
from mmmeta.utils.errors import UsageError


@pytest.mark.parametrize(
    ('task', 'channels', 'dtype', 'options'),
    [
        ('seg', 4, 'uint16', {}),
        ('seg', 1, 'uint16', dict(in_range=(100, 3900))),
        ('det', 5, 'uint8', {}),
        ('det', 1, 'uint16', {}),
        ('cls', 6, 'float32', {}),
        ('cls', 3, 'uint16', {}),
    ],
)
def test_what_the_network_gets(tmp_path, task, channels, dtype, options):
    """What is stored, normalised by the mean and the standard deviation of the images for training."""
    store(tmp_path, task, channels, dtype)
    created = create(tmp_path, task, **options)
    said = next(fact for fact in created.facts if 'LoadUnchangedImage' in fact)
    assert (
        said.startswith(f'the images have {channels} channel')
        and f'of {dtype}, of which {channels} are' in said
    )
    cfg = load_config(str(tmp_path / 'my.py'))
    assert check(cfg) == []
    assert cfg.model.backbone.get('in_channels', 3) == channels
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    dataset.full_init()
    load = dataset.pipeline.transforms[0]
    stored = []
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        expected, _ = draw(int(info['img_path'][-5]), channels, dtype)
        if options:
            expected = np.rint(np.clip((expected - 100.0) / 3800, 0, 1) * 255)
        found = load(info)['img']
        assert found.dtype == ('uint8' if options or dtype == 'uint8' else 'float32')
        np.testing.assert_array_equal(found, expected)
        stored.append(expected)
    values = np.concatenate([image.reshape(-1, channels) for image in stored])
    described = cfg.model.get('data_preprocessor') or cfg.data_preprocessor
    mean, std = (
        described[key] or next(step[key] for step in cfg.train_pipeline if step.type == 'Normalize')
        for key in ('mean', 'std')
    )
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-4)
    np.testing.assert_allclose(std, values.std(0), rtol=1e-4)
    described.setdefault('type', 'ClsDataPreprocessor')
    batch = MODELS.build(described)(pseudo_collate([dataset[0], dataset[1]]), training=True)
    assert batch['inputs'].shape[1] == channels
    assert batch['inputs'].mean().abs() < 0.5 and 0.3 < batch['inputs'].std() < 2


def test_images_of_8_bits_are_read_as_colours(tmp_path):
    """Grey ones and those with transparency too, unless one says otherwise; what is left out is said."""
    store(tmp_path, 'seg', 1, 'uint8')
    created = create(tmp_path, 'seg')
    assert any('grey images are read as three equal channels' in one for one in created.assumed)
    assert 'LoadUnchangedImage' not in (tmp_path / 'my.py').read_text()
    create(tmp_path, 'seg', channels=1, force=True)
    assert load_config(str(tmp_path / 'my.py')).model.backbone.in_channels == 1
    for i in range(6):
        Image.fromarray(draw(i, 4, 'uint8')[0], 'RGBA').save(tmp_path / f'images/{i}.tif')
    created = create(tmp_path, 'seg', force=True)
    assert 'transparency of 6 images is left out (--channels reads it)' in created.assumed
    create(tmp_path, 'seg', channels=4, force=True)
    assert load_config(str(tmp_path / 'my.py')).model.backbone.in_channels == 4


def test_what_is_refused(tmp_path):
    store(tmp_path, 'seg', 4, 'uint16')
    for options, said in (
        (dict(channels=3), '--channels 3: the images have 4 channels of uint16: give 4'),
        (dict(in_range=(9, 9)), '--in-range 9 9: give the lower value first'),
        (dict(in_range=(5000, 6000)), 'is 0 everywhere: give another --in-range'),
        (dict(config='mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'), 'leave --config out'),
    ):
        with pytest.raises(UsageError) as error:
            create(tmp_path, 'seg', **options)
        assert said in str(error.value)
    image = tmp_path / 'images/3.tif'
    write(image, draw(3, 4, 'float32')[0])
    with pytest.raises(UsageError, match='has 4 channels of uint16, and .*3.tif. has 4 channels of float32'):
        create(tmp_path, 'seg')
    for i in range(6):
        pixels = np.full((*SHAPE, 4), np.nan, np.float32)
        write(tmp_path / f'images/{i}.tif', pixels)
    with pytest.raises(UsageError, match='has values that are not finite numbers: store a number'):
        create(tmp_path, 'seg')
    assert not (tmp_path / 'my.py').exists()
