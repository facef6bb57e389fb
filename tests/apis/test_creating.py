"""Configs for people's own data: what is written reads what is there."""

import json
import shutil
import sys

import numpy as np
import pytest
from conventions import LABELS, MASKS, store_masks, store_voc, store_yolo
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmmeta.apis import build_model, check, load_config, new, predict
from mmmeta.config.data import explain_data_errors
from mmmeta.utils.errors import UsageError
from mmmeta.visualization.cam import draw_cam


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
    assert [sorted([*train, *val]).index(name) for name in val] == [3, 7]  # evenly spread
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
    assert cfg.optim_wrapper.optimizer.lr == 1e-4


def test_folders_of_classes(imagenet_root, tmp_path):
    new('cls', imagenet_root, out=tmp_path / 'my.py', weights='none', backbone='poolformer_s12')
    cfg = load_config(str(tmp_path / 'my.py'))
    assert check(cfg) == []
    names = sorted(path.name for path in (imagenet_root / 'train').iterdir())
    dataset = build(cfg)
    assert list(dataset.metainfo['classes']) == names and cfg.model.head.num_classes == len(names)
    assert cfg.optim_wrapper.optimizer.lr == 5e-4  # from random weights
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


def rename_used(content):
    used = sorted({part['category_id'] for part in content['annotations']})
    for category in content['categories']:
        if category['id'] in used[:2]:
            category['name'] = 'thing'


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

    @pytest.mark.parametrize('fraction', [0.0, 1.0])
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
        assert said.startswith(f"--annotations: '{sparse}/masks/train' has no .xml, .txt, .json files: .png")

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
            (rename_used, 'share the name thing'),
            (lambda c: c['images'].append(1), 'has 1, which is not an object with keys'),
            (lambda c: c['categories'][0].pop('name'), 'category 1 of '),
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

    def test_a_list_of_names_is_not_a_file_of_objects(self, coco_root, tmp_path):
        path = tmp_path / 'train.txt'
        path.write_text('000001\n000002\n')
        said = self.refuse('det', coco_root / 'train2017', path, tmp_path / 'my.py')
        assert said.startswith(f"--annotations: '{path}' is not JSON (")
        assert "give a file of COCO's format, or the folder of VOC's .xml, YOLO's .txt or " in said

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


def test_the_root_of_voc_stands_for_its_annotations(coco_root, tmp_path):
    parts = store_voc(coco_root, tmp_path / 'parts')
    root = tmp_path / 'VOC2012'
    shutil.copytree(parts / 'Annotations/train', root / 'Annotations')
    (root / 'notes.txt').write_text('a text')
    configs = []
    for place in (root / 'Annotations', root):
        new(
            'det',
            parts / 'images/train',
            place,
            tmp_path / f'{place.name}.py',
            weights='none',
            method='retinanet',
        )
        cfg = load_config(str(tmp_path / f'{place.name}.py'))
        configs.append((len(build(cfg)), build(cfg).metainfo['classes']))
    assert configs[0] == configs[1]


def test_an_image_that_is_whole_and_that_opencv_does_not_read(tmp_path):
    path = tmp_path / 'values.tif'
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(path)
    cfg = Config(dict(train_dataloader=dict(dataset=dict())))
    with pytest.raises(UsageError) as error, explain_data_errors(cfg, ['train_dataloader'], 'reading'):
        raise AttributeError(f'failed to load image: {path}')
    assert str(error.value).startswith(f"'{path}' is a whole image of TIFF, which OpenCV does not read")
    assert 'write mmmeta.LoadUnchangedImage in place of LoadImageFromFile' in str(error.value)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError) as error, explain_data_errors(cfg, ['train_dataloader'], 'reading'):
        raise AttributeError(f'failed to load image: {path}')
    assert str(error.value).startswith(f"'{path}' is damaged or not an image: get it again")


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
    assert (
        'found:   the masks store 3 for class_3, 4 for class_4, 9 for class_9, 10 for class_10 and 5 more: '
        'the config reads these as classes 0 to 8 (mmmeta.LoadMappedLabels); no file is changed'
    ) in said
    assert any('crops of 64x64 are learnt from; the median of their short sides is ' in line for line in said)
    assert any('assumed: 1 epoch of 10 images in batches of 4: 2 iterations' in line for line in said)
    assert f'wrote:   {out}' in said and any(
        line.startswith('train:   python tools/train.py ') for line in said
    )
    assert tools.fail(*command, *given) == f'error: {out} is there: choose another --out, or --force'
    shutil.rmtree(sparse / 'masks')
    assert tools.fail(*command, *given[:-4], '--out', tmp_path / 'b.py') == (
        f"error: --masks: there is no folder '{sparse}/masks'"
    )


