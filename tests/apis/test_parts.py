"""Which images ``new`` trains, validates and tests on."""

import json
import os
import re
import shutil
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmmeta.apis import load_config, new
from mmmeta.utils.errors import UsageError

OPTIONS = dict(weights='none', backbone='poolformer_s12')
LOADERS = ('train', 'val', 'test')


def images_of(config):
    """Names of the images that each loader reads, without folders and endings."""
    cfg = load_config(str(config))
    init_default_scope(cfg.default_scope)
    found = {}
    for part in LOADERS:
        # As a list: what is packed is collected first, which takes most of the time.
        dataset = DATASETS.build(dict(cfg[f'{part}_dataloader'].dataset, serialize_data=False))
        dataset.full_init()
        paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
        found[part] = sorted(Path(path).stem for path in paths)
    return found


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (64, 64)).save(path)


def write_mask(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.resize([0, 1], (64, 64)).astype(np.uint8)).save(path)


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_voc(root, task, lists, labelled='abcdefgh'):
    """Images a to h in Pascal VOC's layout, with lists of them."""
    for name in 'abcdefgh':
        write_image(root / f'JPEGImages/{name}.jpg')
        if name in labelled and task == 'Segmentation':
            write_mask(root / f'SegmentationClass/{name}.png')
        elif name in labelled:
            annotation = Element('annotation')
            thing = SubElement(annotation, 'object')
            SubElement(thing, 'name').text = 'cat'
            box = SubElement(thing, 'bndbox')
            for key, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), (9, 9, 40, 40), strict=True):
                SubElement(box, key).text = str(value)
            (root / 'Annotations').mkdir(exist_ok=True)
            ElementTree(annotation).write(root / f'Annotations/{name}.xml')
    for name, listed in lists.items():
        write_text(root / f'ImageSets/{task}/{name}.txt', ''.join(f'{one} 1\n' for one in listed))
    return root


def create(root, task, tmp_path, **options):
    labels = root / ('SegmentationClass' if task == 'seg' else 'Annotations')
    return new(task, root / 'JPEGImages', labels, tmp_path / 'my.py', **OPTIONS, **options)


@pytest.mark.parametrize('task', ['seg', 'det'])
class TestImageSets:
    def write(self, tmp_path, task, lists, **options):
        return write_voc(tmp_path / 'voc', 'Segmentation' if task == 'seg' else 'Main', lists, **options)

    def test_official_parts(self, tmp_path, task):
        root = self.write(tmp_path, task, dict(train='abc', val='d', trainval='abcd', test='efg'))
        created = create(root, task, tmp_path)
        assert images_of(created.config) == dict(train=['a', 'b', 'c'], val=['d'], test=['e', 'f', 'g'])
        said = '\n'.join(created.facts + created.assumed)
        assert '3 images for training, 1 for validation, 3 for the test' in said
        assert 'ImageSets/' in said and ': train.txt, val.txt, test.txt (' in said
        assert '1 of 8 images are in none of these lists, and are not used' in said

    def test_without_validation(self, tmp_path, task):
        root = self.write(tmp_path, task, dict(trainval='abcd', test='efgh'))
        found = images_of(create(root, task, tmp_path, val_fraction=0.25).config)
        assert found == dict(train=['a', 'b', 'c'], val=['d'], test=['e', 'f', 'g', 'h'])

    def test_images_in_two_parts(self, tmp_path, task):
        root = self.write(tmp_path, task, dict(train='abcde', val='f', test='efg'))
        with pytest.raises(UsageError, match=r"'.*train.txt' and '.*test.txt' both have e: take what"):
            create(root, task, tmp_path)
        assert not (tmp_path / 'my.py').exists()

    def test_images_that_are_not_there(self, tmp_path, task):
        root = self.write(tmp_path, task, dict(train=('a', 'b', 'zebra'), val='c', test=('x', 'y')))
        with pytest.raises(
            UsageError, match=r"1 of 3 images of '.*train.txt' are not in .*, such as 'zebra'"
        ):
            create(root, task, tmp_path)
        created = create(root, task, tmp_path, skip_missing=True)
        assert images_of(created.config) == dict(train=['a', 'b'], val=['c'], test=['c'])
        assert any("test.txt' is in" in line and 'it is not used' in line for line in created.assumed)


def write_folders(root, task, parts, names='ab'):
    """Two images in each folder, which have its name in theirs."""
    for part in parts:
        for name in names:
            if task == 'cls':
                write_image(root / f'images/{part}/{name}/{part}{name}.jpg')
                if part == 'training':  # one to hold out of each class
                    write_image(root / f'images/{part}/{name}/{part}{name}2.jpg')
                continue
            write_image(root / f'images/{part}/{part}{name}.jpg')
            if task == 'seg':
                write_mask(root / f'labels/{part}/{part}{name}.png')
            else:
                write_text(root / f'labels/{part}/{part}{name}.txt', '0 0.5 0.5 0.5 0.5')
    return (task, root / 'images', None if task == 'cls' else root / 'labels', root / 'my.py')


