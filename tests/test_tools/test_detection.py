"""The real command lines with a detector, and a user's mistakes with data in COCO's format."""

import json
import os
import shutil
import sys

import pytest
import torch
from conftest import ROOT, losses, metrics
from PIL import Image

from mmmeta.config.adaptation import adapt_to_device
from mmmeta.config.loading import load_config


def test_training_is_resumed_as_if_it_had_not_been_interrupted(det_tools, tmp_path):
    det_tools.train(tmp_path / 'whole')
    det_tools.train(tmp_path / 'parts', options=['train_cfg.max_epochs=1'])
    det_tools.train(tmp_path / 'parts', '--resume')
    expected, found = losses(tmp_path / 'whole'), losses(tmp_path / 'parts')
    assert list(expected) == list(range(1, 11))
    assert found == expected
    whole, parts = (
        torch.load(tmp_path / name / 'epoch_2.pth', weights_only=True)['state_dict']
        for name in ('whole', 'parts')
    )
    assert all(torch.equal(parts[key], value) for key, value in whole.items())

    test = (sys.executable, 'tools/test.py', det_tools.config, tmp_path / 'whole/epoch_2.pth')
    pictures = tmp_path / 'pictures'
    # Scores are small after ten iterations; what is drawn and measured is all of it.
    options = ('model.test_cfg.rcnn.score_thr=0.0', 'default_hooks.visualization.score_thr=0.0')
    det_tools.run(
        *test,
        '--work-dir',
        tmp_path / 'test',
        '--show-dir',
        os.path.relpath(pictures),  # of the folder that commands are run in
        '--cfg-options',
        *det_tools.data_options,
        *options,
    )
    found = metrics(tmp_path / 'test')
    assert {f'coco/{kind}_mAP_50' for kind in ('bbox', 'segm')} <= found.keys()
    drawn = sorted(pictures.glob('*.jpg'))
    assert len(drawn) == 4
    with (
        Image.open(det_tools.data_root / 'val2017' / drawn[0].name) as image,
        Image.open(drawn[0]) as picture,
    ):
        # Annotation and prediction beside each other.
        assert picture.size == (2 * image.width, image.height)


def test_nothing_is_detected(det_tools, tmp_path):
    """MMDetection leaves out all values; here AP is 0, and the log says why."""
    command = (sys.executable, 'tools/test.py', det_tools.config, 'none', '--work-dir', tmp_path / 'test')
    det_tools.run(*command, '--cfg-options', *det_tools.data_options, 'model.test_cfg.rcnn.score_thr=1.0')
    found = {key: value for key, value in metrics(tmp_path / 'test').items() if key.startswith('coco/')}
    sizes = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
    assert found == {f'coco/{kind}_{size}': 0.0 for kind in ('bbox', 'segm') for size in sizes}
    (record,) = (tmp_path / 'test').glob('*/record_test.json')
    assert json.loads(record.read_text())['metrics']['coco/bbox_mAP'] == 0.0
    (log,) = (tmp_path / 'test').glob('*/*.log')
    assert (
        'nothing was detected in any image, no score reaches score_thr=1.0: coco/bbox_mAP is 0'
        in log.read_text()
    )


def test_two_processes_train_and_test(det_tools, tmp_path):
    options = ('--cfg-options', *det_tools.data_options, 'train_cfg.max_epochs=1')
    det_tools.run('tools/dist_train.sh', det_tools.config, 2, '--work-dir', tmp_path / 'two', *options)
    # Ten images in five batches of one image for each process.
    assert list(losses(tmp_path / 'two')) == list(range(1, 4))
    checkpoint = tmp_path / 'two/epoch_1.pth'
    options = (*options, 'model.test_cfg.rcnn.score_thr=0.0')
    one = (sys.executable, 'tools/test.py', det_tools.config, checkpoint)
    two = ('tools/dist_test.sh', det_tools.config, checkpoint, 2)
    results = []
    for work_dir, command in ((tmp_path / 'test1', one), (tmp_path / 'test2', two)):
        det_tools.run(*command, '--work-dir', work_dir, *options)
        results.append({key: value for key, value in metrics(work_dir).items() if key.startswith('coco/')})
    assert results[0] == results[1]
    assert results[0]


def test_amp_on_a_cpu(det_tools, tmp_path):
    command = (sys.executable, 'tools/train.py', det_tools.config, '--work-dir', tmp_path / 'work', '--amp')
    message = det_tools.fail(*command, '--cfg-options', *det_tools.data_options)
    assert message == (
        "error: --amp on a CPU means bfloat16, which MMCV's operators of detectors lack: leave it out"
    )
    assert not (tmp_path / 'work').exists()


def test_mixed_precision_of_a_config_is_float32_on_a_cpu(det_tools):
    options = {'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.loss_scale': 'dynamic'}
    cfg = load_config(det_tools.config, options)
    adapt_to_device(cfg)
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert 'loss_scale' not in cfg.optim_wrapper


