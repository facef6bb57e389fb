"""Files of LabelMe and CVAT: what is drawn there is what is learnt, or one sentence."""

import base64
import json
import math
from io import BytesIO
from pathlib import Path
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from pycocotools import mask as coco_mask

from mmmeta.apis import check, load_config, new
from mmmeta.scaffold.boxes import read_objects
from mmmeta.utils.errors import UsageError

SIZES = {'a.png': (40, 60), 'sub/b.png': (50, 30), 'c.png': (40, 60)}
MASK = np.array([[0, 0, 0, 1], [1, 0, 1, 1], [1, 1, 0, 0]], bool)
TRIANGLE = [[1.0, 2.0], [20.0, 2.0], [10.0, 12.0]]
SQUARE = [[30.5, 2.0], [40.0, 2.0], [40.0, 9.0], [30.5, 9.0]]


@pytest.fixture
def root(tmp_path):
    """Three images, one of them in a folder of its own."""
    for name, (height, width) in SIZES.items():
        path = tmp_path / 'images' / name
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.effect_noise((width, height), 60).convert('RGB').save(path)
    return tmp_path


def png(mask):
    file = BytesIO()
    Image.fromarray(mask).save(file, 'PNG')
    return base64.b64encode(file.getvalue()).decode()


def shape(label, kind, points, **more):
    return dict(label=label, shape_type=kind, points=points, group_id=None, flags={}) | more


SHAPES = [
    shape('zebra', 'rectangle', [[30, 25.5], [10, 5]]),
    shape('ant', 'polygon', TRIANGLE),
    shape('ant', 'mask', [[5, 10], [8, 12]], mask=png(MASK)),
    shape('ant', 'circle', [[20, 20], [23, 24]]),
    shape('ant', None, SQUARE, group_id=3),
    shape('ant', 'polygon', TRIANGLE, group_id=3),
    shape('zebra', 'point', [[1, 1]]),
    shape('zebra', 'linestrip', [[1, 1], [2, 2]]),
]


def write_labelme(root, drawn, image='a.png', folder='labels', **more):
    path = root / folder / Path(image).with_suffix('.json')
    path.parent.mkdir(exist_ok=True, parents=True)
    height, width = SIZES.get(image, SIZES['a.png'])
    content = dict(version='5.5.0', flags={}, shapes=drawn, imagePath=Path(image).name, imageData=None)
    path.write_text(json.dumps(content | dict(imageHeight=height, imageWidth=width) | more))
    return root / folder


def tag(kind, **attributes):
    return f'<{kind} {" ".join(f"{key}={quoteattr(str(value))}" for key, value in attributes.items())}/>'


ELEMENTS = [
    tag('box', label='zebra', xtl='10.0', ytl='5', xbr='30', ybr='25.50', occluded=1, z_order=0),
    tag('polygon', label='ant', points='1.00,2.00;20.00,2.00;10.00,12.00'),
    tag('mask', label='ant', rle='3, 2, 1, 4, 2', left=5, top=10, width=4, height=3),
    tag('ellipse', label='ant', cx=20, cy=20, rx=5, ry=5),
    tag('polygon', label='ant', points='30.5,2;40,2;40,9;30.5,9', group_id=3),
    tag('polygon', label='ant', points='1,2;20,2;10,12', group_id=3),
    tag('tag', label='zebra'),
    tag('polyline', label='zebra', points='1,1;2,2'),
    tag('box', label='zebra', xtl=1, ytl=1, xbr=2, ybr=2, outside=1),
]


def write_cvat(root, elements, name='a.png', others='', before='', labels=('zebra', 'ant', 'never'), **more):
    height, width = SIZES.get(name, SIZES['a.png'])
    size = dict(width=width, height=height) | more
    names = ''.join(f'<label><name>{label}</name></label>' for label in labels)
    image = tag('image', id=0, name=name, **size).replace('/>', f'>{"".join(elements)}</image>')
    meta = f'<version>1.1</version><meta><task><labels>{names}</labels></task></meta>'
    path = root / 'annotations.xml'
    path.write_text(f'<?xml version="1.0"?>{before}<annotations>{meta}{image}{others}</annotations>')
    return path


