"""Configs for people's own data: what is written reads what is there."""

import json
import shutil
import sys

import numpy as np
import pytest
from conventions import LABELS, MASKS, store_masks, store_voc, store_yolo
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmmeta.apis import check, load_config, new
from mmmeta.errors import UsageError


def arguments_of(convention):
    """Keyword arguments of what :data:`MASKS` has as options."""
    _, options, _ = MASKS[convention]
    return dict(ignore=list(options[1:])) if options else {}


def build(cfg, name='train_dataloader'):
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg[name].dataset)
    dataset.full_init()
    return dataset


def read_places(dataset, index):
    """The labels of an image as the loss gets them before anything is resized."""
    info = dataset.get_data_info(index)
    return info['seg_map_path'], dataset.pipeline.transforms[1](info)['gt_seg_map']


@pytest.mark.parametrize('convention', MASKS)
def test_labels_become_classes(ade_root, tmp_path, convention):
    root = store_masks(ade_root, tmp_path / 'data', convention)
    out = tmp_path / 'my.py'
    created = new('seg', root / 'images', root / 'masks', out, weights='none', **arguments_of(convention))
    cfg = load_config(str(out))
    assert created.config == out and created.files == []
    assert check(cfg) == []
    classes = MASKS[convention][2]
    heads = [cfg.model.decode_head, cfg.model.auxiliary_head]
    assert [head.num_classes for head in heads] == [classes, classes]
    dataset = build(cfg)
    assert len(dataset.metainfo['classes']) == classes
    for index in range(len(dataset)):
        path, found = read_places(dataset, index)
        with Image.open(ade_root / 'annotations/training' / path.rpartition('/')[2]) as image:
            places = np.searchsorted(LABELS, np.asarray(image))
        if convention == '0 and 255':
            expected = ~np.isin(places, (0, 1, 2, 4))
        elif classes == 9:
            expected = np.where(places == 0, 255, places - 1)
            if convention == 'colours':  # classes are ordered by their colours
                order = np.unique(found[places > 0])
                assert len(order) == len(np.unique(places[places > 0]))
                for value in np.unique(places):
                    assert len(np.unique(found[places == value])) == 1
                continue
        else:
            expected = places
        np.testing.assert_array_equal(found, expected)


def test_names_say_what_is_stored(ade_root, tmp_path):
    root = store_masks(ade_root, tmp_path / 'data', 'sparse')
    names = tmp_path / 'names.txt'
    names.write_text('\n'.join(f'thing {i}:{label}' for i, label in enumerate(LABELS[::-1])))
    new('seg', root / 'images', root / 'masks', tmp_path / 'my.py', weights='none', classes=str(names))
    dataset = build(load_config(str(tmp_path / 'my.py')))
    assert dataset.metainfo['classes'][:2] == ('thing 0', 'thing 1')
    path, found = read_places(dataset, 0)
    with Image.open(path) as image:
        np.testing.assert_array_equal(found, len(LABELS) - 1 - np.searchsorted(LABELS, np.asarray(image)))


def test_a_part_is_held_out(ade_root, tmp_path):
    root = store_masks(ade_root, tmp_path / 'data', 'ignored 255')
    folders = root / 'images/train', root / 'masks/train'
    created = new('seg', *folders, tmp_path / 'my.py', weights='none', val_fraction=0.25)
    train, val = (path.read_text().split() for path in created.files)
    cfg = load_config(str(tmp_path / 'my.py'))
    assert check(cfg) == []
    assert (len(train), len(val)) == (8, 2) and not set(train) & set(val)
    assert len(build(cfg)) == len(train) and len(build(cfg, 'val_dataloader')) == len(val)


def objects_of(dataset):
    """Boxes and names of the objects of each image, by the name of its file."""
    names = dataset.metainfo['classes']
    return {
        info['img_path'].rpartition('/')[2]: sorted(
            (names[part['bbox_label']], *np.round(part['bbox'], 1))
            for part in info['instances']
            if not part['ignore_flag']
        )
        for info in (dataset.get_data_info(i) for i in range(len(dataset)))
    }


