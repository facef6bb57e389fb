"""Annotations that are not what their format has: one sentence with the file and the entry."""

import copy
import json
import math
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from pycocotools import mask as coco_mask

from mmmeta.apis import check, load_config, new
from mmmeta.scaffold.boxes import read_objects
from mmmeta.scaffold.folders import MOST_CLASSES
from mmmeta.utils.errors import UsageError
from mmmeta.validation import check_dataset, name_damaged_maps
from mmmeta.validation.objects import BadObjects, decode_runs, parsed_once

HUGE = 10**400
# Values of every type of JSON, for fields that have others.
VALUES = (
    *(None, True, '', 'a', '\ud800', 'a\0', '{{ fileDirname }}', '../../etc/passwd', -1, 0, 0.5, 2**31),
    *(2**63, HUGE, -HUGE, math.nan, math.inf, -math.inf, 1e308, [], [[]], [1], [[1, 2, 3]], ['a'] * 4),
    *([math.nan] * 4, [HUGE] * 4, [1, 1, -5, 5], [None] * 4, [[math.nan] * 6], [[HUGE] * 6], [['a'] * 6]),
    *([1.0] * 6, [True] * 4, {}, {'a': 1}, {'size': [64, 64]}, {'size': 'ab', 'counts': [1]}),
    *({'size': [64, 64], 'counts': []}, {'size': [64, 64], 'counts': '\ud800'}),
    *({'size': [64, 64], 'counts': [4097]}, {'size': [64, 64], 'counts': [5000, -904]}),
    *({'size': [64, 64], 'counts': [math.nan]}, {'size': [64, 64], 'counts': 'zzzz'}),
    {'size': [2**31, 2**31], 'counts': [2**62]},
)


def small_coco():
    images = [dict(id=i, file_name=f'{i}.png', height=64, width=64) for i in range(1, 5)]
    square = [[1, 1, 21, 1, 21, 21, 1, 21]]
    objects = [
        dict(
            id=i,
            image_id=i,
            category_id=1 + i % 2,
            bbox=[1, 1, 20, 20],
            area=400,
            iscrowd=0,
            segmentation=square,
        )
        for i in range(1, 5)
    ]
    return dict(images=images, annotations=objects, categories=[dict(id=1, name='a'), dict(id=2, name='b')])