def read(root, path, files=tuple(SIZES)):
    assumed = []
    content, kind, usable = read_objects(
        path, root / 'images', sorted(files), None, lambda values, count: iter(values), assumed
    )
    assert not usable and kind in ('LabelMe', 'CVAT')
    return content, assumed


def flat(points):
    return [value for point in points for value in point]


def refusal(function, *arguments):
    with pytest.raises(UsageError) as error:
        function(*arguments)
    text = str(error.value)
    assert '\n' not in text and len(text) < 600
    return text


def named(content):
    names = {category['id']: category['name'] for category in content['categories']}
    return [names[part['category_id']] for part in content['annotations']]


def test_both_formats_are_read_as_they_were_drawn(root):
    of_labelme, said = read(root, write_labelme(root, SHAPES))
    assert said == [
        'what has no area is left out: 1 of type point, 1 of type linestrip',
        '1 group of shapes of one class are an object each',
    ]
    of_cvat, said = read(root, write_cvat(root, ELEMENTS))
    assert said == [
        'what has no area is left out: 1 of type polyline, 1 of type tag',
        '1 shape outside of the image (CVAT) are left out',
        '1 group of shapes of one class are an object each',
    ]
    assert [c['name'] for c in of_labelme['categories']] == ['ant', 'zebra']
    assert [c['name'] for c in of_cvat['categories']] == ['zebra', 'ant', 'never']
    # A file of CVAT's lists its images; without one of LabelMe's an image has no objects.
    assert [image['file_name'] for image in of_labelme['images']] == sorted(SIZES)
    assert [image['file_name'] for image in of_cvat['images']] == ['a.png']
    for content in (of_labelme, of_cvat):
        assert named(content) == ['zebra', 'ant', 'ant', 'ant', 'ant']
        assert {part['image_id'] for part in content['annotations']} == {1}
        assert not any(part['iscrowd'] for part in content['annotations'])
        box, triangle, mask, circle, two = content['annotations']
        assert box['bbox'] == [10, 5, 20, 20.5] and 'segmentation' not in box
        assert triangle['bbox'] == [1, 2, 19, 10] and triangle['segmentation'] == [flat(TRIANGLE)]
        whole = np.zeros((40, 60), bool)
        whole[10:13, 5:9] = MASK
        runs = coco_mask.frPyObjects(mask['segmentation'], 40, 60)
        np.testing.assert_array_equal(coco_mask.decode(runs), whole)
        assert mask['bbox'] == [5, 10, 4, 3]
        assert circle['bbox'] == [15, 15, 10, 10]
        points = np.reshape(circle['segmentation'], (-1, 2))
        np.testing.assert_allclose(np.hypot(*(points - 20).T), 5, atol=0.01)
        assert two['bbox'] == [1, 2, 39, 10]
        assert two['segmentation'] == [flat(SQUARE), flat(TRIANGLE)]


@pytest.mark.parametrize('degrees', [30, 90, 350.5])
def test_turned_shapes(root, degrees):
    given = dict(label='ant', rotation=degrees)
    elements = [
        tag('box', xtl=15, ytl=12, xbr=35, ybr=22, **given),
        tag('ellipse', cx=25, cy=17, rx=10, ry=5, **given),
    ]
    box, ellipse = read(root, write_cvat(root, elements))[0]['annotations']
    corners = cv2.boxPoints(((25, 17), (20, 10), degrees))
    found = np.reshape(box['segmentation'], (-1, 2))
    np.testing.assert_allclose(sorted(map(tuple, found)), sorted(map(tuple, corners)), atol=0.01)
    reference = np.zeros((40, 60), np.uint8)
    cv2.ellipse(reference, ((25, 17), (20, 10), degrees), 1, -1)
    found = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(ellipse['segmentation'], 40, 60)))
    assert (found & reference).sum() / (found | reference).sum() > 0.8