@pytest.mark.parametrize(('store', 'name'), [(store_voc, 'Annotations'), (store_yolo, 'labels')])
def test_objects_of_other_formats(coco_root, tmp_path, store, name):
    parts = [
        coco_root / part
        for part in ('annotations/instances_train2017.json', 'annotations/instances_val2017.json')
    ]
    new(
        *('det', coco_root / 'train2017', parts[0], tmp_path / 'coco.py'),
        **dict(val_images=coco_root / 'val2017', val_labels=parts[1], weights='none', method='retinanet'),
    )
    root = store(coco_root, tmp_path / 'data')
    new('det', root / 'images', root / name, tmp_path / 'other.py', weights='none')
    first, second = (load_config(str(tmp_path / file)) for file in ('coco.py', 'other.py'))
    assert check(first) == check(second) == []
    assert second.model.type == 'RetinaNet'  # there are no masks
    for loader in ('train_dataloader', 'val_dataloader'):
        of_coco, of_other = (objects_of(build(cfg, loader)) for cfg in (first, second))
        of_coco = {file: parts for file, parts in of_coco.items() if parts}
        assert of_other.keys() >= of_coco.keys()
        for file, parts in of_coco.items():
            assert [part[0] for part in of_other[file]] == [part[0] for part in parts]
            np.testing.assert_allclose([p[1:] for p in of_other[file]], [p[1:] for p in parts], atol=0.11)


@pytest.mark.parametrize('method', [None, 'cascade_mask_rcnn'])
def test_objects_of_one_file(coco_root, tmp_path, method):
    file = coco_root / 'annotations/instances_train2017.json'
    created = new('det', coco_root / 'train2017', file, tmp_path / 'my.py', method=method, val_fraction=0.5)
    train, val = (json.loads(path.read_text()) for path in created.files)
    assert abs(len(train['images']) - len(val['images'])) <= 1
    cfg = load_config(str(tmp_path / 'my.py'))
    assert check(cfg) == []
    heads = cfg.model.roi_head.bbox_head
    heads = heads if isinstance(heads, list) else [heads]
    classes = cfg.train_dataloader.dataset.metainfo.classes
    assert 1 <= len(classes) <= 6
    assert (
        {head.num_classes for head in heads} == {cfg.model.roi_head.mask_head.num_classes} == {len(classes)}
    )
    assert cfg.model.backbone.init_cfg.checkpoint == 'mmmeta://caformer_s18'


def test_folders_of_classes(imagenet_root, tmp_path):
    new('cls', imagenet_root, out=tmp_path / 'my.py', weights='none', backbone='poolformer_s12')
    cfg = load_config(str(tmp_path / 'my.py'))
    assert check(cfg) == []
    names = sorted(path.name for path in (imagenet_root / 'train').iterdir())
    dataset = build(cfg)
    assert list(dataset.metainfo['classes']) == names and cfg.model.head.num_classes == len(names)
    created = new('cls', imagenet_root / 'train', out=tmp_path / 'held.py', weights='none', val_fraction=0.5)
    cfg = load_config(str(created.config))
    assert check(cfg) == []
    dataset = build(cfg)
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        assert names[info['gt_label']] == info['img_path'].split('/')[-2]


@pytest.fixture
def sparse(ade_root, tmp_path):
    return store_masks(ade_root, tmp_path / 'data', 'sparse')