def changes():
    """Every field of a file of COCO's format, each with every value, or left out."""
    content = small_coco()
    places = [()] + [(kind,) for kind in content] + [(kind, 1) for kind in content]
    places += [(kind, 1, key) for kind in content for key in content[kind][1]]
    for place in places:
        for value in VALUES:
            changed = copy.deepcopy(content)
            if place:
                owner = changed
                for key in place[:-1]:
                    owner = owner[key]
                owner[place[-1]] = copy.deepcopy(value)
            else:
                changed = value
            yield place, value, changed


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Four images, and room for what is to be read."""
    root = tmp_path_factory.mktemp('objects')
    (root / 'images').mkdir()
    for i in range(1, 5):
        Image.new('RGB', (64, 64), (i, i, i)).save(root / f'images/{i}.png')
    return root


def read(root, path, names=None):
    files = sorted(file.name for file in (root / 'images').iterdir())
    return read_objects(path, root / 'images', files, names, lambda values, count: iter(values), [])


def refusal(function, *arguments):
    """The one sentence with which something is refused; None if it is not."""
    try:
        function(*arguments)
    except UsageError as error:
        text = str(error)
    else:
        return None
    assert '\n' not in text and len(text) < 1000
    return text


def read_with_check(path):
    """Read a file as ``check`` does while MMDetection builds a data set."""
    from mmdet.datasets import CocoDataset

    with parsed_once():
        CocoDataset.COCOAPI(str(path))


class TestCoco:
    @staticmethod
    def try_fields(root, step):
        """Read changed files both ways; how many there are, and how many are refused."""
        path, refused, count = root / 'a.json', 0, 0
        for place, value, content in list(changes())[::step]:
            path.write_text(json.dumps(content))
            text, checked = refusal(read, root, path), refusal(read_with_check, path)
            assert text is None or str(path) in text
            assert checked is None or str(path) in checked
            # What new refuses alone can be read by MMDetection; what it adds itself, check wants.
            assert checked is None or text is not None or " lack 'area'" in checked, (place, value)
            refused, count = refused + (text is not None), count + 1
        return count, refused

    def test_fields(self, folder):
        pytest.importorskip('mmdet')
        count, refused = self.try_fields(folder, 7)
        assert count > 100 and 0.6 * count < refused < count

    @pytest.mark.nightly
    def test_every_field_with_every_value(self, folder):
        pytest.importorskip('mmdet')
        count, refused = self.try_fields(folder, 1)
        assert count > 700 and 0.6 * count < refused < count

    @pytest.mark.parametrize(
        ('key', 'value', 'text'),
        [
            ('bbox', [math.nan, 0, 1, 1], 'has no box of four numbers: bbox=[nan, 0, 1, 1]'),
            ('bbox', [0, 0, math.inf, 1], 'has no box of four numbers: bbox=[0, 0, inf, 1]'),
            (
                'bbox',
                [9, 9, -5, 5],
                'has a box of negative width or height: bbox=[9, 9, -5, 5]',
            ),
            ('bbox', '1,1,2,2', "has no box of four numbers: bbox='1,1,2,2'"),
            ('id', [1], 'annotations of {} have the id [1], and ids are whole numbers'),
            ('id', 1, 'annotations of {} share the id 1: give each its own'),
            ('image_id', [1], 'has image_id=[1], and ids are whole numbers'),
            ('category_id', 7, 'is of category 7, which is none of 1, 2'),
            ('area', math.nan, 'has area=nan, which is not a number of pixels'),
            ('iscrowd', 'no', "has iscrowd='no', which is 0 or 1"),
            (
                'segmentation',
                [[1, 2, 3, math.nan, 5, 6]],
                'has a segmentation that is not a list of polygons',
            ),
            (
                'segmentation',
                [1, 2, 3, 4, 5, 6],
                'has a segmentation that is not a list of polygons',
            ),
            (
                'segmentation',
                [[1, 2, 3]],
                'has a polygon (segmentation) that is not x and y of three points',
            ),
            (
                'segmentation',
                'abc',
                "has segmentation='abc', which is neither polygons nor RLE",
            ),
            (
                'segmentation',
                dict(size=[32, 64], counts=[2048]),
                'has an RLE (segmentation) of size [32, 64] in an image of [64, 64]',
            ),
            (
                'segmentation',
                dict(size=[64, 64], counts='P' * 500),
                'has an RLE (segmentation) whose counts are not those of its size',
            ),
        ],
    )
    def test_objects(self, folder, key, value, text):
        content = small_coco()
        content['annotations'][1][key] = value
        path = folder / 'a.json'
        path.write_text(json.dumps(content))
        text = text if '{}' in text else f'object 2 of {{}} {text}'
        assert text.format(f"'{path}'") in refusal(read, folder, path)

    @pytest.mark.parametrize(
        ('kind', 'key', 'value', 'text'),
        [
            ('images', 'file_name', 5, 'image 5 of {} has file_name=5, which is not the name of a file'),
            ('images', 'file_name', '\udcff.png', 'has a file_name that is not text in UTF-8'),
            (
                'images',
                'height',
                'high',
                "image '2.png' of {} has height='high', which is not a number",
            ),
            ('images', 'width', 0, "image '2.png' of {} has width=0, which is not a number of pixels"),
            ('images', 'id', HUGE, 'and ids are whole numbers'),
            ('categories', 'name', 5, 'category 2 of {} has the name 5, and names are text'),
            ('categories', 'id', None, 'categories of {} have the id None, and ids are whole numbers'),
        ],
    )
    def test_images_and_categories(self, folder, kind, key, value, text):
        content = small_coco()
        content[kind][1][key] = value
        path = folder / 'a.json'
        path.write_text(json.dumps(content))
        assert text.format(f"'{path}'") in refusal(read, folder, path)

    @pytest.mark.parametrize(
        ('content', 'text'),
        [
            (b'', 'is not JSON'),
            (b'{"images": [', 'is not JSON'),
            (b'\xff\xfe{\0}\0', 'is not JSON'),
            (b'{"a": "\xff"}', 'is not JSON'),
            (b'[' * 100_000, 'is nested too deeply'),
            (b'{"a":' * 100_000, 'is nested too deeply'),
            (b'{"images": ' + b'9' * 5000 + b'}', 'is not JSON'),
            (b'null', 'has no list of images'),
        ],
    )
    def test_files(self, folder, content, text):
        pytest.importorskip('mmdet')
        path = folder / 'a.json'
        path.write_bytes(content)
        for function, arguments in ((read, (folder, path)), (read_with_check, (path,))):
            assert text in refusal(function, *arguments)

    def test_a_byte_order_mark_is_left_out(self, folder):
        path = folder / 'a.json'
        path.write_text(json.dumps(small_coco()))
        assert read(folder, path)[2]
        path.write_text(json.dumps(small_coco()), encoding='utf-8-sig')
        assert not read(folder, path)[2]  # written anew beside the config, since COCO's tools cannot read it

    def test_what_is_missing_is_added(self, folder):
        content = small_coco()
        content['annotations'][1].update(area=None, iscrowd=None)
        del content['annotations'][2]['area'], content['annotations'][2]['iscrowd']
        path = folder / 'a.json'
        path.write_text(json.dumps(content))
        found, _, complete = read(folder, path)
        assert [(part['area'], part['iscrowd']) for part in found['annotations']] == [(400, 0)] * 4
        assert not complete

    def test_annotations_are_never_unpickled(self, folder):
        pytest.importorskip('mmdet')
        path = folder / 'a.pkl'
        path.write_bytes(pickle.dumps(small_coco()))
        with pytest.raises(BadObjects, match='is not JSON'):
            read_with_check(path)


def test_runs_are_decoded_as_coco_does():
    rng = np.random.default_rng(0)
    for share in (0, 0.01, 0.5, 1):
        mask = np.asfortranarray(rng.random((97, 61)) < share, dtype=np.uint8)
        runs = decode_runs(coco_mask.encode(mask)['counts'].decode())
        ends = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(order='F').astype(int), [-1]])))
        assert runs == np.diff(ends, prepend=0).tolist()
    assert decode_runs('o' * 9) is decode_runs('o') is decode_runs('é') is None


class TestVoc:
    @pytest.mark.parametrize(
        ('content', 'text'),
        [
            (b'', 'is not XML'),
            (b'<a>', 'is not XML'),
            (b'<a>\xff</a>', 'is not XML'),
            (b'<?xml version="1.0" encoding="nonsense"?><a/>', 'is not XML'),
            (b'<?xml version="1.0" encoding="utf-7"?><a/>', 'is not XML'),
            (
                b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a><object><name>&x;</name></object></a>',
                '',
            ),
            (
                b'<!DOCTYPE a [<!ENTITY x0 "ha">'
                + b''.join(b'<!ENTITY x%d "%s">' % (i, b'&x%d;' % (i - 1) * 10) for i in range(1, 12))
                + b']><a><object><name>&x11;</name></object></a>',
                'is not XML',
            ),
            *(
                (f'<a><object><name>b</name><bndbox>{box}</bndbox></object></a>'.encode(), 'object whose box')
                for box in (
                    '<xmin>nan</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>',
                    '<xmin>1</xmin><ymin>1</ymin><xmax>1e999</xmax><ymax>2</ymax>',
                    '<xmin>9</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>',
                )
            ),
        ],
    )
    def test_files(self, tmp_path, folder, content, text):
        (tmp_path / '1.xml').write_bytes(content)
        said = refusal(read, folder, tmp_path)
        assert str(tmp_path / '1.xml') in said and text in said

    def test_deep_nesting_is_no_recursion(self, tmp_path, folder):
        (tmp_path / '1.xml').write_bytes(b'<a>' * 100_000 + b'</a>' * 100_000)
        assert 'has no objects' in refusal(read, folder, tmp_path)


class TestYolo:
    def write(self, root, line='0 .5 .5 .2 .2', yaml=None):
        (root / 'labels').mkdir()
        (root / 'labels/1.txt').write_bytes(line if isinstance(line, bytes) else line.encode())
        if yaml is not None:
            (root / 'labels/data.yaml').write_text(yaml)
        return root / 'labels'

    @pytest.mark.parametrize(
        ('line', 'text'),
        [
            ('999999999 .5 .5 .2 .2', f'has class 999999999, and {MOST_CLASSES} classes are the most'),
            ('1e18 .5 .5 .2 .2', f'has class 1000000000000000000, and {MOST_CLASSES} classes are the most'),
            ('1e308 .5 .5 .2 .2', 'classes are the most'),
            ('inf .5 .5 .2 .2', 'line 1'),
            ('nan .5 .5 .2 .2', 'line 1'),
            ('-1 .5 .5 .2 .2', 'line 1'),
            ('0 nan .5 .2 .2', 'line 1'),
            ('0 .5 .5 -1 .2', 'line 1'),
            ('0 .5 .5 .2', 'line 1'),
            ('a b', 'line 1'),
            ('\0', 'line 1'),
            (b'\xff\xff', 'is not text in UTF-8'),
        ],
    )
    def test_lines(self, tmp_path, folder, line, text):
        said = refusal(read, folder, self.write(tmp_path, line))
        assert str(tmp_path) in said and text in said

    @pytest.mark.parametrize(
        ('yaml', 'text'),
        [
            ('names: 5', 'names is not a list of names'),
            ('names: {a: {b: c}}', 'classes are numbered from 0 without gaps'),
            ('names: {-1: a, 0: b}', 'classes are numbered from 0 without gaps'),
            ('names: {1: a, 2: b}', 'classes are numbered from 0 without gaps'),
            ('names: {0: [a]}', 'names is not a list of names'),
            ('names: [a, a]', 'a stands twice'),
            ('names: [a, "{{ fileDirname }}"]', "the class name of '{}' has '{{"),
            ('names: [a, ""]', 'class 1 has no name'),
            (
                'x0: &x0 [a]\n'
                + ''.join(f'x{i}: &x{i} [{f"*x{i - 1}, " * 10}]\n' for i in range(1, 30))
                + 'names: *x29',
                'names is not a list of names',
            ),
            (
                'x0: &x0 {a: b}\n'
                + ''.join(f'x{i}: &x{i} {{<<: [{f"*x{i - 1}, " * 10}]}}\n' for i in range(1, 30))
                + 'names: *x29',
                'classes are numbered from 0 without gaps',
            ),
        ],
    )
    def test_names(self, tmp_path, folder, yaml, text):
        said = refusal(read, folder, self.write(tmp_path, yaml=yaml))
        path = tmp_path / 'labels/data.yaml'
        assert str(path) in said and text.replace('{}', str(path)) in said

    def test_more_names_than_a_network_has(self, tmp_path, folder):
        labels = self.write(tmp_path)
        (labels / 'classes.txt').write_text('\n'.join(map(str, range(MOST_CLASSES + 1))))
        assert f'{MOST_CLASSES + 1} classes, and {MOST_CLASSES} are the most' in refusal(read, folder, labels)

    def test_names_are_text(self, tmp_path, folder):
        """To YAML ``no`` is False and 1.50 is 1.5."""
        content, *_ = read(folder, self.write(tmp_path, yaml='names: {0: no, 1: 1.50, 2: ~x}'))
        assert [category['name'] for category in content['categories']] == ['no', '1.50', '~x']

    def test_python_objects_are_not_made(self, tmp_path, folder):
        yaml = 'names: [!!python/object/apply:os.system ["exit 1"], b]'
        assert 'names is not a list of names' in refusal(read, folder, self.write(tmp_path, yaml=yaml))


def last_map(cfg):
    """The last annotation map of training."""
    return max(Path(cfg.train_dataloader.dataset.data_root, 'annotations/training').iterdir())


class TestDamagedMaps:
    @pytest.fixture
    def cfg(self, ade_root, tmp_path):
        """The tests' UperNet on a copy of the data."""
        root = shutil.copytree(ade_root, tmp_path / 'data')
        options = {f'{part}_dataloader.dataset.data_root': str(root) for part in ('train', 'val', 'test')}
        return load_config('tests/data/tiny_upernet.py', options)

    def test_check_and_training_name_the_file(self, cfg):
        path = last_map(cfg)
        content = path.read_bytes()
        init_default_scope('mmseg')
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        expected = f"^'{path}' is damaged or not an image"
        for damaged in (b'', content[:20], content[:60], content[:-30], b'a' * 100):
            path.write_bytes(damaged)
            with pytest.raises(UsageError, match=expected):
                check_dataset(cfg, 'train_dataloader', dataset)
        name_damaged_maps(dataset)
        with pytest.raises(UsageError, match=expected):
            dataset[len(dataset) - 1]
        assert dataset[0]['data_samples'].gt_sem_seg is not None

    def test_a_run_finds_maps_that_are_cut_off_outside_of_its_sample(self, cfg):
        init_default_scope('mmseg')
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        path = Path(dataset.get_data_info(1)['seg_map_path'])
        content = path.read_bytes()
        path.write_bytes(content + b'more')  # as nobody minds
        assert check_dataset(cfg, 'train_dataloader', dataset, 2) == []
        for damaged in (b'', content[:60], content[:-30], b'a' * 100):
            path.write_bytes(damaged)
            with pytest.raises(UsageError, match=f"^'{path}' is damaged or not an image"):
                check_dataset(cfg, 'train_dataloader', dataset, 2)

    def test_other_errors_of_a_loader_stay(self, cfg):
        init_default_scope('mmseg')
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        loader = dataset.pipeline.transforms[1]
        loader._load_seg_map = lambda results: 1 / 0
        name_damaged_maps(dataset)
        with pytest.raises(ZeroDivisionError):
            dataset[0]

    def test_new_names_the_file(self, cfg, tmp_path):
        path = last_map(cfg)
        root = path.parents[2]
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(UsageError, match=f"'{path}' cannot be read as an image"):
            new('seg', root / 'images', root / 'annotations', tmp_path / 'my.py', weights='none')
        assert not (tmp_path / 'my.py').exists()