def test_masks_of_a_group_are_one(root):
    other = shape('ant', 'mask', [[20, 20], [23, 22]], mask=png(MASK), group_id=0)
    shapes = [shape('ant', 'mask', [[5, 10], [8, 12]], mask=png(MASK), group_id=0), other]
    (part,) = read(root, write_labelme(root, shapes))[0]['annotations']
    assert part['bbox'] == [5, 10, 19, 13] and sum(part['segmentation']['counts'][1::2]) == 2 * MASK.sum()
    boxes = [shape('ant', 'rectangle', [[1, 1], [5, 5]], group_id=0)] * 2
    assert len(read(root, write_labelme(root, boxes))[0]['annotations']) == 2
    mixed = refusal(read, root, write_labelme(root, [*shapes, boxes[0]]))
    assert "has the group 0 of 'ant' with shapes of several kinds" in mixed


@pytest.mark.parametrize('kind', ['LabelMe', 'CVAT'])
def test_a_config_learns_the_masks(root, kind):
    pytest.importorskip('mmdet', reason="detectors are MMDetection's")
    if kind == 'CVAT':
        path = write_cvat(
            root, ELEMENTS[1:6], 'c.png', f'<image id="1" name="sub/b.png">{ELEMENTS[1]}</image>'
        )
    else:
        write_labelme(root, SHAPES[1:6], 'c.png')
        path = write_labelme(root, SHAPES[1:2], 'sub/b.png')
    created = new('det', root / 'images', path, root / 'my.py', weights='none', size=64)
    cfg = load_config(str(created.config))
    assert cfg.model.type == 'MaskRCNN' and check(cfg) == []
    assert f'objects in the format of {kind}' in created.facts[0]
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    info = dataset.get_data_info(0)
    assert info['img_path'] == str(root / 'images/c.png')
    for transform in dataset.pipeline.transforms[:2]:
        info = transform(info)
    areas = info['gt_masks'].to_ndarray().sum((1, 2))
    np.testing.assert_allclose(areas, [95, MASK.sum(), 78.5, 161.5], rtol=0.16)


@pytest.mark.parametrize(
    ('file', 'named', 'image'),
    [
        ('a.png', 'a.png', 'a.png'),
        ('a.png', '..\\images\\a.png', 'a.png'),
        ('a.png', 'C:\\Users\\me\\a.png', 'a.png'),
        ('a.png', 'renamed.png', 'a.png'),
        ('a.png', None, 'a.png'),
        ('a.png', 7, 'a.png'),
        ('a.png', '\0', 'a.png'),
        ('x.png', '../images/sub/b.png', 'sub/b.png'),
        ('x.png', 'sub/b.png', 'sub/b.png'),
        ('sub/x.png', 'b.png', 'sub/b.png'),
        ('x.png', '{root}/images/sub/b.png', 'sub/b.png'),
        ('x.png', '../../../../../../../etc/passwd', None),
        ('x.png', '/etc/passwd', None),
        ('x.png', '../other.png', None),
        ('sub/x.png', 'a.png', None),
    ],
)
def test_the_image_of_a_file_of_labelme(root, file, named, image):
    """By its name or by what it names, never outside of the folder of the images."""
    Image.new('RGB', (60, 40)).save(root / 'other.png')
    named = named.format(root=root) if isinstance(named, str) else named
    folder = write_labelme(root, SHAPES[:1], file, imagePath=named, imageHeight=None)
    if image is None:
        assert refusal(read, root, folder).startswith(
            f"--annotations: no file of '{folder}' is of an image below '{root}/images', such as '"
        )
        write_labelme(root, SHAPES[:1], 'c.png')
        content, (said,) = read(root, folder)
        assert said.startswith(f"1 of 2 files of '{folder}' have no image below '{root}/images', such as ")
        image = 'c.png'
    else:
        content, _ = read(root, folder)
    (part,) = content['annotations']
    assert content['images'][part['image_id'] - 1]['file_name'] == image


