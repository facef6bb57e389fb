"""What exported files say of their networks: written, read again, read from older files, and documented."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from conftest import ROOT

from mmmeta.runtime import Crop, Description, Fit, RuntimeProblem, Stretch

# As the first files have it.
OLDER = """{"task": "segmentation", "version": 1, "method": "EncoderDecoder", "shape": [64, 96],
"dynamic": "all", "takes_batches": true, "precision": "f32", "computed_in": "f32", "normalized_inside": true,
"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "is_bgr": false,
"padding": [123.675, 116.28, 103.53], "clipped_to": "content", "divisor": 32,
"resize": {"kind": "fit", "scale": [Infinity, 64]}, "classes": ["wall", "sky"],
"palette": [[120, 120, 120], [6, 230, 230]], "mask_threshold": 0.5, "checkpoint": {"name": "none"},
"packages": {"mmmeta": "0.1.0", "torch": "2.12.1"}, "inputs": ["image", "size", "original"],
"outputs": ["labels"]}"""
INFINITE = float('inf')


def read(text):
    return Description.read(text, Path('a.onnx'))


def test_an_older_file():
    description = read(OLDER)
    assert description.resize == Fit([INFINITE, 64], multiple=1)
    assert description['classes'] == ['wall', 'sky'] and description.checkpoint == {'name': 'none'}
    content = {**json.loads(OLDER), 'later': 1}
    content['resize']['later'] = 1
    assert read(json.dumps(content)) == description


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (dict(mean=[1.0] * 4), 'mean has 4 numbers for 3 channels'),
        (dict(reads='grayscale'), 'mean has 3 numbers for 1 channels'),
        (dict(reads='unchanged', padding=[0.0]), 'padding has 1 numbers for 3 channels'),
        (dict(reads='unchanged', is_bgr=True, mean=[1.0], std=[1.0], padding=[1.0]), 'is_bgr is true with 1'),
        (dict(in_range=[3, 2]), 'in_range is [3, 2], not nothing, or a lower and a higher number'),
        (dict(reads='infrared'), "reads is 'infrared', not one of color, grayscale, unchanged"),
        (dict(std=[1.0, 0.0, 1.0]), 'std is [1.0, 0.0, 1.0], not a list of positive numbers'),
    ],
)
def test_channels_that_do_not_agree(changes, said):
    with pytest.raises(RuntimeProblem, match=re.escape(said)):
        read(json.dumps({**json.loads(OLDER), **changes}))


@pytest.mark.parametrize(
    'resize', [Fit([INFINITE, 64], 32), Fit([96, 64]), Stretch([96, 64]), Crop(72, 64, 'bicubic')]
)
def test_what_is_written_is_read(resize):
    description = replace(read(OLDER), resize=resize)
    assert read(description.write()) == description
    # Programs of before look for these.
    content = json.loads(description.write())
    assert content['resize']['kind'] == {Fit: 'fit', Stretch: 'stretch', Crop: 'crop'}[type(resize)]
    assert content.keys() - {'reads', 'in_range'} == json.loads(OLDER).keys()


def test_the_page_lists_all_fields():
    page = (ROOT / 'docs/file_format.md').read_text().split('## Fields')[1].split('## Inputs')[0]
    ours, of_resize = page.split('Fields of `resize`')
    assert re.findall(r'^\| `(\w+)`', ours, re.M) == list(json.loads(read(OLDER).write()))
    assert re.findall(r'^\| `(\w+)` \| `(\w+)`', of_resize, re.M) == [
        (kind.kind, one.name) for kind in (Fit, Stretch, Crop) for one in fields(kind) if one.name != 'kind'
    ]