@pytest.mark.parametrize('task', ['seg', 'det', 'cls'])
class TestFolders:
    def test_three(self, tmp_path, task):
        created = new(*write_folders(tmp_path, task, ('train', 'val', 'test', 'attic')), **OPTIONS)
        expected = {part: [f'{part}a', f'{part}b'] for part in LOADERS}
        assert images_of(created.config) == expected
        said = '\n'.join(created.assumed)
        assert "'train' is for training, 'val' is for validation, 'test' is for the test" in said
        assert f"other folders of '{tmp_path}/images' are not used: attic" in said

    def test_training_and_test(self, tmp_path, task):
        given = write_folders(tmp_path, task, ('training', 'testing'), 'abcd' if task != 'cls' else 'ab')
        found = images_of(new(*given, val_fraction=0.5, **OPTIONS).config)
        assert all(name.startswith('training') for name in found['train'] + found['val'])
        assert all(name.startswith('testing') for name in found['test'])
        assert not set(found['train']) & set(found['val'])

    def test_a_test_alone(self, tmp_path, task):
        given = write_folders(tmp_path, task, ('mine', 'test'))
        with pytest.raises(UsageError, match="has a folder 'test', and none for training"):
            new(*given, **OPTIONS)

    def test_a_test_without_labels(self, tmp_path, task):
        given = write_folders(tmp_path, task, ('train', 'val'))
        for name in 'xy':
            write_image(tmp_path / f'images/test/{name}.jpg')
        created = new(*given, **OPTIONS)
        found = images_of(created.config)
        assert found['test'] == found['val'] == ['vala', 'valb']
        assert any('test' in line and 'not used' in line for line in created.assumed)


def write_coco(root, part, names):
    content = dict(images=[], annotations=[], categories=[dict(id=1, name='cat'), dict(id=2, name='dog')])
    for i, name in enumerate(names, 1):
        write_image(root / f'{part}/{name}.jpg')
        content['images'].append(dict(id=i, file_name=f'{name}.jpg', height=64, width=64))
        content['annotations'].append(
            dict(id=i, image_id=i, category_id=2 - i % 2, bbox=[8, 8, 32, 32], area=1024, iscrowd=0)
        )
    write_text(root / f'{part}.json', json.dumps(content))
    return root / part, root / f'{part}.json'


def test_three_files_of_coco(tmp_path):
    files = {part: write_coco(tmp_path, part, [f'{part}{i}' for i in range(2)]) for part in LOADERS}
    options = {
        f'{part}_{kind}': path
        for part in ('val', 'test')
        for kind, path in zip(('images', 'labels'), files[part], strict=True)
    }
    created = new('det', *files['train'], tmp_path / 'my.py', **options, **OPTIONS)
    assert images_of(created.config) == {part: [f'{part}0', f'{part}1'] for part in LOADERS}
    cfg = load_config(str(created.config))
    for part in ('val', 'test'):
        assert Path(cfg[f'{part}_evaluator'].ann_file) == files[part][1]
    # A test alone: validation is held out of what is for training.
    options = dict(test_images=files['test'][0], test_labels=files['test'][1], val_fraction=0.5, force=True)
    created = new('det', *files['train'], tmp_path / 'my.py', **options, **OPTIONS)
    assert images_of(created.config) == dict(train=['train0'], val=['train1'], test=['test0', 'test1'])
    content = json.loads(files['test'][1].read_text())
    content['images'][0]['file_name'] = 'train0.jpg'
    write_image(files['train'][0] / 'test1.jpg')
    files['train'][1].with_name('both.json').write_text(json.dumps(content))
    options = dict(test_images=files['train'][0], test_labels=tmp_path / 'both.json')
    with pytest.raises(UsageError, match=r"train0.jpg' is for training and for the test, as 1 of the 2"):
        new('det', *files['train'], tmp_path / 'b.py', **options, **OPTIONS)
    with pytest.raises(UsageError, match=r'name their annotations too \(--test-annotations\)'):
        new('det', *files['train'], tmp_path / 'b.py', test_images=files['test'][0], **OPTIONS)


