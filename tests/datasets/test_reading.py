"""Images are read exactly as they are stored, or refused."""

import builtins
import itertools

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from mmmeta.datasets.transforms import LoadUnchangedImage, read_labels
from mmmeta.runtime import run
from mmmeta.runtime.run import RuntimeProblem, read_image, read_pixels, rescale, stored_as, to_picture
from mmmeta.utils.errors import UsageError

HIGHEST = dict(uint8=255, uint16=65535, int16=32767, float32=1e4)


def random_pixels(channels, dtype):
    return (np.random.default_rng(0).random((20, 30, channels)) * HIGHEST[dtype]).astype(dtype)


def write_tiff(path, pixels, photometric='minisblack', planar='contig', extra=None):
    channels = pixels.shape[2]
    if channels == 1:
        return tifffile.imwrite(path, pixels[..., 0], photometric=photometric)
    beside = channels - (3 if photometric == 'rgb' else 1)
    named = dict(extrasamples=[extra or 'unspecified'] * beside) if beside else {}
    data = pixels if planar == 'contig' else np.moveaxis(pixels, -1, 0)
    return tifffile.imwrite(path, data, photometric=photometric, planarconfig=planar, **named)


@pytest.mark.parametrize('dtype', HIGHEST)
@pytest.mark.parametrize('channels', [1, 2, 3, 4, 5, 12])
def test_tiff(tmp_path, channels, dtype):
    """Of any number of channels, as colours or not, beside or behind each other: to the last bit."""
    pixels = random_pixels(channels, dtype)
    for photometric, planar in itertools.product(('minisblack', 'rgb'), ('contig', 'separate')):
        if channels < 3 and photometric == 'rgb':
            continue
        write_tiff(tmp_path / 'a.tif', pixels, photometric, planar)
        found = read_pixels(tmp_path / 'a.tif')
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, pixels)
        assert str(stored_as(tmp_path / 'a.tif')).endswith(f'of {dtype}')


@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_files_of_opencv(tmp_path, channels, dtype, suffix):
    if suffix == '.tif' and (channels, dtype) == (4, 'uint8'):
        pytest.importorskip('imagecodecs', reason='OpenCV compresses this one')
    pixels = random_pixels(channels, dtype)
    cv2.imwrite(
        str(tmp_path / f'a{suffix}'), pixels[..., [2, 1, 0, 3][:channels]] if channels > 1 else pixels
    )
    np.testing.assert_array_equal(read_pixels(tmp_path / f'a{suffix}'), pixels)


def test_transparency_is_left_out_where_fewer_channels_are_read(tmp_path):
    pixels = random_pixels(4, 'uint8')
    Image.fromarray(pixels, 'RGBA').save(tmp_path / 'a.png')
    write_tiff(tmp_path / 'a.tif', pixels, 'rgb', extra='unassalpha')
    for path in (tmp_path / 'a.png', tmp_path / 'a.tif'):
        assert stored_as(path).has_alpha and stored_as(path).is_ordinary
        np.testing.assert_array_equal(read_pixels(path, 3), pixels[..., :3])
        np.testing.assert_array_equal(read_pixels(path, 4), pixels)
        np.testing.assert_array_equal(read_image(path), pixels[..., :3])
        with pytest.raises(RuntimeProblem, match='the last of them transparency, and 5 are read'):
            read_pixels(path, 5)
    write_tiff(tmp_path / 'b.tif', pixels, 'rgb')
    assert not stored_as(tmp_path / 'b.tif').is_ordinary
    with pytest.raises(RuntimeProblem, match='has 4 channels of uint8, and 3 are read'):
        read_pixels(tmp_path / 'b.tif', 3)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
def test_they_are_turned_as_exif_says(tmp_path, orientation, dtype):
    pixels = random_pixels(1, dtype)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels[..., 0]).save(tmp_path / 'a.png', exif=exif)
    with Image.open(tmp_path / 'a.png') as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_pixels(tmp_path / 'a.png')[..., 0], expected)
    turned = dict(extratags=[(274, 'H', 1, orientation, True)], planarconfig='contig')
    tifffile.imwrite(tmp_path / 'a.tif', pixels.repeat(5, 2), photometric='minisblack', **turned)
    np.testing.assert_array_equal(read_pixels(tmp_path / 'a.tif')[..., 4], expected)


def test_what_is_never_read_as_8_bits(tmp_path):
    for channels, dtype in ((1, 'uint16'), (3, 'uint16'), (1, 'float32'), (4, 'uint8')):
        write_tiff(
            tmp_path / 'a.tif', random_pixels(channels, dtype), 'rgb' if channels > 1 else 'minisblack'
        )
        with pytest.raises(RuntimeProblem, match=f'has {channels} channels? of {dtype}, and 8 bits of red'):
            read_image(tmp_path / 'a.tif')