def test_a_file_of_two_images(root):
    folder = write_labelme(root, SHAPES[:1], 'a.png', imagePath='c.png')
    said = refusal(read, root, folder)
    assert f"'{folder}/a.json' has the name of the image 'a.png', and its imagePath names 'c.png'" in said
    folder = write_labelme(root, SHAPES[:1], 'x.png', imagePath='c.png', folder='twice')
    write_labelme(root, SHAPES[:1], 'c.png', folder='twice')
    assert "are both of the image 'c.png': remove one" in refusal(read, root, folder)


def test_images_of_another_part(root):
    """Files of images that are for something else are left alone."""
    folder = write_labelme(root, SHAPES[:1])
    write_labelme(root, SHAPES[1:2], 'c.png')
    content, said = read(root, folder, ['c.png'])
    assert [part['segmentation'] for part in content['annotations']] == [[flat(TRIANGLE)]] and said == []
    path = write_cvat(root, ELEMENTS[:1], others=tag('image', id=1, name='c.png'))
    content, said = read(root, path, ['a.png'])
    assert [image['file_name'] for image in content['images']] == ['a.png'] and said == []


@pytest.mark.parametrize(
    ('part', 'text'),
    [
        (7, 'a shape that is not an object with keys: 7'),
        (shape('', 'polygon', TRIANGLE), 'a shape without a label'),
        (shape(1, 'polygon', TRIANGLE), 'a shape without a label'),
        (shape('a', 'polygon', TRIANGLE[:2]), "a polygon 'a' of 2 points, and 3 are the least"),
        (shape('a', 'circle', TRIANGLE[:1]), "a circle 'a' of 1 point, and 2 are the least"),
        (shape('a', 'polygon', [[1, math.nan]] * 3), "a value of 'a' that is not a number of pixels"),
        (shape('a', 'polygon', [[1, 10**400]] * 3), "a value of 'a' that is not a number of pixels"),
        (shape('a', 'polygon', [[1]] * 3), "a shape 'a' whose points are not pairs of numbers"),
        (shape('a', 'banana', TRIANGLE), "a shape 'a' of type 'banana', and types are polygon, "),
        (shape('a', ['x'], TRIANGLE), "a shape 'a' of type ['x'], and types are polygon, "),
        (shape('a', 'mask', [[5, 10], [8, 12]]), "a mask 'a' that is not a PNG file in base64"),
        (shape('a', 'mask', [[5, 10], [8, 12]], mask='!'), "a mask 'a' that is not a PNG file in base64"),
        (shape('a', 'mask', [[5, 10], [9, 12]], mask=png(MASK)), "a mask 'a' of 4x3 pixels in a box of 5x3"),
        (
            shape('a', 'mask', [[57, 10], [60, 12]], mask=png(MASK)),
            "a mask 'a' that reaches beyond the image",
        ),
        (shape('a', 'mask', [[5, 10], [8, 12]], mask=png(MASK & False)), "a mask 'a' without a pixel"),
    ],
)
def test_shapes_of_labelme_that_are_refused(root, part, text):
    folder = write_labelme(root, [*SHAPES, part])
    assert refusal(read, root, folder).startswith(f"--annotations: '{folder}/a.json' has {text}")