class TestBadData:
    """Each on a copy of the data set."""

    @pytest.fixture
    def data(self, det_tools, tmp_path):
        shutil.copytree(det_tools.data_root, tmp_path / 'coco')
        return tmp_path / 'coco'

    @pytest.fixture
    def edit(self, data):
        def edit(change, split='train'):
            path = data / f'annotations/instances_{split}2017.json'
            content = json.loads(path.read_text())
            change(content)
            path.write_text(json.dumps(content))
            return str(path)

        return edit

    @pytest.fixture
    def command(self, det_tools, data, tmp_path):
        old, new = str(det_tools.data_root), str(data)
        options = [option.replace(old, new) for option in det_tools.data_options]
        train = (sys.executable, 'tools/train.py', det_tools.config, '--work-dir', tmp_path / 'work')
        return (*train, '--cfg-options', *options)

    def test_a_category_that_the_data_set_does_not_know(self, det_tools, edit, command):
        path = edit(lambda content: content['annotations'][0].update(category_id=12))
        message = det_tools.fail(*command)
        assert (
            f"'{path}' has objects of the categories 12, which are no classes of CocoDataset: correct"
            in message
        )

    def test_a_category_that_is_not_listed(self, det_tools, edit, command):
        path = edit(lambda content: content['categories'].pop(22), split='val')
        message = det_tools.fail(*command)
        assert f"'{path}' lists 79 of the 80 classes of CocoDataset, not 'zebra': give it all" in message

    def test_a_category_that_is_misspelt(self, det_tools, edit, command):
        edit(lambda content: content['categories'][22].update(name='zebar'))
        assert "CocoDataset, not 'zebra' (is it 'zebar'?): give it all categories" in det_tools.fail(*command)

    def test_some_classes_of_the_file(self, det_tools, tmp_path, edit, command):
        # Named on purpose, the others are left out; this is no mistake.
        config = tmp_path / 'two_classes.py'
        config.write_text(
            f"_base_ = '{ROOT}/{det_tools.config}'\n"
            "metainfo = dict(classes=('kite', 'tv'))\n"  # in the order of the file
            'train_dataloader = dict(dataset=dict(metainfo=metainfo))\n'
            'val_dataloader = test_dataloader = dict(dataset=dict(metainfo=metainfo))\n'
            'model = dict(roi_head=dict(bbox_head=dict(num_classes=2), mask_head=dict(num_classes=2)))\n'
            'train_cfg = dict(max_epochs=1)\n'
        )
        det_tools.run(*command[:2], config, *command[3:])

    def test_an_image_that_is_missing(self, det_tools, data, edit, command):
        image = data / 'train2017/000000000003.jpg'
        image.unlink()
        message = det_tools.fail(*command)
        assert f"lists 1 images that are not there, such as '{image}': add them" in message

    @pytest.mark.parametrize('content', [b'no image', b'', None])
    def test_a_damaged_image(self, det_tools, data, command, content, tmp_path):
        # The last but one of the batches, in a worker process.
        image = data / 'train2017/000000000003.jpg'
        image.write_bytes(image.read_bytes()[:600] if content is None else content)
        message = det_tools.fail(*command)
        assert (
            message
            == f"error: '{image}' is damaged or not an image: get it again, or take it out of the data set"
        )

    @pytest.mark.parametrize('key', ['annotations', 'images'])
    def test_nothing_annotated(self, det_tools, edit, command, key):
        path = edit(lambda content: content.update({'annotations': [], key: []}))
        assert f"no image is left of '{path}': it lists none, or none with an" in det_tools.fail(*command)

    def test_not_in_the_format(self, det_tools, data, edit, command):
        path = edit(lambda content: content['images'][0].pop('file_name'))
        message = f"'{path}' is not in the format of its data set ("
        assert f"{message}KeyError: 'file_name')" in det_tools.fail(*command)
        (data / 'annotations/instances_train2017.json').write_text('{"images": [')
        assert f'{message}JSONDecodeError: ' in det_tools.fail(*command)

    def test_annotations_of_the_metric(self, det_tools, data, command, tmp_path):
        other = 'val_evaluator.ann_file=' + str(det_tools.data_root / 'annotations/instances_val2017.json')
        message = det_tools.fail(*command, other)
        assert 'val_evaluator would compare with' in message
        assert 'set val_evaluator.ann_file to the same file' in message
        message = det_tools.fail(*command, 'val_evaluator.ann_file=/no/where.json')
        assert message == (
            "error: the annotations of val_evaluator are missing: looked for '/no/where.json'; "
            'set val_evaluator.ann_file'
        )
        assert not (tmp_path / 'work').exists()

    def test_a_window_that_is_none(self, det_tools, command, tmp_path):
        message = det_tools.fail(*command, 'model.backbone.window=12')
        assert 'window=12: a sliding window has a token in its middle, give odd numbers' in message
        assert "window='wide': give a positive" in det_tools.fail(*command, 'model.backbone.window=wide')
        assert not (tmp_path / 'work').exists()

    def test_boxes_outside_the_image(self, det_tools, edit, data):
        """One that is all outside is left out, one that reaches over the border is cut there."""
        from mmengine.registry import DATASETS, init_default_scope

        from mmmeta.config.loading import load_config

        def change(content):
            by_image = {}
            for annotation in content['annotations']:
                if not annotation['iscrowd']:
                    by_image.setdefault(annotation['image_id'], []).append(annotation)
            content['annotations'] = next(group[:2] for group in by_image.values() if len(group) > 1)
            for annotation, corner in zip(content['annotations'], (5000, -20), strict=True):
                annotation['bbox'] = [corner, corner, 60, 60]

        edit(change)
        cfg = load_config(det_tools.config)
        init_default_scope('mmdet')
        cfg.train_dataloader.dataset.data_root = str(data)
        (item,) = DATASETS.build(cfg.train_dataloader.dataset)
        (box,) = item['data_samples'].gt_instances.bboxes.tensor.tolist()
        scale = item['data_samples'].scale_factor[0]
        assert box == pytest.approx([0, 0, 40 * scale, 40 * scale], rel=0.02)