def write_masks(root, masks, names=None):
    """Images and masks of 32 pixels a side, with these labels or images."""
    for i, mask in enumerate(masks):
        name = names[i] if names else f'{i}'
        for folder in ('images', 'masks'):
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        mask = (
            mask
            if isinstance(mask, Image.Image)
            else Image.fromarray(np.resize(mask, (32, 32)).astype(np.uint8))
        )
        mask.save(root / f'masks/{name}.png')
        Image.new('RGB', mask.size).save(root / f'images/{name}.jpg')
    return root / 'images', root / 'masks'


class TestMeanings:
    """What masks may mean that look alike."""

    def new(self, tmp_path, masks, **options):
        folders = write_masks(tmp_path, masks)
        options = {'weights': 'none', 'val_fraction': 0.5, **options}
        new('seg', *folders, tmp_path / 'my.py', **options)
        return load_config(str(tmp_path / 'my.py'))

    def refuse(self, tmp_path, masks, **options):
        with pytest.raises(UsageError) as error:
            self.new(tmp_path, masks, **options)
        assert not list(tmp_path.glob('my*'))
        return str(error.value)

    def test_a_label_has_one_meaning(self, tmp_path):
        masks = [[0, 1, 2]] * 2
        said = self.refuse(tmp_path, masks, ignore=['0'], classes='a:0,b:1,c:2')
        assert said == '--classes and --ignore: label 0 is given twice; give each one meaning'
        said = self.refuse(tmp_path, masks, ignore=['0'], classes='a,b,c')
        assert said.startswith('--classes has 3 names, and the masks have 2 labels: 1, 2; say what is stored')

    def test_a_class_that_does_not_occur(self, tmp_path):
        cfg = self.new(tmp_path, [[0, 2, 255]] * 2, classes='ground,road,car')
        assert cfg.load_labels.type == 'LoadAnnotations' and cfg.num_classes == 3

    @pytest.mark.parametrize('options', [{}, dict(ignore=['-1'])])
    def test_negative_labels_are_no_class(self, tmp_path, options):
        (tmp_path / 'masks').mkdir()
        (tmp_path / 'images').mkdir()
        for i in range(2):
            stored = np.resize([-1, 0, 1], (32, 32)).astype(np.int32)
            Image.fromarray(stored).save(tmp_path / f'masks/{i}.tif')
            Image.new('RGB', (32, 32)).save(tmp_path / f'images/{i}.png')
        folders = tmp_path / 'images', tmp_path / 'masks'
        new('seg', *folders, tmp_path / 'my.py', weights='none', val_fraction=0.5, **options)
        cfg = load_config(str(tmp_path / 'my.py'))
        assert (list(cfg.load_labels.labels), list(cfg.load_labels.ignore)) == ([0, 1], [-1])
        _, found = read_places(build(cfg), 0)
        np.testing.assert_array_equal(found, np.where(stored < 0, 255, stored))

    def test_all_greys(self, tmp_path):
        assert '256 different values' in self.refuse(tmp_path, [np.arange(256)] * 2)

    def test_one_class(self, tmp_path):
        said = self.refuse(tmp_path, [[0, 255]] * 2, ignore=['0'])
        assert said.startswith('the masks have one class, label 255, and a segmentor tells two or more apart')

    def test_palettes_of_their_own(self, tmp_path):
        masks = []
        for colour in ((255, 0, 0), (0, 255, 0)):
            image = Image.fromarray(np.resize([0, 1], (32, 32)).astype(np.uint8), 'P')
            image.putpalette([0, 0, 0, *colour])
            masks.append(image)
        said = self.refuse(tmp_path, masks)
        assert said.startswith(
            '--masks: palettes differ: index 1 is (255, 0, 0) in one map, (0, 255, 0) in another'
        )

    def test_transparency_is_no_label(self, tmp_path):
        labels = np.resize([0, 1], (32, 32)).astype(np.uint8)
        image = Image.fromarray(np.stack([labels, np.full_like(labels, 255)], -1), 'LA')
        cfg = self.new(tmp_path, [image] * 2)
        assert cfg.load_labels.type == 'mmmeta.LoadMappedLabels' and check(cfg) == []

    def test_several_files_for_an_image(self, tmp_path):
        folders = write_masks(tmp_path, [[0, 1]] * 2)
        for path in list(folders[1].iterdir()):
            shutil.copy(path, path.with_name(f'{path.stem}_color.png'))
        with pytest.raises(
            UsageError, match='has several files for an image, which end in .png and _color.png'
        ):
            new('seg', *folders, tmp_path / 'my.py')

    def test_masks_below_the_images(self, tmp_path):
        images, masks = write_masks(tmp_path, [[0, 1]] * 4)
        shutil.move(masks, images / 'masks')
        created = new('seg', images, images / 'masks', tmp_path / 'my.py', weights='none')
        assert len(created.files) == 2 and check(load_config(str(created.config))) == []

    def test_windows_where_images_are_large(self, sparse, tmp_path):
        options = dict(ignore=['0'], weights='none', force=True)
        for size, window in ((64, None), (512, 13)):
            new('seg', sparse / 'images', sparse / 'masks', tmp_path / 'my.py', size=size, **options)
            assert load_config(str(tmp_path / 'my.py')).model.backbone.get('window') == window

    def test_two_in_a_batch(self, tmp_path):
        assert self.new(tmp_path, [[0, 1]] * 2).train_dataloader.batch_size == 2