@pytest.mark.parametrize(
    ('part', 'text'),
    [
        (tag('box', xtl=1, ytl=1, xbr=2, ybr=2), 'a box without a label'),
        (tag('box', label='a', xtl=1, ytl=1, xbr=2), "'None' for 'ybr', which is not a number"),
        (
            tag('box', label='a', xtl=1, ytl=1, xbr=2, ybr='1e999'),
            "a value of 'ybr' that is not a number of pixels",
        ),
        (
            tag('box', label='a', xtl=1, ytl=1, xbr=2, ybr='nan'),
            "a value of 'ybr' that is not a number of pixels",
        ),
        (tag('box', label='a', xtl=3, ytl=1, xbr=2, ybr=2), "a box 'a' that is not xtl <= xbr, ytl <= ybr"),
        (tag('polygon', label='a', points='1,1;2,2'), "a polygon 'a' that is not x and y of three points"),
        (tag('polygon', label='a', points='1,1;2,2;3'), "a polygon 'a' that is not x and y of three points"),
        (tag('polygon', label='a', points='1,1;2,2;3,x'), "'x' for 'a', which is not a number"),
        (tag('banana', label='a'), "a shape of type 'banana', and types are box, polygon, mask, ellipse"),
        (
            tag('mask', label='a', rle='3,2', left=5, top=1, width=4, height=3),
            "a mask 'a' whose rle is not that of",
        ),
        (
            tag('mask', label='a', rle='-3,15', left=5, top=1, width=4, height=3),
            "a mask 'a' whose rle is not that of",
        ),
        (
            tag('mask', label='a', rle='x', left=5, top=1, width=4, height=3),
            "a mask 'a' whose rle is not whole",
        ),
        (
            tag('mask', label='a', rle='0,12', left=58, top=1, width=4, height=3),
            "a mask 'a' that reaches beyond",
        ),
        (
            tag('mask', label='a', rle='0,12', left=-1, top=1, width=4, height=3),
            "a mask 'a' that reaches beyond",
        ),
        (tag('mask', label='a', rle='12', left=5, top=1, width=4, height=3), "a mask 'a' without a pixel"),
        (
            tag('mask', label='a', rle=f'0,{10**18}', left=0, top=0, width=10**9, height=10**9),
            "a mask 'a' whose rle",
        ),
        (
            tag('mask', label='a', rle='0,12', left=1.5, top=1, width=4, height=3),
            "1.5 for 'left', which is not a whole",
        ),
    ],
)
def test_shapes_of_cvat_that_are_refused(root, part, text):
    path = write_cvat(root, [*ELEMENTS, part])
    assert refusal(read, root, path).startswith(f"--annotations: image 'a.png' of '{path}' has {text}")


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(name='../other.png'), "of '{path}' are not below '{root}/images', such as '../other.png'"),
        (dict(name='/etc/passwd'), "such as '/etc/passwd': give the folder that file_name is relative to"),
        (dict(name='images/a.png'), "such as 'images/a.png': they are below '{root}', give that (--images)"),
        (dict(width=61), "'{path}' gives 'a.png' height and width (40.0, 61.0), and the image is (40, 60)"),
        (dict(width='x'), "image 'a.png' of '{path}' has 'x' for 'width', which is not a number"),
        (dict(others='<image name="a.png"/>'), "'{path}' has the image 'a.png' twice: remove one"),
        (dict(others='<track id="0" label="ant"/>'), '"CVAT for video", which numbers frames'),
        (
            dict(before='<!DOCTYPE a [<!ENTITY b "c">]>'),
            'it has a <!DOCTYPE>, which no annotation tool writes',
        ),
        (dict(before='<!DOCTYPE a SYSTEM "file:///etc/passwd">'), 'it has a <!DOCTYPE>, which no annotation'),
        (dict(labels=('ant', 'a{{{{ fileDirname }}}}')), 'fileDirname'),
    ],
)
def test_files_of_cvat_that_are_refused(root, change, text):
    Image.new('RGB', (60, 40)).save(root / 'other.png')
    path = write_cvat(root, ELEMENTS, **change)
    assert text.format(path=path, root=root) in refusal(read, root, path)