class TestRefusals:
    def refuse(self, *args, **options):
        with pytest.raises(UsageError) as error:
            new(*args, **options)
        return str(error.value)

    def test_what_is_ambiguous_is_asked_for(self, sparse, tmp_path):
        said = self.refuse('seg', sparse / 'images', sparse / 'masks', tmp_path / 'my.py')
        assert said == (
            'the masks have the labels 0, 3, 4, 9, 10, 37, 42, 115 and 2 more, and 0 may be a class, or mean '
            'that there is none: say --ignore 0, or --ignore none'
        )
        assert not (tmp_path / 'my.py').exists()

    def test_nothing_is_written_over(self, sparse, tmp_path):
        out = tmp_path / 'my.py'
        out.write_text('mine')
        said = self.refuse('seg', sparse / 'images', sparse / 'masks', out, ignore=['0'])
        assert said == f'{out} is there: choose another --out, or --force'
        assert out.read_text() == 'mine'
        new('seg', sparse / 'images', sparse / 'masks', out, ignore=['0'], force=True)
        assert load_config(str(out)).model.decode_head.num_classes == 9

    def test_missing_masks(self, sparse, tmp_path):
        masks = sorted((sparse / 'masks/train').iterdir())
        masks[1].unlink()
        said = self.refuse('seg', sparse / 'images', sparse / 'masks', tmp_path / 'my.py', ignore=['0'])
        assert said.startswith(
            f"--masks: 1 of {len(masks)} images have no mask, such as '{masks[1]}': add them"
        )
        created = new(
            *('seg', sparse / 'images', sparse / 'masks', tmp_path / 'my.py'), ignore=['0'], skip_missing=True
        )
        assert [path.name for path in created.files] == ['my_train.txt']
        assert len(build(load_config(str(created.config)))) == len(masks) - 1

    def test_masks_that_are_none(self, sparse, tmp_path):
        path = min((sparse / 'masks/train').iterdir())
        noise = np.random.default_rng(0).integers(0, 2**16, (64, 64)).astype(np.uint16)
        with Image.open(path) as image:
            size = image.size
        Image.fromarray(noise).resize(size, 0).save(path)
        said = self.refuse('seg', sparse / 'images', sparse / 'masks', tmp_path / 'my.py', ignore=['0'])
        assert 'different values, which are no labels of classes: smoothed edges' in said
        Image.fromarray(noise.astype(np.uint8)).save(path)
        said = self.refuse('seg', sparse / 'images', sparse / 'masks', tmp_path / 'my.py', ignore=['0'])
        assert f"such as '{path}': 64x64 pixels instead of " in said
        path.unlink()
        Image.new('L', size).save(path.with_suffix('.jpg'))
        said = self.refuse('seg', sparse / 'images', sparse / 'masks/train', tmp_path / 'my.py', ignore=['0'])
        assert 'has folders for training and validation' in said
        for file in (sparse / 'masks').glob('*/*.png'):
            with Image.open(file) as image:
                image.save(file.with_suffix('.jpg'))
            file.unlink()
        said = self.refuse('seg', sparse / 'images', sparse / 'masks', tmp_path / 'my.py', ignore=['0'])
        assert 'is a JPEG file, whose compression changes labels: write PNG files' in said

    @pytest.mark.parametrize(
        ('options', 'text'),
        [
            (dict(backbone='caformer_s19'), "--backbone 'caformer_s19' is none of ours: is it caformer_s18?"),
            (dict(weights='mmmeta://caformer'), "--weights 'mmmeta://caformer': list the published ones"),
            (dict(method='retinanet'), "--method retinanet: for 'seg' choose upernet, fpn"),
            (dict(size=100), '--size 100: give a multiple of 32'),
            (dict(epochs=0), '--epochs 0: give a positive number'),
            (dict(ignore=['sky']), "--ignore: 'sky' is not a label such as 255, which these masks store"),
            (dict(classes='a,b'), '--classes has 2 names, and the masks have 9 labels: 3, 4, 9,'),
            (dict(classes='a,a'), '--classes a,a: a stands twice'),
            (dict(classes='a:1,b'), '--classes: say for each class what the masks store, or for none'),
            (dict(classes='a:3,b:4'), '--classes names 2 labels, and the masks have others too: 9, 10, 37'),
        ],
    )
    def test_arguments(self, sparse, tmp_path, options, text):
        arguments = {'ignore': ['0'], **options}
        said = self.refuse('seg', sparse / 'images', sparse / 'masks', tmp_path / 'my.py', **arguments)
        assert said.startswith(text)
        assert not (tmp_path / 'my.py').exists()

    @pytest.mark.parametrize('fraction', [0.0, 1.0, 0.7])
    def test_fractions(self, sparse, tmp_path, fraction):
        parts = sparse / 'images/train', sparse / 'masks/train'
        said = self.refuse('seg', *parts, tmp_path / 'my.py', ignore=['0'], val_fraction=fraction)
        assert said.startswith(
            f'--val-fraction {fraction}: of 10 images none would be for validation, or none'
        )

    def test_folders(self, sparse, tmp_path):
        out = tmp_path / 'my.py'
        assert self.refuse('seg', tmp_path / 'no', sparse / 'masks', out) == (
            f"--images: there is no folder '{tmp_path}/no'"
        )
        (tmp_path / 'empty').mkdir()
        said = self.refuse('seg', tmp_path / 'empty', sparse / 'masks', out)
        assert said.startswith(f"--images: no file below '{tmp_path}/empty' ends in .jpg")
        said = self.refuse('cls', tmp_path / 'empty', out=out)
        assert said.startswith(
            f"'{tmp_path}/empty' has 0 folders, and a classifier needs one for each of two"
        )
        assert self.refuse('det', sparse / 'images', tmp_path / 'no', out) == (
            f"--annotations: there is no file or folder '{tmp_path}/no'"
        )
        said = self.refuse('det', sparse / 'images', sparse / 'masks', out)
        assert said.startswith(f"--annotations: '{sparse}/masks/train' has neither .xml nor .txt files: .png")

    @pytest.mark.parametrize(
        ('change', 'text'),
        [
            (lambda c: c.pop('categories'), 'has no list of categories'),
            (lambda c: c['images'][0].update(file_name='no.jpg'), 'are not below'),
            (lambda c: c['images'][1].update(id=c['images'][0]['id']), 'share the id'),
            (
                lambda c: c['annotations'][0].update(category_id=12),
                'is of category 12, which is none of 1, 2',
            ),
            (lambda c: c['annotations'][0].update(image_id=777), 'is in image 777, which is not there'),
            (lambda c: c['annotations'][0].pop('bbox'), 'has no box of four numbers: bbox=None'),
            (lambda c: c['categories'][1].update(name='person'), 'share the name person'),
            (lambda c: c.update(annotations=[]), 'has no objects'),
            (
                lambda c: [p['bbox'].__setitem__(slice(2, 4), [300, 300]) for p in c['annotations']],
                'reach beyond their image',
            ),
        ],
    )
    def test_files_of_objects(self, coco_root, tmp_path, change, text):
        content = json.loads((coco_root / 'annotations/instances_train2017.json').read_text())
        change(content)
        path = tmp_path / 'objects.json'
        path.write_text(json.dumps(content))
        said = self.refuse('det', coco_root / 'train2017', path, tmp_path / 'my.py')
        assert said.startswith('--annotations: ') and str(path) in said and text in said
        assert not (tmp_path / 'my.py').exists()

    def test_lines_of_yolo(self, coco_root, tmp_path):
        root = store_yolo(coco_root, tmp_path / 'data')
        path = next(path for path in sorted((root / 'labels/train').iterdir()) if path.read_text())
        path.write_text('0 20 30 40 50')
        said = self.refuse('det', root / 'images', root / 'labels', tmp_path / 'my.py')
        assert said.startswith(
            f"--annotations: '{path}', line 1: '0 20 30 40 50': YOLO's numbers are over the size"
        )
        path.write_text('9 0.5 0.5 0.1 0.1')
        said = self.refuse('det', root / 'images', root / 'labels', tmp_path / 'my.py')
        assert 'has class 9, and ' in said and 'give more (--classes)' in said


