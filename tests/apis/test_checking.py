"""Mistakes in configs and data are found, and right ones are left alone."""

import json
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, TINY_CONFIG
from mistakes.configs import CASCADE, CLASSIFIER, DETECTOR, FPN, MISTAKES, RETINANET, SEGMENTOR
from mistakes.data import DATA_MISTAKES
from mistakes.run import generate_all, on_data, packages_configs, run_data_mistake, run_right, run_unusual
from mmengine.registry import DATASETS, MODELS, init_default_scope
from PIL import Image
from torch.utils.data import DataLoader

from mmmeta.analysis.forecasting import TrainingStep
from mmmeta.apis import check, forecast
from mmmeta.config.building import check_backbone
from mmmeta.config.data import explain_data_errors
from mmmeta.config.loading import load_config
from mmmeta.datasets import generate_ade20k, generate_coco
from mmmeta.utils.errors import UsageError
from mmmeta.validation import check_config, check_while_reading, examine
from mmmeta.validation.objects import check_sample


# A sample of what tests/mistakes/run.py checks.
@pytest.mark.parametrize('mistake', MISTAKES[::2], ids=lambda m: f'{m.key}-{m.text[:20]}')
def test_a_mistake_is_found(mistake):
    config = load_config(mistake.path, dict(mistake.options))
    (finding,) = check_config(config)
    assert (finding.key, finding.is_warning) == (mistake.key, mistake.is_warning)
    assert mistake.text in finding.text


def test_what_our_backbone_refuses_is_found_in_its_words():
    cfg = load_config(str(ROOT / SEGMENTOR), {'model.backbone.out_indices': (0, 9)})
    (finding,) = check_config(cfg)
    with pytest.raises(UsageError) as error:
        check_backbone(cfg)
    assert (finding.key, finding.text, finding.is_fatal) == ('model.backbone', str(error.value), True)


@pytest.mark.parametrize('config', [SEGMENTOR, DETECTOR, CLASSIFIER, FPN, RETINANET, CASCADE])
def test_right_configs_are_left_alone(config):
    assert check_config(load_config(str(ROOT / config))) == []


@pytest.mark.parametrize('i', range(len(DATA_MISTAKES)), ids=lambda i: DATA_MISTAKES[i].name)
def test_a_mistake_in_data_is_found(i, monkeypatch):
    if not DATA_MISTAKES[i].options:  # the config is right, as the test above has it
        monkeypatch.setitem(examine.__globals__, 'check_config', lambda cfg: [])
    assert run_data_mistake(i) == (DATA_MISTAKES[i].name, None)


def test_right_configs_of_the_packages_are_left_alone(tmp_path):
    for package in ('mmdet', 'mmseg', 'mmpretrain'):
        pytest.importorskip(package, reason='its configs are checked')
    generate_all(tmp_path)
    for config in packages_configs(6, seed=1):
        assert run_right((config, str(tmp_path))) == (config, None)


@pytest.mark.nightly
def test_right_configs_of_other_images_and_styles_are_left_alone(tmp_path):
    found = run_unusual(str(tmp_path))
    assert len(found) >= 30 and [one for one in found if one[1]] == []


@pytest.fixture
def data(tmp_path):
    """A data set in ADE20K's layout, and the maps of its training images."""
    root = generate_ade20k(tmp_path, 6, 2, 64)
    return root, sorted((root / 'annotations/training').iterdir())


def check_data_of(root, **options):
    """Findings, with four classes of which the generated data have the first, unless others are given."""
    loaders = ('train_dataloader', 'val_dataloader')
    given = {f'{loader}.dataset.data_root': str(root) for loader in loaders}
    return check(load_config(str(ROOT / TINY_CONFIG), {**given, **options}))


def rewrite(path, change):
    with Image.open(path) as image:
        labels = np.asarray(image)
    Image.fromarray(change(labels)).save(path)