def test_turned_images(tmp_path):
    """Cameras store how an image is to be turned; masks and boxes are of the turned one."""
    (tmp_path / 'images').mkdir()
    (tmp_path / 'labels').mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(4):
        Image.new('RGB', (96, 64)).save(tmp_path / f'images/{i}.jpg', exif=exif)
        (tmp_path / f'labels/{i}.txt').write_text('0 0.5 0.5 0.5 0.5')
    created = new('det', tmp_path / 'images', tmp_path / 'labels', tmp_path / 'my.py', weights='none')
    content = json.loads(created.files[0].read_text())
    assert [content['images'][0][key] for key in ('height', 'width')] == [96, 64]
    assert content['annotations'][0]['bbox'] == [16, 24, 32, 48]


def test_parts_with_other_classes(tmp_path, imagenet_root):
    root = tmp_path / 'data'
    for part, names in (('train', 'abc'), ('val', 'ab')):
        for name in names:
            (root / part / name).mkdir(parents=True)
            for i in range(2):
                Image.new('RGB', (64, 64)).save(root / part / name / f'{i}.webp')
    (root / 'train/.hidden').mkdir()
    created = new('cls', root, out=tmp_path / 'my.py', weights='none')
    assert 'no image for validation is of c, whose accuracy is not measured' in created.assumed
    cfg = load_config(str(tmp_path / 'my.py'))
    assert check(cfg) == []
    assert [len(build(cfg, f'{part}_dataloader')) for part in ('train', 'val')] == [6, 4]
    # Its names are those that predictions have.
    model = build_model(str(tmp_path / 'my.py'), 'none')
    (prediction,) = predict(model, [str(root / 'val/a/0.webp')], tmp_path / 'out')
    assert {name for _, name, _ in prediction.rows} == {'a', 'b', 'c'}
    assert model.dataset_meta == dict(classes=['a', 'b', 'c'])  # which exported files have