def test_an_unknown_label_ends_reading(sparse, tmp_path):
    """One that was not there when the config was written."""
    new('seg', sparse / 'images', sparse / 'masks', tmp_path / 'my.py', ignore=['0'], weights='none')
    path = min((sparse / 'masks/train').iterdir())
    with Image.open(path) as image:
        labels = np.asarray(image).copy()
    labels[0, 0] = 200
    Image.fromarray(labels).save(path)
    with pytest.raises(UsageError) as error:
        check(load_config(str(tmp_path / 'my.py')))
    assert str(error.value) == (
        f"'{path}' has the label 200, which is in neither labels nor ignore of LoadMappedLabels"
    )


def test_the_command_line(tools, sparse, tmp_path):
    command = (sys.executable, '-m', 'mmmeta', 'new', 'seg', '--images', sparse / 'images', '--masks')
    out = tmp_path / 'my.py'
    given = (sparse / 'masks', '--ignore', '0', '--weights', 'none', '--out', out, '--epochs', '1')
    said = tools.run(*command, *given).splitlines()
    assert f'wrote:   {out}' in said and any(
        line.startswith('train:   python tools/train.py ') for line in said
    )
    assert tools.fail(*command, *given) == f'error: {out} is there: choose another --out, or --force'
    shutil.rmtree(sparse / 'masks')
    assert tools.fail(*command, *given[:-4], '--out', tmp_path / 'b.py') == (
        f"error: --masks: there is no folder '{sparse}/masks'"
    )