class TestLabels:
    def test_right_ones(self, data):
        assert check_data_of(data[0]) == []

    def test_out_of_range(self, data):
        """By one: the number of the classes."""
        root, maps = data
        rewrite(maps[2], lambda labels: np.where(labels == labels.max(), 151, labels).astype(np.uint8))
        (finding,) = check_data_of(root)
        assert finding.key == 'train_dataloader.dataset.pipeline'
        assert finding.text == (
            f"'{maps[2]}' has the label 151, and 150 classes are labels from 1 to 150 (reduce_zero_label "
            'lowers what is stored by one), with 255 for what is ignored; out of range are 151. Map them, or '
            'set num_classes'
        )

    def test_out_of_range_while_training(self, data):
        """In a map that was not looked at when the run started."""
        root, maps = data
        rewrite(maps[2], lambda labels: np.where(labels == labels.max(), 151, labels).astype(np.uint8))
        options = {'train_dataloader.dataset.data_root': str(root)}
        cfg = load_config(str(ROOT / TINY_CONFIG), options)
        init_default_scope('mmseg')
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        check_while_reading(cfg, dataset)
        loader = DataLoader(dataset, num_workers=1, collate_fn=list)
        with pytest.raises(UsageError) as error, explain_data_errors(cfg, ['train_dataloader']):
            list(loader)
        assert str(error.value) == (
            f"'{maps[2]}' has the label 151, and 150 classes are labels from 1 to 150 (reduce_zero_label "
            'lowers what is stored by one), with 255 for what is ignored'
        )

    def test_colours(self, data):
        root, maps = data
        rewrite(maps[0], lambda labels: np.stack([labels] * 3, -1))
        (finding,) = check_data_of(root)
        assert f"'{maps[0]}' is a colour image of shape (64, " in finding.text
        assert 'one channel with the number of the class at each pixel: convert them' in finding.text

    def test_another_size(self, data):
        root, maps = data
        rewrite(maps[0], lambda labels: labels[:32, :48])
        (finding,) = check_data_of(root)
        assert finding.text.startswith(f"'{maps[0]}' has 32x48 pixels, and its image 64x")

    def test_missing(self, data):
        root, maps = data
        for path in maps[1:3]:
            path.unlink()
        (finding,) = check_data_of(root)
        assert finding.text.startswith(
            f"2 of 6 images of train_dataloader have no annotation map, such as '{maps[1]}': add them"
        )

    def test_another_suffix(self, data):
        root, _ = data
        folder = root / 'images/training'
        for path in folder.iterdir():
            path.rename(path.with_suffix('.jpeg'))
        with pytest.raises(UsageError) as error:
            check_data_of(root)
        assert str(error.value) == (
            f"no file in '{folder}' ends in '.jpg', which train_dataloader looks for, but in .jpeg: write "
            "train_dataloader.dataset.img_suffix='.jpeg'"
        )

    def test_images_smaller_than_the_stride(self, data):
        (finding,) = check_data_of(data[0], **{'val_dataloader.dataset.pipeline.1.scale': (30, 30)})
        assert finding.key == 'val_dataloader.dataset.pipeline'
        assert 'pixels, and the backbone needs 32x32 at least: resize to more' in finding.text

    def test_validation_batches_of_several_sizes(self, data):
        root, _ = data
        image, labels = (
            min(path for path in (root / kind).iterdir())
            for kind in ('images/validation', 'annotations/validation')
        )
        for path in (image, labels):
            with Image.open(path) as opened:
                opened.crop((0, 0, 64, 128)).save(path)
        assert check_data_of(root) == []
        (finding,) = check_data_of(root, **{'val_dataloader.batch_size': 2})
        assert finding.key == 'val_dataloader.batch_size'
        assert f"'{image}' of " in finding.text
        assert finding.text.endswith('write val_dataloader.batch_size=1, and in test_dataloader too')
        same = {'val_dataloader.dataset.pipeline.1.keep_ratio': False}
        assert check_data_of(root, **{'val_dataloader.batch_size': 2}, **same) == []

    def test_0_and_255(self, data):
        root, _ = data
        for path in root.glob('annotations/*/*'):
            rewrite(path, lambda labels: np.where(labels > labels.mean(), 255, 0).astype(np.uint8))
        options = {}
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            options[f'{loader}.dataset.metainfo.classes'] = ('wall', 'road')
            options[f'{loader}.dataset.reduce_zero_label'] = False
        for head in ('decode_head', 'auxiliary_head'):
            options[f'model.{head}.num_classes'] = 2
        pipelines = [f'{loader}.dataset.pipeline' for loader in ('train_dataloader', 'val_dataloader')]
        lowered = [f'{pipelines[0]}.1', f'{pipelines[1]}.2', 'test_dataloader.dataset.pipeline.2']
        options.update({f'{transform}.reduce_zero_label': False for transform in lowered})
        findings = check_data_of(root, **options)
        assert [finding.key for finding in findings] == pipelines
        assert "class 1 ('road') never occurs; store 1 in place of 255" in findings[0].text


@pytest.fixture
def objects(tmp_path):
    """A data set in COCO's layout, and its options."""
    root = generate_coco(tmp_path, 6, 2, 96, progress=lambda message: None)
    return root, on_data(DETECTOR, root)