class TestObjects:
    def write(self, tmp_path, name, objects, categories):
        """A file with an image of 64 pixels a side for each list of categories."""
        (tmp_path / 'images').mkdir(exist_ok=True)
        content = dict(
            images=[], annotations=[], categories=[dict(id=i, name=n) for i, n in categories.items()]
        )
        for i, parts in enumerate(objects):
            file_name = f'{name}{i}.jpg'
            Image.new('RGB', (64, 64)).save(tmp_path / 'images' / file_name)
            content['images'].append(dict(id=i, file_name=f'./{file_name}', height=64, width=64))
            for category in parts:
                part = dict(
                    id=len(content['annotations']), image_id=i, category_id=category, bbox=[8, 8, 32, 32]
                )
                content['annotations'].append(part)
        path = tmp_path / f'{name}.json'
        path.write_text(json.dumps(content))
        return path

    def test_what_a_part_lacks_is_added(self, tmp_path):
        """Categories of the other part, numbers from 1, areas."""
        train = self.write(tmp_path, 'train', [[1], [2]], {1: 'a', 2: 'b'})
        val = self.write(tmp_path, 'val', [[2], [3]], {2: 'b', 3: 'c'})
        options = dict(val_labels=val, weights='none')
        created = new('det', tmp_path / 'images', train, tmp_path / 'my.py', **options)
        cfg = load_config(str(tmp_path / 'my.py'))
        assert check(cfg) == [] and len(created.files) == 2
        assert cfg.train_dataloader.dataset.metainfo.classes == ('a', 'b', 'c')
        contents = [json.loads(path.read_text()) for path in created.files]
        assert [part['id'] for part in contents[0]['annotations']] == [1, 2]
        assert {category['name'] for category in contents[0]['categories']} == {'a', 'b', 'c'}

    def test_what_is_held_out_has_objects(self, tmp_path):
        path = self.write(tmp_path, 'all', [[1], [1], []], {1: 'a'})
        created = new('det', tmp_path / 'images', path, tmp_path / 'my.py', weights='none')
        val = next(json.loads(file.read_text()) for file in created.files if file.stem.endswith('val'))
        assert len(val['annotations']) == 1 and check(load_config(str(created.config))) == []

    def test_classes_that_are_no_categories(self, tmp_path):
        path = self.write(tmp_path, 'all', [[1], [1]], {1: 'balloon'})
        with pytest.raises(UsageError, match="--classes: no category is called 'baloon': is it 'balloon'?"):
            new('det', tmp_path / 'images', path, tmp_path / 'my.py', classes='baloon')

    @pytest.mark.parametrize('classes', [None, 'red,green', 'green,red', 'green'])
    @pytest.mark.parametrize('val', [{1: 'green', 2: 'red'}, {2: 'red', 1: 'green'}, {1: 'red', 2: 'green'}])
    def test_objects_keep_their_classes_in_any_order(self, tmp_path, classes, val):
        """MMDetection joins categories and classes by their position in the file."""
        files = {}
        for name, categories in (('train', {1: 'green', 2: 'red'}), ('val', val)):
            files[name] = self.write(tmp_path, name, [[1], [2]], categories)
        options = dict(val_labels=files['val'], val_images=tmp_path / 'images', weights='none')
        new('det', tmp_path / 'images', files['train'], tmp_path / 'my.py', classes=classes, **options)
        cfg = load_config(str(tmp_path / 'my.py'))
        for name, categories in (('train', {1: 'green', 2: 'red'}), ('val', val)):
            dataset = build(cfg, f'{name}_dataloader')
            for image in (dataset.get_data_info(i) for i in range(len(dataset))):
                own = categories[image['img_id'] + 1]  # image 0 has an object of category 1
                learnt = [dataset.metainfo['classes'][one['bbox_label']] for one in image['instances']]
                assert learnt == ([own] if classes != 'green' or own == 'green' else [])

    def test_classes_in_another_order_than_the_file_are_refused(self, tmp_path):
        path = self.write(tmp_path, 'all', [[1], [2]], {1: 'green', 2: 'red'})
        new('det', tmp_path / 'images', path, tmp_path / 'my.py', weights='none', val_labels=path)
        cfg = load_config(str(tmp_path / 'my.py'))
        cfg.train_dataloader.dataset.metainfo.classes = ('red', 'green')
        texts = [finding.text for finding in check(cfg) if finding.key == 'train_dataloader.dataset']
        assert len(texts) == 1 and texts[0].startswith(
            f"'{cfg.train_dataloader.dataset.ann_file}' orders its categories green, red, and CocoDataset "
            "its classes red, green: MMDetection joins them by position, and 'green' would be learnt as "
            "'red'; write metainfo=dict(classes=...)"
        )

    def test_boxes_that_are_not_learnt_are_counted(self, tmp_path):
        path = self.write(tmp_path, 'all', [[1] * 12, [1] * 12], {1: 'a'})
        content = json.loads(path.read_text())
        for part, box in zip(
            content['annotations'], ([64, 0, 9, 9], [0, -9, 9, 9], [9, 9, 0, 9]), strict=False
        ):
            part['bbox'] = box
        path.write_text(json.dumps(content))
        created = new('det', tmp_path / 'images', path, tmp_path / 'my.py', weights='none')
        said = '21 objects and 1 boxes without a size and 2 boxes outside of their images in the format of'
        assert said in created.facts[0]

    def test_names_of_windows(self, tmp_path, monkeypatch):
        """Backslashes part folders where such a file is there; a name that has them is left alone."""
        path = self.write(tmp_path, 'all', [[1], [1]], {1: 'a'})
        text = path.read_text().replace('./all0', 'images\\\\all0')
        path.write_text(text.replace('./all1', 'images\\\\own\\\\all1'))
        (tmp_path / 'images/all1.jpg').rename(tmp_path / 'images\\own\\all1.jpg')
        with pytest.raises(UsageError) as error:
            new('det', tmp_path / 'images', path, tmp_path / 'my.py', weights='none')
        assert str(error.value).endswith(
            f"not below '{tmp_path}/images', such as 'images/all0.jpg': they are below '{tmp_path}', give "
            'that (--images)'
        )
        created = new('det', tmp_path, path, tmp_path / 'my.py', weights='none')
        assert 'backslashes in file_name of 1 images part folders, as on Windows' in created.assumed
        cfg = load_config(str(created.config))
        assert check(cfg) == []
        # Without `new`.
        path = tmp_path / 'my_train.json'
        path.write_text(path.read_text().replace('images/', 'images\\\\'))
        cfg.train_dataloader.dataset.data_prefix = dict(img='images/')
        (text,) = [finding.text for finding in check(cfg) if finding.key == 'train_dataloader.dataset']
        assert text.endswith(
            "backslashes part folders on Windows alone; write 'all0.jpg' in place of 'images\\all0.jpg', and "
            'so for all (as python -m mmmeta new does)'
        )

    def test_crowds_have_no_outlines_to_learn(self, tmp_path):
        path = self.write(tmp_path, 'all', [[1], [1]], {1: 'a'})
        content = json.loads(path.read_text())
        for part in content['annotations']:
            part['iscrowd'] = 1
        path.write_text(json.dumps(content))
        created = new('det', tmp_path / 'images', path, tmp_path / 'my.py', weights='none')
        assert 'with 0 objects and 2 crowds (iscrowd: 1) in the format of COCO' in created.facts[0]
        assert load_config(str(tmp_path / 'my.py')).model.type == 'RetinaNet'


def test_a_config_with_mapped_labels_predicts(sparse, tmp_path):
    new('seg', sparse / 'images', sparse / 'masks', tmp_path / 'my.py', ignore=['0'], weights='none', size=64)
    model = build_model(str(tmp_path / 'my.py'), 'none')
    image = str(min((sparse / 'images/val').iterdir()))
    (prediction,) = predict(model, [image], tmp_path / 'out')
    assert prediction.rows and all(name.startswith('class_') for name, _ in prediction.rows)
    assert draw_cam(model, image, tmp_path / 'cam.png').startswith('class_')


def test_a_config_of_objects_predicts(coco_root, tmp_path):
    file = coco_root / 'annotations/instances_train2017.json'
    new('det', coco_root / 'train2017', file, tmp_path / 'my.py', weights='none', backbone='poolformer_s12')
    model = build_model(str(tmp_path / 'my.py'), 'none')
    (prediction,) = predict(model, [str(min((coco_root / 'val2017').iterdir()))], tmp_path, score_thr=0.0)
    assert {name for name, *_ in prediction.rows} <= set(model.dataset_meta['classes'])
