"""Tools that draw: predictions, data, class activation maps, confusion."""

import csv
import json
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_CONFIG, metrics
from mmengine.registry import init_default_scope
from PIL import Image

from mmmeta.apis.inference import build_model, predict
from mmmeta.config.loading import load_config
from mmmeta.registry import MODELS
from mmmeta.runtime.run import LEAST
from mmmeta.utils.errors import UsageError
from mmmeta.visualization.browsing import browse
from mmmeta.visualization.cam import METHODS, draw_cam
from mmmeta.visualization.pictures import GAP, TITLE, free_folder, free_path

DETECTOR = 'tests/data/tiny_mask_rcnn.py'


def save_random(config, path):
    """A checkpoint of a config's model with random weights."""
    cfg = load_config(config)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    torch.save({'state_dict': MODELS.build(cfg.model).state_dict()}, path)
    return path


@pytest.fixture(scope='module')
def segmentor(tools, tmp_path_factory):
    return save_random(TINY_CONFIG, tmp_path_factory.mktemp('weights') / 'segmentor.pth')


@pytest.fixture(scope='module')
def detector(det_tools, tmp_path_factory):
    return save_random(DETECTOR, tmp_path_factory.mktemp('weights') / 'detector.pth')


@pytest.fixture(scope='module')
def image(tools):
    return sorted((tools.data_root / 'images/validation').iterdir())[0]