def test_other_files(root):
    images = root / 'images'
    folder = write_labelme(root, SHAPES, imageWidth=61)
    said = refusal(read, root, folder)
    assert "gives 'a.png' height and width (40, 61), and the image is (40, 60): shapes" in said
    said = refusal(new, 'det', images, folder / 'a.json', root / 'my.py')
    assert f"'{folder}/a.json' is one of LabelMe's files: give the folder of all" in said
    (folder / 'a.json').write_text(json.dumps(dict(images=[])))
    assert "a.json' is a file of COCO's format: give it, not its folder" in refusal(read, root, folder)
    (folder / 'a.json').write_text('[]')
    assert "has no list of shapes, as LabelMe's files have" in refusal(read, root, folder)
    (root / 'a.xml').write_text('<annotation/>')
    said = refusal(read, root, root / 'a.xml')
    assert "is not CVAT's: its first element is 'annotation', not 'annotations'; give the folder" in said
    (root / 'a.xml').write_text('<annotations/>')
    assert 'has no image: export the task as "CVAT for images 1.1"' in refusal(read, root, root / 'a.xml')
    for labels in (folder, write_cvat(root, ELEMENTS)):
        said = refusal(new, 'seg', images, labels, root / 'my.py')
        assert said.startswith(f"--masks: '{labels}' has .")
        assert 'learn objects with their masks (new det)' in said


def test_names_beside_the_files(root):
    """A list of the labels, as LabelMe takes it, is not YOLO's; the folder of CVAT's file stands for it."""
    folder = write_labelme(root, SHAPES)
    (folder / 'labels.txt').write_text('__ignore__\nant\nzebra\n')
    assert named(read(root, folder)[0]) == ['zebra', 'ant', 'ant', 'ant', 'ant']
    write_cvat(root, ELEMENTS)
    assert named(read(root, root)[0]) == ['zebra', 'ant', 'ant', 'ant', 'ant']


def test_subsets_of_cvat_are_parts(root):
    pytest.importorskip('mmdet', reason="detectors are MMDetection's")
    element = f'<image id="1" name="b.png" subset="Validation">{ELEMENTS[1]}</image>'
    path = write_cvat(root, ELEMENTS, others=element, subset='Train')
    (root / 'images/sub').rename(root / 'images/Validation')  # as an export with images has them
    created = new('det', root / 'images', path, root / 'my.py', weights='none', size=64)
    assert any(
        said.startswith(f"the parts are the subsets of '{path}': train, val") for said in created.assumed
    )
    contents = [json.loads(file.read_text()) for file in created.files]
    names = [[image['file_name'] for image in content['images']] for content in contents]
    assert names == [['a.png'], ['Validation/b.png']]
    path.write_text(path.read_text().replace('Train', 'mine'))
    said = refusal(new, 'det', root / 'images', path, root / 'other.py')
    assert f"'{path}' has the subsets Validation, mine, and none for training: call that Train" in said


VALUES = (
    *(None, True, '', 'a', '\ud800', '\0', -1, 0.5, 2**63, 10**400, math.nan, math.inf, 1e308, [], [[]], [1]),
    *([[1, 2]] * 3, [['a', 'b']] * 3, [[math.inf] * 2] * 3, [[True, False]] * 3, {}, '{{ x }}'),
)


def test_every_field_of_labelme_with_every_value(root):
    """One sentence, or what is written and read as it was."""
    for part in SHAPES[:4]:
        for key in part:
            for value in VALUES:
                check_hostile(root, write_labelme(root, [part | {key: value}]))
    for key in ('shapes', 'imagePath', 'imageHeight', 'imageWidth'):
        for value in VALUES:
            check_hostile(root, write_labelme(root, SHAPES[:4], **{key: value}))


def test_every_attribute_of_cvat_with_every_value(root):
    values = ('', 'a', '-1', '0', '1e999', 'nan', '9' * 5000, str(2**63), '1,2;3,4', '1,2,3', '{{ x }}')
    for element in ELEMENTS[:6]:
        for key in element.split()[1:]:
            name = key.partition('=')[0]
            for value in values:
                start, _, rest = element.partition(f' {name}="')
                changed = f'{start} {name}="{value}"{rest.partition(chr(34))[2]}'
                check_hostile(root, write_cvat(root, [changed]))


def check_hostile(root, path):
    try:
        content, _ = read(root, path)
    except UsageError as error:
        said = str(error)
    else:
        said = ''
        assert {image['file_name'] for image in content['images']} <= SIZES.keys()
        assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert '\n' not in said and len(said) < 1000