def test_what_is_refused(tmp_path):
    path = tmp_path / 'a.tif'
    pages = np.zeros((3, 20, 30), np.uint8)
    tifffile.imwrite(path, pages, photometric='minisblack')
    with pytest.raises(RuntimeProblem, match='has 3 pages, and one is read: save them as channels of one'):
        stored_as(path)
    tifffile.imwrite(path, random_pixels(3, 'float32').astype(np.float64))
    with pytest.raises(
        RuntimeProblem, match='has 3 channels of float64: save it as one of uint8, uint16, int16'
    ):
        read_pixels(path)
    path.write_bytes(b'II*\0 and no more')
    with pytest.raises(RuntimeProblem, match='is damaged or not an image'):
        stored_as(path)
    whole = tmp_path / 'b.tif'
    write_tiff(whole, random_pixels(5, 'uint16'))
    path.write_bytes(whole.read_bytes()[:-2000])
    with pytest.raises(RuntimeProblem, match='is damaged or not an image'):
        read_pixels(path)


def test_a_smaller_copy_inside_a_file_is_not_a_page(tmp_path):
    pixels = random_pixels(5, 'uint16')
    with tifffile.TiffWriter(tmp_path / 'a.tif') as file:
        file.write(pixels, photometric='minisblack', planarconfig='contig')
        file.write(pixels[::2, ::2], photometric='minisblack', planarconfig='contig', subfiletype=1)
    np.testing.assert_array_equal(read_pixels(tmp_path / 'a.tif'), pixels)


def test_without_the_packages_that_read_them(tmp_path, monkeypatch):
    """NumPy and Pillow alone name what is missing, and read nothing wrong."""
    monkeypatch.setattr(run, 'find_spec', lambda name: None)
    cv2.imwrite(str(tmp_path / 'a.png'), random_pixels(3, 'uint16'))
    with pytest.raises(RuntimeProblem, match='Pillow does not read: pip install opencv-python-headless'):
        read_pixels(tmp_path / 'a.png')
    write_tiff(tmp_path / 'a.tif', random_pixels(5, 'uint8'))
    with pytest.raises(RuntimeProblem, match='Pillow does not read: pip install tifffile imagecodecs'):
        read_pixels(tmp_path / 'a.tif')
    monkeypatch.setattr(run, '_import', builtins.__import__)
    Image.fromarray(random_pixels(1, 'uint16')[..., 0]).save(tmp_path / 'b.png')
    np.testing.assert_array_equal(read_pixels(tmp_path / 'b.png'), random_pixels(1, 'uint16'))


def test_a_range_becomes_8_bits():
    pixels = np.array([[[90], [100], [150], [200], [201]]], np.uint16)
    assert rescale(pixels, (100, 200)).ravel().tolist() == [0, 0, 128, 255, 255]
    assert rescale(pixels, None).dtype == np.float32
    assert rescale(pixels.astype(np.uint8), None) is not None


def test_pictures_of_them():
    """Grey or the first three channels; what is not of 8 bits is stretched, and one value alone is black."""
    assert to_picture(random_pixels(2, 'uint8')).shape == (20, 30, 3)
    np.testing.assert_array_equal(to_picture(random_pixels(5, 'uint8')), random_pixels(5, 'uint8')[..., :3])
    shown = to_picture(random_pixels(6, 'float32'))
    assert shown.dtype == np.uint8 and shown.min() == 0 and shown.max() == 255
    assert not to_picture(np.full((4, 4, 1), 7, np.uint16)).any()


@pytest.mark.parametrize(
    ('dtype', 'in_range', 'expected'),
    [('uint8', None, 'uint8'), ('uint16', None, 'float32'), ('uint16', (0, 65535), 'uint8')],
)
def test_the_transform_gives_what_is_stored(tmp_path, dtype, in_range, expected):
    pixels = random_pixels(5, dtype)
    write_tiff(tmp_path / 'a.tif', pixels)
    load = LoadUnchangedImage(5, in_range)
    found = load(dict(img_path=str(tmp_path / 'a.tif')))
    assert found['img'].dtype == expected and found['img_shape'] == found['ori_shape'] == (20, 30)
    np.testing.assert_array_equal(found['img'], np.rint(pixels / 257) if in_range else pixels)
    assert repr(load) == f'LoadUnchangedImage(channels=5, in_range={in_range})'


def test_the_transform_refuses(tmp_path):
    with pytest.raises(UsageError, match='channels=0: give a positive number'):
        LoadUnchangedImage(0)
    with pytest.raises(UsageError, match='give the lower value first'):
        LoadUnchangedImage(1, (5, 5))
    write_tiff(tmp_path / 'a.tif', random_pixels(2, 'uint8'))
    with pytest.raises(UsageError, match="a.tif' has 2 channels of uint8, and 3 are read"):
        LoadUnchangedImage(3)(dict(img_path=str(tmp_path / 'a.tif')))


def test_labels_of_32_bits(tmp_path):
    labels = np.array([[-9999, 0], [3, 70000]], np.float32)
    Image.fromarray(labels).save(tmp_path / 'a.tif')
    np.testing.assert_array_equal(read_labels((tmp_path / 'a.tif').read_bytes()), labels.astype(np.int64))
    Image.fromarray(labels + 0.5).save(tmp_path / 'a.tif')
    with pytest.raises(ValueError, match='not whole numbers, such as'):
        read_labels((tmp_path / 'a.tif').read_bytes())
    cv2.imwrite(str(tmp_path / 'a.png'), random_pixels(3, 'uint16'))
    with pytest.raises(ValueError, match='16 bits in colours'):
        read_labels((tmp_path / 'a.png').read_bytes())