def panels_of(picture, size):
    """The two pictures of a size, enlarged, that are beside each other in one."""
    scale = -(-LEAST // max(size))
    width, height = (side * scale for side in size)
    assert picture.size == (2 * width + 3 * GAP, height + TITLE + GAP)
    pixels = np.asarray(picture)[TITLE : TITLE + height]
    return pixels[:, GAP : GAP + width], pixels[:, 2 * GAP + width : 2 * (GAP + width)]


class TestImageDemo:
    def test_segments(self, tools, segmentor, image, tmp_path):
        command = (sys.executable, 'tools/image_demo.py', image.parent, TINY_CONFIG, segmentor)
        out = tools.run(*command, '--out-dir', tmp_path, '--top', '1', COLUMNS='200')
        assert '(4 of 4)' in out
        names = {path.stem for path in image.parent.iterdir()}
        assert {path.stem for path in tmp_path.glob('*.png')} == names
        with Image.open(image) as source, Image.open(tmp_path / f'{image.stem}.png') as picture:
            left, right = panels_of(picture, source.size)
            scale = -(-LEAST // max(source.size))
            np.testing.assert_array_equal(left[::scale, ::scale], np.asarray(source.convert('RGB')))
            assert max(left.shape) >= LEAST and (left != right).any()
        # What it prints is what the network sees, at the size of the image.
        from mmseg.apis import inference_model

        model = build_model(TINY_CONFIG, str(segmentor))
        model.cfg.test_pipeline = model.cfg.test_dataloader.dataset.pipeline
        labels = inference_model(model, str(image)).pred_sem_seg.data
        label = int(labels.flatten().mode().values)
        share = (labels == label).float().mean().item()
        row = next(line for line in out.splitlines() if model.dataset_meta['classes'][label] in line)
        assert f'{share:.1%}' in row

    def test_objects(self, det_tools, detector, image, tmp_path):
        model = build_model(DETECTOR, str(detector), options={'model.test_cfg.rcnn.score_thr': 0.0})
        (none,) = predict(model, [str(image)], tmp_path / 'none', score_thr=1.0)
        (found,) = predict(model, [str(image)], tmp_path / 'all', score_thr=0.0)
        assert none.rows == []
        # The head's own threshold, 0.05, hides nothing that is asked for.
        (again,) = predict(build_model(DETECTOR, str(detector)), [str(image)], tmp_path / 'a', score_thr=0.0)
        assert again.rows == found.rows
        assert sum(int(count) for _, count, _ in found.rows) <= 10
        assert all(0 < float(score) <= 1 for _, _, score in found.rows)
        with (
            Image.open(image) as source,
            Image.open(none.picture) as plain,
            Image.open(found.picture) as drawn,
        ):
            image, nothing = panels_of(plain, source.size)
            # Every pixel is one of the image's: before version 3.11 Matplotlib shifts some by one or two.
            places = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
            equal = [(np.roll(image, place, (0, 1)) == nothing).all(-1) for place in places]
            assert np.any(equal, 0).all()
            same, objects = panels_of(drawn, source.size)
            assert (same == image).all() and (objects != nothing).any()

    @pytest.mark.parametrize(
        ('values', 'message'),
        [
            (dict(top=0), 'top=0: give a positive number'),
            (dict(score_thr=2), 'score_thr=2: give a score from 0 to 1'),
            (dict(out_dir=__file__), f"cannot write to '{__file__}' "),
        ],
    )
    def test_mistakes(self, det_tools, detector, image, tmp_path, values, message):
        model = build_model(DETECTOR, str(detector))
        with pytest.raises(UsageError) as error:
            list(predict(model, [str(image)], **{'out_dir': tmp_path, **values}))
        assert message in str(error.value)

    def test_one_pixel(self, tools, segmentor, tmp_path):
        path = tmp_path / 'one.png'
        Image.new('RGB', (1, 1)).save(path)
        (prediction,) = predict(build_model(TINY_CONFIG, str(segmentor)), [str(path)], tmp_path / 'out')
        with Image.open(prediction.picture) as picture:
            assert [panel.shape for panel in panels_of(picture, (1, 1))] == [(512, 512, 3)] * 2
        assert len(prediction.rows) == 1

    def test_no_picture_is_written_over(self, tools, segmentor, image, tmp_path):
        model = build_model(TINY_CONFIG, str(segmentor))
        source = tmp_path / f'{image.stem}.png'
        with Image.open(image) as opened:
            opened.save(source)
        content = source.read_bytes()
        pictures = [next(iter(predict(model, [str(source)], tmp_path))).picture for _ in range(2)]
        assert [path.name for path in pictures] == [f'{image.stem}_2.png', f'{image.stem}_3.png']
        assert source.read_bytes() == content

    def test_before_training(self, det_tools, image, tmp_path):
        command = (sys.executable, 'tools/image_demo.py', image, DETECTOR, 'none', '--out-dir', tmp_path)
        out = det_tools.run(*command, '--score-thr', '1.0')
        assert 'no object has a score of 1 or more: a lower --score-thr shows others' in out
        assert (tmp_path / f'{image.stem}.png').is_file()

    def test_weights_of_another_model(self, det_tools, detector):
        with pytest.raises(UsageError, match="is not a checkpoint of this config's model: of "):
            build_model(TINY_CONFIG, str(detector))
        with pytest.raises(UsageError, match='no weights are published for it: give a checkpoint'):
            build_model(TINY_CONFIG)


class TestBrowse:
    def test_segments(self, tools, tmp_path):
        command = (sys.executable, 'tools/analysis_tools/browse_dataset.py', TINY_CONFIG)
        out = tools.run(*command, '--out-dir', tmp_path, '--number', 3, '--cfg-options', *tools.data_options)
        assert f'3 pictures in {tmp_path}' in out
        first, *_ = sorted(tmp_path.glob('*.png'))
        assert first.name == '000000_ADE_train_00000001.png'
        with Image.open(first) as picture:
            panels_of(picture, (64, 64))  # of the pipeline, not of the file

    @pytest.mark.parametrize('split', ['train', 'val'])
    def test_objects(self, det_tools, tmp_path, split):
        cfg = load_config(DETECTOR, dict(option.split('=', 1) for option in det_tools.data_options))
        count, pictures = browse(cfg, split, tmp_path, 2)
        assert [path.is_file() for path in pictures] == [True] * count == [True, True]

    def test_classes(self, imagenet_root, tmp_path):
        options = {'train_dataloader.dataset.data_root': str(imagenet_root)}
        count, pictures = browse(load_config('tests/data/tiny_classifier.py', options), 'train', tmp_path, 1)
        (path,) = pictures
        with Image.open(path) as picture:
            assert (count, picture.size) == (1, (512 + 2 * GAP, 512 + TITLE + GAP))

    def test_mistakes(self, tools, tmp_path):
        cfg = load_config(TINY_CONFIG)
        with pytest.raises(UsageError, match='number=0: give a positive number'):
            browse(cfg, 'train', tmp_path, 0)
        with pytest.raises(UsageError, match='the data of train_dataloader are missing'):
            browse(cfg, 'train', tmp_path)
        cfg.val_dataloader = None
        with pytest.raises(UsageError, match='has no val_dataloader: choose another split'):
            browse(cfg, 'val', tmp_path)


class TestCam:
    def test_the_command_line(self, tools, segmentor, image, tmp_path):
        command = (sys.executable, 'tools/analysis_tools/vis_cam.py', image, TINY_CONFIG, segmentor)
        out = tools.run(*command, '--stage', 1, '--out', tmp_path / 'cam.png')
        assert f"written: {tmp_path}/cam.png, class '" in out
        with Image.open(image) as source, Image.open(tmp_path / 'cam.png') as picture:
            # As the network sees it: 64 high, or wide for an upright image.
            scale = min(192 / max(source.size), 64 / min(source.size))
            panels_of(picture, tuple(round(side * scale) for side in source.size))

    def test_a_frozen_backbone(self, tools, image, tmp_path):
        """In a process of its own, which PyTorch's group norm could end: see tests/models/test_frozen.py."""
        config = tmp_path / 'frozen.py'
        config.write_text(
            f"_base_ = '{ROOT}/{TINY_CONFIG}'\n"
            "backbone = dict(type='mmmeta.PoolFormer', frozen_stages=4)\n"
            "arch = dict(base='s12', depths=(1, 1, 1, 1), dims={{_base_.model.backbone.arch.dims}})\n"
            'model = dict(backbone=dict(_delete_=True, arch=arch, **backbone))\n'
        )
        checkpoint = save_random(str(config), tmp_path / 'frozen.pth')
        command = (sys.executable, 'tools/analysis_tools/vis_cam.py', image, config, checkpoint)
        assert 'written: ' in tools.run(*command, '--stage', 2, '--out', tmp_path / 'cam.png')

    def test_the_class_by_its_name(self, tools, segmentor, image, tmp_path):
        model = build_model(TINY_CONFIG, str(segmentor))
        names = model.dataset_meta['classes']
        number = names.index(draw_cam(model, str(image), tmp_path / 'a.png'))
        assert draw_cam(model, str(image), tmp_path / 'b.png', target=names[number]) == names[number]
        assert draw_cam(model, str(image), tmp_path / 'c.png', target=str(number)) == names[number]
        assert (tmp_path / 'a.png').read_bytes() == (tmp_path / 'b.png').read_bytes()
        with pytest.raises(
            UsageError, match="target='windowpain' is no class of this network: is it 'window"
        ):
            draw_cam(model, str(image), tmp_path / 'd.png', target='windowpain')

    def test_the_gradient_of_a_linear_head_weights_the_channels(self, tmp_path, image):
        """GradCAM by hand: weights of a classifier's class average to those of the channels."""
        pytest.importorskip('pytorch_grad_cam', reason='it draws the maps')
        config = tmp_path / 'linear.py'
        config.write_text(
            f"_base_ = '{ROOT}/tests/data/tiny_classifier.py'\n"
            "model = dict(head=dict(_delete_=True, type='LinearClsHead', num_classes=18, in_channels=96))\n"
        )
        checkpoint = save_random(str(config), tmp_path / 'linear.pth')
        model = build_model(str(config), str(checkpoint))
        weights = torch.zeros(18, 96)
        weights[5, 7] = 1.0  # class 5 is channel 7
        model.head.fc.weight.data.copy_(weights)
        kept = []
        model.backbone.stages[3].register_forward_hook(lambda module, args, out: kept.append(out.detach()))
        draw_cam(model, str(image), tmp_path / 'cam.png', target=5)
        heat = kept[0][0, 7].relu()
        with Image.open(tmp_path / 'cam.png') as picture:
            drawn = panels_of(picture, (64, 64))[1].astype(float)
        # Red is where the channel is large, blue where it is not.
        redness = drawn[..., 0] - drawn[..., 2]
        step = len(drawn) // heat.shape[0]
        peak = divmod(int(heat.argmax()), heat.shape[1])
        trough = divmod(int(heat.argmin()), heat.shape[1])
        at = [redness[y * step + step // 2, x * step + step // 2] for y, x in (peak, trough)]
        assert at[0] > at[1] + 100

    @pytest.mark.parametrize('method', ['features', 'EigenCAM'])
    def test_detectors_have_maps_without_a_class(self, det_tools, detector, image, tmp_path, method):
        model = build_model(DETECTOR, str(detector))
        assert draw_cam(model, str(image), tmp_path / 'a.png', stage=2, method=method, channels=4) is None
        with Image.open(tmp_path / 'a.png') as picture:
            assert min(picture.size) > 32

    @pytest.mark.parametrize(
        ('values', 'message'),
        [
            (dict(stage=4), 'stage=4: choose from 0 to 3'),
            (dict(method='CAM'), f"unknown method 'CAM': choose one of {', '.join(METHODS)}"),
            (dict(target=150), 'target=150: the classes are counted from 0 to 149'),
            (dict(method='features', target=1), 'target=1: features has no target; choose one of GradCAM, '),
            (dict(method='features', channels=0), 'channels=0: give a positive number'),
            (
                dict(path=f'{__file__}/a.png'),
                f"cannot write to '{__file__}' (Not a directory): choose another",
            ),
            (dict(path='a.mp4'), "cannot write 'a.mp4': give the path of a file that ends in .png, .jpg"),
        ],
    )
    def test_mistakes(self, tools, segmentor, image, tmp_path, values, message):
        model = build_model(TINY_CONFIG, str(segmentor))
        with pytest.raises(UsageError) as error:
            draw_cam(model, str(image), **{'path': tmp_path / 'a.png', **values})
        assert message in str(error.value)
        assert not (tmp_path / 'a.png').exists()

    def test_a_detector_has_no_score_of_a_class(self, det_tools, detector, image, tmp_path):
        model = build_model(DETECTOR, str(detector))
        with pytest.raises(UsageError, match='choose features or EigenCAM'):
            draw_cam(model, str(image), tmp_path / 'a.png')


def test_confusion(tools, segmentor, tmp_path):
    command = (sys.executable, 'tools/analysis_tools/confusion_matrix.py', TINY_CONFIG, segmentor)
    tools.run(*command, '--work-dir', tmp_path, '--cfg-options', *tools.data_options)
    with open(tmp_path / 'confusion_matrix.csv') as file:
        header, *rows = csv.reader(file)
    matrix = np.array(rows, int)
    assert matrix.shape == (150, 150)
    assert header[2] == 'sky'
    # Every annotated pixel of the four images counts once; zeros are not annotated.
    pixels = np.zeros(151, int)
    for path in (tools.data_root / 'annotations/validation').iterdir():
        with Image.open(path) as annotation:
            pixels += np.bincount(np.asarray(annotation).ravel(), minlength=151)
    assert matrix.sum(1).tolist() == pixels[1:].tolist()
    found = metrics(tmp_path)
    assert found['aAcc'] == pytest.approx(100 * np.trace(matrix) / matrix.sum(), abs=0.01)
    with Image.open(tmp_path / 'confusion_matrix.png') as picture:
        assert picture.width == picture.height


def test_confusion_of_a_detector(det_tools, detector, tmp_path):
    command = (sys.executable, 'tools/analysis_tools/confusion_matrix.py', DETECTOR, detector)
    given = ('--work-dir', tmp_path, '--score-thr', '0.05', '--cfg-options', *det_tools.data_options)
    det_tools.run(*command, *given)
    with open(tmp_path / 'confusion_matrix.csv') as file:
        header, *rows = csv.reader(file)
    matrix = np.array(rows, int)
    assert header[-1] == 'background' and matrix.shape == (81, 81)
    content = json.loads((det_tools.data_root / 'annotations/instances_val2017.json').read_text())
    objects = [part['category_id'] for part in content['annotations'] if not part['iscrowd']]
    # Every annotated object counts once.
    assert matrix[:-1].sum() == len(objects)


def test_free_paths(tmp_path):
    folder = tmp_path / 'new' / 'browse'
    assert free_folder(folder) == folder and not folder.parent.exists()
    folder.mkdir(parents=True)
    assert free_folder(folder) == folder  # empty
    (folder / 'a.png').touch()
    assert free_folder(folder) == tmp_path / 'new/browse_2'
    (tmp_path / 'b.tar.png').touch()
    assert free_path(tmp_path / 'b.tar.png') == tmp_path / 'b.tar_2.png'
    with pytest.raises(UsageError, match='cannot write to .*choose another folder'):
        free_path(folder / 'a.png' / 'b.png')
    with pytest.raises(UsageError, match='cannot write to .*choose another folder'):
        free_folder(folder / 'a.png')
