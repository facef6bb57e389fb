"""Images that are damaged, huge or unusual: read as MMCV reads them, or named in one sentence."""

import io
import json
import random
import struct
import zlib

import mmcv
import numpy as np
import pytest
from hostile.test_exported_files import IMAGE, describe, write
from PIL import Image

from mmmeta.apis.classify import find_images
from mmmeta.deploy import load
from mmmeta.runtime.run import RuntimeProblem, read_image
from mmmeta.utils.errors import UsageError

WIDE = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50) * 32
CMYK = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 4), dtype=np.uint8), 'CMYK')
RGB = Image.fromarray(IMAGE)
TURNED = Image.Exif()
TURNED[0x0112] = 6
# Images by the names of their files, how they are written, and gray levels by which decoders differ.
READ = {
    'gray.png': (RGB.convert('L'), {}, 0),
    'gray_alpha.png': (RGB.convert('LA'), {}, 0),
    'alpha.png': (CMYK.convert('RGB').convert('RGBA'), {}, 0),
    'palette.png': (RGB.quantize(), dict(transparency=bytes(range(256))), 0),
    'bits.png': (RGB.convert('1'), {}, 0),
    'cmyk.tif': (CMYK, {}, 1),
    'cmyk.jpg': (CMYK, {}, 2),
    'turned.png': (RGB, dict(exif=TURNED), 0),
    'turned.jpg': (RGB, dict(exif=TURNED), 2),
    'animated.webp': (RGB, dict(save_all=True, append_images=[RGB.rotate(180)], lossless=True), 0),
    'animated.png': (RGB, dict(save_all=True, append_images=[RGB.rotate(180)]), 0),
    'plain.bmp': (RGB, {}, 0),
}


@pytest.mark.parametrize('name', READ)
@pytest.mark.filterwarnings('error')
def test_they_are_read_as_mmcv_reads_them(tmp_path, name):
    image, options, limit = READ[name]
    image.save(tmp_path / name, **options)
    own, expected = read_image(tmp_path / name), mmcv.imread(tmp_path / name, channel_order='rgb')
    assert own.shape == expected.shape and own.dtype == np.uint8
    assert np.abs(own.astype(int) - expected).max() <= limit
    assert find_images(str(tmp_path / name)) == [str(tmp_path / name)]


def png(width, height):
    """A file that says how large it is, and has no pixels."""
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    chunks = [
        struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))
        for name, content in ((b'IHDR', header), (b'IDAT', b''))
    ]
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunks)


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


REFUSED = {
    'huge.png': (png(13500, 13500), 'has more than 178956970 pixels: cut it into parts'),
    'long.png': (png(2**31 - 1, 1), 'has more than 178956970 pixels: cut it into parts'),
    'empty.png': (b'', 'is damaged or not an image: give another one'),
    'text.png': (b'no image', 'is damaged or not an image'),
    'no_pixels.png': (png(0, 10), 'is damaged or not an image'),
    'no_data.png': (png(10, 10), 'is damaged or not an image'),
    'truncated.png': (encoded(RGB, 'PNG')[:3000], 'is damaged or not an image'),
    'truncated.jpg': (encoded(RGB, 'JPEG')[:900], 'is damaged or not an image'),
    'int32.tif': (encoded(Image.fromarray(WIDE.astype(np.int32)), 'TIFF'), 'has 1 channel of int32'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_they_are_refused_by_name(tmp_path, name):
    content, message = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RuntimeProblem, match=f"^'{tmp_path / name}' {message}"):
        read_image(tmp_path / name)
    with pytest.raises(UsageError, match=f"^'{tmp_path / name}' {message}"):
        find_images(str(tmp_path / name))


def test_a_folder_in_place_of_an_image(tmp_path):
    (tmp_path / 'a.png').mkdir()
    with pytest.raises(RuntimeProblem, match='is damaged or not an image'):
        read_image(tmp_path / 'a.png')


def test_what_lies_beside_images_is_passed_over(tmp_path):
    RGB.save(tmp_path / 'a.png')
    (tmp_path / 'notes.txt').write_text('no image')
    assert find_images(str(tmp_path)) == [str(tmp_path / 'a.png')]
    (tmp_path / 'huge.png').write_bytes(png(13500, 13500))
    with pytest.raises(UsageError, match='huge.png. has more than 178956970 pixels'):
        find_images(str(tmp_path))


def test_elongated_images(tmp_path):
    """Networks in PyTorch take none; a file takes those that fit into memory once they are resized."""
    image = np.zeros((1, 60000, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / 'a.png')
    with pytest.raises(UsageError, match='has 1x60000 pixels: cut it into parts, of which no side is more'):
        find_images(str(tmp_path / 'a.png'))
    crop = dict(kind='crop', short=64, size=64, interpolation='bicubic')
    infinite = dict(kind='fit', scale=[float('inf'), 64])
    for task, changes, content in (
        ('features', dict(resize=crop), None),
        ('segmentation', dict(resize=infinite, dynamic='all'), None),
        ('features', {}, [1, 64]),
        ('features', dict(dynamic='all'), [1, 60000]),  # of any size: as it is
    ):
        description = {**describe(task), **changes}
        network = load(write(tmp_path / 'a.onnx', task, json.dumps(description)), 'onnxruntime')
        for turned, resized in ((image, '64x3840000'), (image.swapaxes(0, 1), '3840000x64')):
            if content is not None:
                assert sorted(network.prepare(turned).content) == content
                continue
            with pytest.raises(RuntimeProblem, match=f'would be resized to {resized}, more than 178956970'):
                network.prepare(turned)


def damaged(seed, count):
    """Files of all formats with changed bytes, mostly in their headers, and some cut off."""
    rng = random.Random(seed)
    files = [
        *(encoded(RGB, format, exif=TURNED) for format in ('PNG', 'JPEG', 'TIFF', 'WEBP')),
        *(encoded(RGB, format) for format in ('BMP', 'PPM', 'JPEG2000', 'TGA')),
        encoded(RGB.quantize(), 'GIF'),
        encoded(RGB.quantize(), 'PNG', transparency=bytes(range(200))),
        encoded(Image.fromarray(WIDE), 'PNG'),
        encoded(RGB, 'TIFF', compression='tiff_lzw'),
        encoded(RGB, 'JPEG', progressive=True),
        encoded(RGB, 'PNG', save_all=True, append_images=[RGB.rotate(180)]),
        encoded(CMYK, 'JPEG'),
    ]
    for _ in range(count):
        content = bytearray(rng.choice(files))
        for _ in range(rng.randint(1, 8)):
            i = rng.randrange(len(content) if rng.random() < 0.4 else 160)
            content[i] = rng.choice([0, 255, rng.randrange(256), content[i] ^ 1])
        yield content[: rng.choice([len(content), len(content), rng.randrange(len(content))])]


def read_or_name(path):
    try:
        image = read_image(path)
    except RuntimeProblem as error:
        sentence = str(error)
    else:
        return image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    return sentence.startswith(f"'{path}' ") and '\n' not in sentence


def test_damaged_files_are_read_or_named(tmp_path):
    """A sample of the sweep below."""
    for content in damaged(0, 150):
        (tmp_path / 'a.png').write_bytes(content)
        assert read_or_name(tmp_path / 'a.png')


@pytest.mark.nightly
@pytest.mark.parametrize('seed', range(1, 5))
def test_many_damaged_files_are_read_or_named(tmp_path, seed):
    for content in damaged(seed, 10_000):
        (tmp_path / 'a.png').write_bytes(content)
        assert read_or_name(tmp_path / 'a.png')