def rewrite_objects(root, split, change):
    path = root / f'annotations/instances_{split}2017.json'
    content = json.loads(path.read_text())
    change(content['annotations'])
    path.write_text(json.dumps(content))


def test_a_run_looks_at_some_objects_when_it_starts(objects):
    pytest.importorskip('mmdet', reason="detectors are MMDetection's")
    root, options = objects
    cfg = load_config(str(ROOT / DETECTOR), options)
    init_default_scope('mmdet')
    assert list(check_sample('train_dataloader', DATASETS.build(cfg.train_dataloader.dataset))) == []
    rewrite_objects(root, 'train', lambda objects: [one.update(iscrowd=1) for one in objects])
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    (finding,) = check_sample('train_dataloader', dataset)
    assert 'are crowds (iscrowd: 1), from which nothing is learnt' in finding.text
    rewrite_objects(root, 'train', lambda objects: objects[0].update(bbox=[-20, 1, 20, 9]))
    (*_, outside) = check_sample('train_dataloader', dataset)
    assert ' lie outside of their image, such as object 1 with bbox=[-20, 1, 20, 9] in ' in outside.text
    assert outside.is_warning
    rewrite_objects(root, 'train', lambda objects: objects[0].update(bbox=[-19, 1, 20, 9]))
    path = dataset.get_data_info(0)['img_path']
    with Image.open(path) as image:
        image.resize((image.width // 2, image.height // 2)).save(path)
    sizes, _ = check_sample('train_dataloader', dataset)
    assert f"gives '{path}' width=" in sizes.text
    repeated = dict(type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset)
    assert len(list(check_sample('train_dataloader', DATASETS.build(repeated)))) == 2


def test_a_run_does_not_start_with_a_polygon_that_ends_its_validation(det_tools, objects, tmp_path):
    root, options = objects
    rewrite_objects(root, 'val', lambda objects: objects[0].update(segmentation=[[1, 1, 9, 9]]))
    command = (sys.executable, 'tools/train.py', det_tools.config, '--work-dir', tmp_path / 'work')
    message = det_tools.fail(*command, '--cfg-options', *(f'{key}={value}' for key, value in options.items()))
    assert 'has a polygon (segmentation) that is not x and y of three points or more' in message
    assert not list((tmp_path / 'work').rglob('*.pth'))


def test_packages_that_are_not_installed(monkeypatch):
    pipeline = 'train_dataloader.dataset.pipeline.0'
    options = {
        'visualizer.vis_backends': [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
        f'{pipeline}.imdecode_backend': 'tifffile',
    }
    for installed, keys in (
        (True, []),
        (False, ['visualizer.vis_backends.1', 'train_dataloader.dataset.pipeline']),
    ):
        monkeypatch.setattr(
            'mmmeta.validation.packages.find_spec', lambda name, there=installed: there or None
        )
        findings = check_config(load_config(str(ROOT / TINY_CONFIG), dict(options)))
        assert [finding.key for finding in findings] == keys
        assert all('pip install ' in finding.text and finding.is_fatal for finding in findings)


def test_padding_that_the_loss_leaves_out_is_left_alone():
    options = {
        'model.decode_head.ignore_index': 0,
        'model.data_preprocessor.seg_pad_val': 0,
        'val_evaluator.ignore_index': 0,
    }
    assert check_config(load_config(str(ROOT / FPN), options)) == []
    # All images of this pipeline are of one size, so that none is padded.
    heads = {f'model.{head}.ignore_index': 0 for head in ('decode_head', 'auxiliary_head')}
    assert check_config(load_config(str(ROOT / TINY_CONFIG), heads)) == []


def test_the_command_line(tools):
    command = (sys.executable, '-m', 'mmmeta', 'check', TINY_CONFIG, '--cfg-options', *tools.data_options)
    assert 'no mistakes were found; looked at: the config (' in tools.run(*command)
    process = tools.finish(*command, 'train_cfg.max_iter=9', 'optim_wrapper.optimizer.type=SGD')
    assert process.returncode == 1
    error, warning, count = process.stdout.splitlines()[-3:]
    assert error.startswith("error: IterBasedTrainLoop takes no argument 'max_iter' (train_cfg.max_iter): ")
    assert warning.startswith("warning: optim_wrapper.optimizer.type='SGD': ")
    assert count.startswith('1 error, 1 warning; looked at: the config (')
    assert count.endswith(', no data')
    process = tools.finish(*command[:4], '--json', *command[4:], 'optim_wrapper.optimizer.type=SGD')
    assert process.returncode == 0  # a warning alone
    (finding,) = json.loads(process.stdout[process.stdout.index('[\n') :])
    assert (finding['key'], finding['is_warning']) == ('optim_wrapper.optimizer.type', True)


def test_annotations_of_objects(det_tools, tmp_path):
    root = tmp_path / 'coco'
    shutil.copytree(det_tools.data_root, root)
    path = root / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['categories'][22]['name'] = 'zebar'
    path.write_text(json.dumps(content))
    options = [option.replace(str(det_tools.data_root), str(root)) for option in det_tools.data_options]
    findings = check(load_config(str(ROOT / DETECTOR), dict(option.split('=', 1) for option in options)))
    assert [finding.key for finding in findings] == ['train_dataloader.dataset']
    assert "not 'zebra' (is it 'zebar'?)" in findings[0].text


class TestToleratedAnnotations:
    """What MMDetection reads is no error."""

    @pytest.mark.parametrize(
        ('change', 'text'),
        [
            (lambda c: c['images'].pop(0), 'which is not there'),
            (lambda c: c['annotations'][0].update(id=0), "which COCO's metric takes for none"),
            (lambda c: c['annotations'][0].update(ignore=1, area=None), None),
            (lambda c: [part.pop('iscrowd') for part in c['annotations']], None),
        ],
    )
    def test_files(self, det_tools, tmp_path, change, text):
        root = tmp_path / 'coco'
        shutil.copytree(det_tools.data_root, root)
        path = root / 'annotations/instances_train2017.json'
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        options = [option.replace(str(det_tools.data_root), str(root)) for option in det_tools.data_options]
        findings = check(load_config(str(ROOT / DETECTOR), dict(option.split('=', 1) for option in options)))
        assert [text in finding.text for finding in findings] == [True] * (text is not None)
        assert all(finding.is_warning for finding in findings)

    def test_schedulers_that_wait_or_are_converted(self):
        for scheduler in (
            dict(type='ReduceOnPlateauLR', monitor='mIoU', by_epoch=True),
            dict(type='LinearLR', by_epoch=True, convert_to_iter_based=True, begin=0, end=1),
        ):
            cfg = load_config(str(ROOT / SEGMENTOR))
            cfg.param_scheduler = [scheduler]
            assert check_config(cfg) == []

    def test_palettes_that_are_longer(self):
        options = {'train_dataloader.dataset.metainfo.palette': [[0, 0, 0]] * 151}
        assert check_config(load_config(str(ROOT / SEGMENTOR), options)) == []


class TestForecast:
    def options(self, root):
        return {'train_dataloader.dataset.data_root': str(root)}

    def test_larger_batches_are_on_the_line(self, ade_root):
        """What is forecast for a batch is what is counted with it."""
        cfg = load_config(str(ROOT / TINY_CONFIG), self.options(ade_root))
        found = forecast(cfg)
        assert (found.batch_sizes, found.precision, found.device) == ((2, 3), 'float32', 'cpu')
        assert found.shape[0] == 3 and found.images_per_second > 0
        weights = sum(p.numel() for p in MODELS.build(cfg.model).parameters())
        # Weights and two moments of AdamW; gradients come when activations go.
        assert found.peak_of(0) == pytest.approx(3 * 4 * weights, rel=0.05)
        model = replace(found, memory=int(found.peak_of(7) / 0.9) + 1)
        assert model.largest_batch == 7
        assert replace(model, memory=1000).largest_batch == 0
        step = TrainingStep(cfg)
        step.run(2)  # makes the state of the optimiser
        assert step.count(6) == pytest.approx(found.peak_of(6), rel=0.02)

    def test_the_command_line(self, tools):
        command = (sys.executable, '-m', 'mmmeta', 'check', TINY_CONFIG, '--forecast', '--cfg-options')
        out = tools.run(*command, *tools.data_options)
        assert 'no mistakes were found; looked at: the config (' in out
        assert re.search(
            r'memory: 0\.0\d GiB for a batch of 2, .* each image of 64x64 more; float32, cpu', out
        )
        assert re.search(r'speed: [\d.]+ images/s in a batch of 3, without loading them', out)
        assert re.search(r'largest batch: \d+ in 90 % of [\d.]+ GiB, extrapolated', out)

    def test_nothing_to_train(self):
        cfg = load_config(str(ROOT / TINY_CONFIG))
        cfg.optim_wrapper = None
        with pytest.raises(UsageError, match='has no optim_wrapper: nothing can be trained'):
            forecast(cfg)