@pytest.mark.nightly
def test_what_is_accepted_can_be_read_to_the_end(folder, tmp_path):
    """Each file that new accepts makes a config whose data sets and metric read it."""
    pytest.importorskip('mmdet')
    accepted = 0
    for i, (place, value, content) in enumerate(changes()):
        path = folder / 'a.json'
        path.write_text(json.dumps(content))
        out = tmp_path / f'my{i}.py'
        if refusal(new, 'det', folder / 'images', path, out) is not None:
            assert not list(tmp_path.glob(f'my{i}*'))
            continue
        accepted += 1
        cfg = load_config(str(out))
        refusal(check, cfg)
        init_default_scope('mmdet')
        for name in ('train_dataloader', 'val_dataloader'):
            dataset = DATASETS.build(cfg[name].dataset)
            assert [dataset[k] for k in range(len(dataset))], (place, value)
    assert accepted > 10


@pytest.mark.nightly
@pytest.mark.parametrize('seed', range(20))
def test_random_bytes_in_annotations(folder, tmp_path, seed):
    rng = random.Random(seed)
    whole = {
        '.json': json.dumps(small_coco()).encode(),
        '.xml': b'<a><object><name>b</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax>'
        b'<ymax>9</ymax></bndbox></object></a>',
        '.txt': b'0 .5 .5 .2 .2\n1 0.1 0.1 0.2 0.1 0.2 0.2\n',
    }
    for suffix, content in whole.items():
        place = tmp_path / suffix
        place.mkdir()
        for _ in range(300):
            changed = bytearray(content)
            for _ in range(rng.randrange(1, 5)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            (place / f'1{suffix}').write_bytes(changed[: rng.randrange(1, 2 * len(changed))])
            refusal(read, folder, place / '1.json' if suffix == '.json' else place)