class TestYaml:
    """YOLO's data.yaml: folders, lists, and tools that count from a folder below."""

    def write(self, tmp_path, text, parts=('fit', 'check', 'final')):
        root = tmp_path / 'yolo'
        for part in parts:
            for name in 'ab':
                write_image(root / f'set/images/{part}/{part}{name}.jpg')
                write_text(root / f'set/labels/{part}/{part}{name}.txt', '1 0.5 0.5 0.5 0.5')
        write_text(root / 'data.yaml', f'{text}\nnames: [no, yes]\n')
        return root

    @pytest.mark.parametrize('given', [True, False])
    def test_folders(self, tmp_path, given):
        text = 'path: set\ntrain: images/fit\nval: images/check\ntest: images/final'
        root = self.write(tmp_path, text)
        data = (None, root / 'data.yaml') if given else (root / 'set/images', root / 'set/labels')
        created = new('det', *data, tmp_path / 'my.py', **OPTIONS)
        assert images_of(created.config) == dict(
            train=['fita', 'fitb'], val=['checka', 'checkb'], test=['finala', 'finalb']
        )
        assert load_config(str(created.config)).classes == ('yes',)
        assert any("data.yaml': train, val, test (" in line for line in created.assumed)

    def test_lists(self, tmp_path):
        root = self.write(tmp_path, 'train: fit.txt\nval: check.txt\ntest: ../set/images/final')
        (root / 'fit.txt').write_text('./set/images/fit/fita.jpg\n')
        (root / 'check.txt').write_text('set/images/check/checkb.jpg\n')
        created = new('det', None, root / 'data.yaml', tmp_path / 'my.py', **OPTIONS)
        assert images_of(created.config) == dict(train=['fita'], val=['checkb'], test=['finala', 'finalb'])

    def test_training_is_not_validation(self, tmp_path):
        root = self.write(tmp_path, 'path: set\ntrain: images/fit\nval: images/fit\ntest: images/none')
        created = new('det', None, root / 'data.yaml', tmp_path / 'my.py', val_fraction=0.5, **OPTIONS)
        assert images_of(created.config) == dict(train=['fita'], val=['fitb'], test=['fitb'])
        said = '\n'.join(created.assumed)
        assert 'names the same images for training and validation: some are held out' in said
        assert 'has test: images/none, where there are no images' in said

    @pytest.mark.parametrize(
        ('text', 'error'),
        [
            ('train: images/fit', r'has train: images/fit, where there are no images'),
            ('path: set\ntest: images/final', r'names no images for training \(train: images/train\)'),
            (
                'path: set\ntrain: [images/fit, images/final]\ntest: images/final',
                'both have .*finala.jpg, ',
            ),
            ('path: set\ntrain: {a: b}', 'path and train are not names of folders or lists'),
        ],
    )
    def test_refused(self, tmp_path, text, error):
        root = self.write(tmp_path, text)
        with pytest.raises(UsageError, match=error):
            new('det', None, root / 'data.yaml', tmp_path / 'my.py', **OPTIONS)
        assert not (tmp_path / 'my.py').exists()


class TestMoving:
    """Configs are used from any folder, and handed on with the data or without."""

    def new(self, folder, task, monkeypatch, **options):
        given = write_folders(folder / 'project/data', task, LOADERS)
        monkeypatch.chdir(folder / 'project')
        os.mkdir('configs')
        weights = Path('w.pth')
        weights.touch()
        paths = [None if path is None else os.path.relpath(path) for path in given[1:3]]
        options = {**OPTIONS, 'weights': 'w.pth', **options}
        return new(task, *paths, 'configs/my.py', **options)

    @pytest.mark.parametrize('task', ['seg', 'det', 'cls'])
    def test_with_the_data(self, tmp_path, monkeypatch, task):
        created = self.new(tmp_path, task, monkeypatch)
        assert created.assumed[-1].endswith(': move both together, or write another (--root)')
        text = (tmp_path / 'project/configs/my.py').read_text()
        assert str(tmp_path) not in text  # nothing of this machine
        monkeypatch.chdir('/')
        shutil.move(tmp_path / 'project', tmp_path / 'handed on')
        config = tmp_path / 'handed on/configs/my.py'
        assert images_of(config) == {part: [f'{part}a', f'{part}b'] for part in LOADERS}
        cfg = load_config(str(config))
        assert os.path.samefile(cfg.model.backbone.init_cfg.checkpoint, tmp_path / 'handed on/w.pth')
        if task == 'det':
            for part in ('val', 'test'):
                file = cfg[f'{part}_dataloader'].dataset.ann_file
                assert os.path.samefile(cfg[f'{part}_evaluator'].ann_file, file)

    def test_without_the_data(self, tmp_path, monkeypatch):
        """They are elsewhere there: one line says where."""
        created = self.new(tmp_path, 'seg', monkeypatch, root=tmp_path / 'project')
        assert created.assumed[-1] == (
            "the data are below '.', which is data_root at the top of the config: write another to move the "
            'data (--root)'
        )
        shutil.move('data', tmp_path / 'elsewhere')
        (tmp_path / 'disk').mkdir()
        shutil.move(tmp_path / 'elsewhere', tmp_path / 'disk/data')
        text = Path('configs/my.py').read_text()
        Path('configs/my.py').write_text(
            re.sub(r'data_root = .*', f"data_root = '{tmp_path}/disk'", text, count=1)
        )
        assert images_of('configs/my.py')['test'] == ['testa', 'testb']

    def test_data_beside_the_root(self, tmp_path, monkeypatch):
        with pytest.raises(UsageError, match=r"--root 'configs': '.*/data/images/train' is not below it"):
            self.new(tmp_path, 'cls', monkeypatch, root='configs')
