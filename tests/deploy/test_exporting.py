"""Exported files compute what PyTorch does, through the real command lines, and run without PyTorch."""

import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from conftest import ROOT, Tools
from deploy.spread import spread
from deploy.test_detectors import predict
from forked import Script
from mmengine.logging import MMLogger
from PIL import Image

from mmmeta.apis.inference import build_model
from mmmeta.config.backbones import build_backbone
from mmmeta.datasets.ade20k import LABELS
from mmmeta.datasets.coco import draw_coco_scene
from mmmeta.deploy import export, load
from mmmeta.deploy.comparing import EXACT, Objects, _compare_objects, compare_images
from mmmeta.deploy.formats import quiet
from mmmeta.runtime.run import Fit, Network, RuntimeProblem
from mmmeta.utils.errors import UsageError

pytest.importorskip('onnxscript', reason='export needs onnxscript')
pytest.importorskip('onnxruntime', reason='exported files are run with ONNX Runtime')
TINY = 'caformer_s18,window=3,depths=(1,1,1,1),dims=(8,8,32,32)'
DETECTOR, SEGMENTOR = 'tests/data/tiny_mask_rcnn.py', 'tests/data/tiny_upernet.py'
# Each scale takes seconds to be traced for any size.
SCALES = {'model.decode_head.pool_scales': (1, 2)}
SCALE_OPTIONS = [f'{key}={value}' for key, value in SCALES.items()]


def scene(height, width, seed=0):
    return np.asarray(draw_coco_scene(np.random.default_rng(seed), height, width)[0])


@pytest.fixture(scope='module')
def detector():
    model = build_model(DETECTOR, 'none')
    return spread(model, lambda: predict(model, torch.randn(1, 3, 96, 160), (96, 160)))


@pytest.fixture(scope='module')
def exported(detector, tmp_path_factory):
    """A detector with masks and windows as ONNX file of one size, which pads."""
    path = tmp_path_factory.mktemp('exported') / 'detector.onnx'
    images = [scene(120, 150), scene(200, 90)]
    result = export(detector, path, shape=(96, 160), dynamic='none', images=images)
    assert [one.name for one in result.files] == ['detector.onnx', 'run.py']
    assert len(result.differences) == 2
    # PyTorch sees the images without the padding: a file that is kept all the same reports the difference.
    assert not any(one.passed for one in result.same_images)
    for one in result.differences:
        assert one.passed and one.of_objects[0] == one.of_objects[1] > 0
        assert one.values['pixels'] < 0.01 and one.values['score'] < 1e-4
    return path


def test_both_engines_find_the_same(exported, detector):
    pytest.importorskip('openvino', reason='the second engine is OpenVINO')
    image = scene(150, 211, seed=3)
    one, other = (
        load(exported, engine, threads=1).predict([image])[0] for engine in ('onnxruntime', 'openvino')
    )
    assert len(one.scores) == 10
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.01)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    assert (one.labels == other.labels).all()
    assert (one.masks != other.masks).mean() < 1e-4 and one.masks.shape == (10, 150, 211)


@pytest.fixture(scope='module')
def exported_for_any_size(detector, tmp_path_factory):
    """The same detector as it is exported by default, compared on three aspect ratios."""
    folder = tmp_path_factory.mktemp('any')
    for i, size in enumerate(((120, 160), (90, 160), (150, 100))):
        Image.fromarray(scene(*size, seed=size[0])).save(folder / f'{i}.png')
    images = sorted(folder.glob('*.png'))
    result = export(detector, folder / 'detector.onnx', shape=(96, 160), images=images)
    assert len(result.same_images) == 3 and all(one.passed for one in result.same_images)
    return folder / 'detector.onnx'


def test_the_same_image_whatever_its_ratio(detector, exported_for_any_size):
    """A file gives what PyTorch does by its own test pipeline, at the image's own size."""
    network, images = load(exported_for_any_size), sorted(exported_for_any_size.parent.glob('*.png'))
    sizes = [network.prepare(np.asarray(Image.open(path))).image.shape[1:] for path in images]
    assert sizes == [(96, 128), (96, 160), (160, 96)]  # each padded to multiples of 32, as in training
    for difference in compare_images(detector, load(exported_for_any_size, 'openvino'), images):
        assert difference.passed, difference
        assert difference.of_objects[0] > 5
        assert difference.values['pixels'] < 0.1 and difference.values['score'] < 1e-3


@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino', 'torch'])
def test_answers_of_many_threads_are_those_of_one(exported, tmp_path, engine):
    pytest.importorskip(engine, reason='it runs the file')
    file = exported
    if engine == 'torch':
        backbone = build_backbone('poolformer_s12,depths=(1,1,1,1),dims=(8,8,16,16)')
        (file, _) = export(backbone, tmp_path / 'backbone.pt2', shape=(64, 96)).files
    network = load(file, engine, threads=1, trusted=True)
    images = [scene(48 + seed % 5, 96, seed) for seed in range(64)]

    def predict(image):
        return network.predict([image])[0].outputs

    alone = [predict(image) for image in images]
    copies = [{name: value.copy() for name, value in one.items()} for one in alone]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(predict, images))
    for one, copy, other in zip(alone, copies, together, strict=True):
        for name, value in copy.items():
            np.testing.assert_array_equal(one[name], value)  # later calls changed nothing
            np.testing.assert_array_equal(other[name], value)
    assert len({b''.join(value.tobytes() for value in one.values()) for one in copies}) == 64


def test_the_description(exported):
    about = load(exported).description
    assert about['classes'][:2] == ['person', 'bicycle'] and len(about['palette']) == 80
    assert about['shape'] == [96, 160] and about.resize == Fit([144, 96])
    assert about['mean'] == pytest.approx([123.675, 116.28, 103.53]) and about['is_bgr'] is False
    assert about.packages['torch'] in torch.__version__


def test_it_runs_alone(exported, tmp_path):
    """Copied alone beside the file, without what it was exported with."""
    for path in (exported, exported.with_name('run.py')):
        shutil.copy(path, tmp_path)
    for name in ('a.png', 'b.png'):
        (tmp_path / 'images').mkdir(exist_ok=True)
        Image.fromarray(scene(100, 130, seed=ord(name[0]))).save(tmp_path / 'images' / name)
    blocked = (
        'torch',
        'torchvision',
        'mmengine',
        'mmcv',
        'mmdet',
        'mmseg',
        'mmpretrain',
        'mmmeta',
        'cv2',
        'onnx',
    )
    code = (
        f'import sys, runpy\nfor name in {blocked}: sys.modules[name] = None\n'
        "sys.argv = ['run.py', 'detector.onnx', 'images', '--score-thr', '0.0', '--threads', '1']\n"
        "runpy.run_path('run.py', run_name='__main__')"
    )
    result = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert 'images/a.png (1 of 2)' in result.stdout and '2 images in' in result.stdout
    found = json.loads((tmp_path / 'predictions/b.json').read_text())['objects']
    own = load(exported).predict([scene(100, 130, seed=ord('b'))])[0]
    assert [one['label'] for one in found] == own.labels.tolist()
    assert found[0]['mask']['size'] == [100, 130]
    assert sum(found[0]['mask']['counts'][1::2]) == own.masks[0].sum()
    assert sorted(path.name for path in (tmp_path / 'predictions').iterdir()) == [
        'a.json', 'a.png', 'b.json', 'b.png',
    ]  # fmt: skip


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory):
    """A segmentor of any size as ONNX file, and its weights."""
    pytest.importorskip('mmseg', reason='a segmentor is exported')
    folder = tmp_path_factory.mktemp('segmentor')
    torch.manual_seed(0)
    model = build_model(SEGMENTOR, 'none', options=SCALES)
    spread(model, lambda: model(torch.randn(1, 3, 64, 96), mode='tensor'))
    with torch.no_grad():  # classes that occur in the generated data
        model.decode_head.conv_seg.bias[[label - 1 for label in LABELS.values()]] += 5
    torch.save(dict(state_dict=model.state_dict()), folder / 'weights.pth')
    result = export(model, folder / 'segmentor.onnx', shape=(64, 96))
    assert [one.images for one in result.differences] == [
        '1 x 64x85', '1 x 95x64', '3 x 64x85', '1 x 85x64', '1 x 64x192',
    ]  # fmt: skip
    assert all(one.passed for one in (*result.differences, *result.same_images))
    return folder / 'segmentor.onnx'


def test_a_segmentor_of_any_size(segmentor):
    network = load(segmentor)
    images = [scene(77, 101, seed) for seed in range(3)]
    batch = network.predict(images, batch_size=3)
    for image, together in zip(images, batch, strict=True):
        assert together.labels.shape == (77, 101)
        assert (network.predict([image])[0].labels == together.labels).mean() > 0.9999


def test_files_are_timed_beside_pytorch(segmentor, tmp_path):
    command = [sys.executable, 'tools/analysis_tools/benchmark.py', 'exported', '--repeats', '1']
    model = ['--model', SEGMENTOR, segmentor.with_name('weights.pth')]
    options = ['--engine', 'onnxruntime', *model, '--cfg-options', *SCALE_OPTIONS]
    result = Tools.finish(*command, segmentor, *options)
    assert result.returncode == 0, result.stderr
    assert '\nEncoderDecoder, 1 x 64x96, cpu' in result.stdout
    assert re.search(r'\ntiny_upernet, PyTorch .* 1\.00x\nsegmentor, onnxruntime f32 ', result.stdout)
    other = tmp_path / 'other.onnx'
    export(build_backbone(TINY), other, shape=(64, 64))
    result = Tools.finish(*command, segmentor, other)
    assert result.stderr == (
        f"error: '{other}' takes images of another size than '{segmentor}': give files of one size\n"
    )


def test_a_backbone_through_the_command_line(tmp_path):
    weights = tmp_path / 'weights.pth'
    torch.save(build_backbone(TINY).state_dict(), weights)
    out = tmp_path / 'backbone.pt2'
    result = Tools.finish(
        sys.executable,
        'tools/deployment/export.py',
        TINY,
        weights,
        out,
        '--shape',
        '64',
        '96',
        '--dynamic',
        'batch',
    )
    assert result.returncode == 0, result.stderr
    assert '3 x 64x96: outputs differ by' in result.stdout
    network = load(out, trusted=True)
    assert len(network.description['checkpoint']['sha256']) == 64
    image = scene(64, 96)
    features = network.predict([image])[0].outputs
    mean, std = (torch.tensor(network.description[key]).view(3, 1, 1) for key in ('mean', 'std'))
    backbone = build_backbone(TINY)
    backbone.load_state_dict(torch.load(weights))
    with torch.no_grad():
        expected = backbone((torch.tensor(image).permute(2, 0, 1) - mean)[None] / std)
    for own, one in zip(features.values(), expected, strict=True):
        np.testing.assert_allclose(own, one[0], atol=1e-4)


def test_a_miss_counts_unless_a_tie_explains_it():
    boxes = np.array([[0, 0, 50, 50], [2, 0, 52, 50], [60, 60, 90, 90]], np.float32)

    def objects(scores, chosen=slice(None)):
        return Objects(boxes[chosen], np.array(scores)[chosen], np.array([1, 1, 2])[chosen])

    def difference(boxes, scores, labels, expected=None, rounded=()):
        own = Objects(np.array(boxes, np.float32), np.array(scores), np.array(labels))
        return _compare_objects('', expected or objects([0.9, 0.7, 0.5]), own, rounded, EXACT)

    same = difference(boxes, [0.9, 0.7, 0.5], [1, 1, 2])
    assert same.passed and same.of_objects == (3, 3)
    assert not difference(boxes[:2], [0.9, 0.7], [1, 1]).passed
    assert not difference(boxes, [0.9, 0.7, 0.5], [1, 1, 3]).passed
    assert not difference(boxes, [0.9, 0.7, 0.4], [1, 1, 2]).passed
    assert not difference(boxes + 0.5, [0.9, 0.7, 0.5], [1, 1, 2]).passed
    assert not difference(boxes[[1, 0, 2]], [0.7, 0.9, 0.5], [1, 1, 2]).passed
    # Of two that overlap, either: here the first in PyTorch, the second in the file, and in PyTorch if the
    # image is nearly another.
    first, second = (objects([0.9, 0.89995, 0.5], [i, 2]) for i in (0, 1))
    assert difference(boxes[[1, 2]], [0.89995, 0.5], [1, 2], first, [first, second]).passed
    assert not difference(boxes[[1, 2]], [0.89995, 0.5], [1, 2], first, [first]).passed
    assert not difference(boxes[[1, 2]] + 0.2, [0.89995, 0.5], [1, 2], first, [second]).passed
    # Where scores of others move, too, the image is another.
    second.scores[1] += 2e-4
    assert not difference(boxes[[1, 2]], [0.89995, 0.5], [1, 2], first, [second]).passed


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('a.pth', {}, r"'.*a.pth' ends in none of the endings of exported files: .onnx for onnx, .xml for"),
        ('a.xml', dict(format='onnx'), "format 'onnx' and '.*a.xml' do not fit"),
        (
            'a.onnx',
            dict(precision='bf16'),
            "format 'onnx' has no precision 'bf16': onnx: f32, int8; openvino",
        ),
        ('a.xml', dict(precision='int8'), 'int8 is calibrated with images like those of the application'),
        ('a.xml', dict(precision='int4'), "format 'openvino' has no precision 'int4'"),
        ('a.pt2', dict(precision='int8'), "format 'pt2' has no precision 'int8'"),
        ('a.onnx', dict(dynamic='batch'), 'a detector takes one image at a time; choose none or all'),
        ('a.onnx', dict(dynamic='width'), "dynamic='width': choose one of none, batch, all"),
        ('a.onnx', dict(shape=(100, 160)), 'shape 100x160: both have to be multiples of 32, .* take 128 160'),
        ('a.onnx', dict(shape=(320000, 320000)), 'images of 320000x320000 need .* choose a smaller shape'),
        ('no/a.onnx', {}, "cannot write to '.*no': give a file in a folder that exists"),
        ('/proc/a.onnx', {}, "cannot write to '/proc'"),  # where not even root can
    ],
)
def test_arguments_that_do_not_fit(detector, tmp_path, name, options, message):
    with pytest.raises(UsageError, match=message):
        export(detector, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_nobody_else_is_silenced():
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('INFO')
    with quiet():
        assert logger.isEnabledFor(logging.INFO)
    assert logging.getLogger('torch').level != logging.ERROR
    logger.setLevel(level)


def test_nothing_is_left_of_what_fails(detector, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match='Linear cannot be exported: give a backbone'):
        export(torch.nn.Linear(2, 2).eval(), tmp_path / 'a.onnx')
    (tmp_path / 'run.py').write_text('print("mine")')
    with pytest.raises(UsageError, match=r"run.py' is another program, and would be overwritten"):
        export(detector, tmp_path / 'a.onnx', shape=(96, 160))
    assert [path.name for path in tmp_path.iterdir()] == ['run.py']
    (tmp_path / 'run.py').unlink()
    backbone = build_backbone(TINY)
    with monkeypatch.context() as patch:  # a file that computes something else
        true = Network.run

        def scaled(self, image):
            return {name: 1.1 * value for name, value in true(self, image=image).items()}

        patch.setattr(Network, 'run', scaled)
        with pytest.raises(UsageError, match='not kept'):
            export(backbone, tmp_path / 'a.pt2', shape=(64, 64))
    backbone.stages[0].forward = lambda x, **_: x * 2 if x.sum() > 0 else x
    with pytest.raises(UsageError, match="cannot be exported with dynamic='none'"):
        export(backbone, tmp_path / 'a.pt2', shape=(64, 64))
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_what_is_terminated(tmp_path):
    command = ['tools/deployment/export.py', TINY, 'none', str(tmp_path / 'a.onnx'), '--shape', '64', '64']
    process = Script(command, ROOT, Tools.environment())
    start = time.monotonic()
    while 'tracing' not in process._outputs[0].read_text():
        assert process.poll() is None and time.monotonic() - start < 100
        time.sleep(0.05)
    assert [path.name[:6] for path in tmp_path.iterdir()] == ['.part-']
    process.send_signal(signal.SIGTERM)
    process.communicate(100)
    assert process.returncode == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())


def segmentor_of(load, channels):
    """A segmentor of images that a step loads, of some channels."""
    scaled = dict(type='Resize', scale=(64, 64), keep_ratio=False)
    preprocessor = dict(mean=[9000.0] * channels, std=[4000.0] * channels, bgr_to_rgb=False, size=(64, 64))
    options = {
        'test_dataloader.dataset.pipeline': [load, scaled, dict(type='PackSegInputs')],
        'model.data_preprocessor': dict(type='SegDataPreProcessor', **preprocessor),
        'model.backbone.in_channels': channels,
    }
    return build_model(SEGMENTOR, 'none', options=options)


@pytest.mark.parametrize(
    ('load', 'channels'),
    [
        (dict(type='mmmeta.LoadUnchangedImage', channels=4), 4),
        pytest.param(
            dict(type='mmmeta.LoadUnchangedImage', channels=3, in_range=(100, 50000)),
            3,
            marks=pytest.mark.nightly,
        ),
        pytest.param(dict(type='LoadImageFromFile', color_type='grayscale'), 1, marks=pytest.mark.nightly),
    ],
)
def test_networks_of_other_images(tmp_path, load, channels):
    """Depth and channels arrive in the file as in PyTorch; what it was not trained on is refused."""
    is_grey = 'color_type' in load
    pixels = np.random.default_rng(0).integers(0, 255 if is_grey else 60000, (80, 96, channels))
    pixels = pixels.astype(np.uint8 if is_grey else np.uint16)
    tifffile.imwrite(tmp_path / 'a.tif', pixels.squeeze(), photometric='minisblack', planarconfig='contig')
    model, file = segmentor_of(load, channels), tmp_path / 'a.onnx'
    options = dict(shape=(64, 64), dynamic='none')
    if not is_grey:
        with pytest.raises(UsageError, match='reads them as they are stored: give some'):
            export(model, file, **options)
    result = export(model, file, images=[tmp_path / 'a.tif'], **options)
    assert result.same_images[0].passed
    network = Network(file)
    assert network.description.version == 2 and len(network.description.mean) == channels
    np.testing.assert_array_equal(network.read(tmp_path / 'a.tif'), pixels)
    scene = tmp_path / 'scene.png'
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(scene)
    for image in [np.zeros((64, 64, 5), np.uint8)] + [scene] * (channels == 4):
        with pytest.raises(RuntimeProblem, match=f'{channels}'):
            network.predict([image])


def test_backbones_of_other_channels(tmp_path):
    """Nothing says how their images are read."""
    for channels in (1, 4):
        backbone = build_backbone(f'{TINY},in_channels={channels}')
        with pytest.raises(UsageError, match=f'CAFormer takes images of {channels} channels, and 3 are read'):
            export(backbone, tmp_path / 'a.onnx', shape=(64, 64))
    assert not list(tmp_path.iterdir())


def test_files_and_images_that_do_not_fit(exported, tmp_path):
    foreign = tmp_path / 'foreign.onnx'
    torch.onnx.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),), foreign, dynamo=True, verbose=False)
    (tmp_path / 'damaged.onnx').write_bytes(exported.read_bytes()[:1000])
    (tmp_path / 'text.png').write_text('no image')
    for path, message in (
        (foreign, 'was not written by mmmeta'),
        (tmp_path / 'damaged.onnx', 'ONNX Runtime .* cannot open'),
        (tmp_path / 'none.onnx', 'there is no file'),
        (tmp_path / 'text.png', 'is no exported file: those end in .onnx, .xml or .pt2'),
    ):
        with pytest.raises(RuntimeProblem, match=message):
            load(path)
    network = load(exported)
    for images, options, message in (
        ([tmp_path / 'text.png'], {}, 'is damaged or not an image: give another one'),
        ([tmp_path / 'none.png'], {}, 'there is no image'),
        ([np.zeros((5, 5))], {}, r'an image of shape \(5, 5\) and type float64: give'),
        ([scene(50, 50)], dict(batch_size=2), 'takes one image at a time'),
    ):
        with pytest.raises(RuntimeProblem, match=message):
            network.predict(images, **options)
    with pytest.raises(
        RuntimeProblem, match=r"exported for 96x160 with dynamic='none', does not run with image of"
    ):
        network.run(image=np.zeros((1, 3, 64, 64), np.float32), size=np.array([64, 64], np.float32))
    with pytest.raises(RuntimeProblem, match="engine 'openvino' does not run|engine 'torch' does not run"):
        load(exported, 'torch')


def test_what_evaluate_finds(segmentor, tmp_path, ade_root):
    """Metrics of a file are those of the network, but for how images are resized."""
    data = [f'test_dataloader.dataset.data_root={ade_root}']
    weights, out, folder = segmentor.with_name('weights.pth'), segmentor, tmp_path / 'work'
    own = Tools.finish(
        sys.executable,
        'tools/deployment/evaluate.py',
        out,
        SEGMENTOR,
        '--work-dir',
        folder,
        '--cfg-options',
        *data,
    )
    assert own.returncode == 0, own.stderr
    command = (sys.executable, 'tools/test.py', SEGMENTOR, weights, '--work-dir', folder)
    other = Tools.finish(*command, '--cfg-options', *data, *SCALE_OPTIONS)
    assert other.returncode == 0, other.stderr
    values = [float(run.stdout.split('aAcc: ')[-1].split()[0]) for run in (own, other)]
    assert values[0] > 0 and abs(values[0] - values[1]) < 0.2
    wrong = Tools.finish(sys.executable, 'tools/deployment/evaluate.py', out, DETECTOR)
    assert wrong.returncode == 1 and 'is of a network for segmentation' in wrong.stderr


def test_the_example_in_cpp(exported, exported_for_any_size, tmp_path):
    """Compiled against what the package of OpenVINO brings."""
    openvino = pytest.importorskip('openvino', reason='the example is compiled against it')
    compiler = shutil.which('g++') or pytest.skip('there is no g++')
    root = Path(openvino.__file__).parent
    library = next((root / 'libs').glob('libopenvino.so*'))
    program = tmp_path / 'detect'
    command = [compiler, '-std=c++17', 'tools/deployment/detect.cpp', f'-I{root}/include', library]
    subprocess.run([*command, f'-Wl,-rpath,{root}/libs', '-o', program], cwd=ROOT, check=True)
    image = scene(90, 144, seed=5)  # which fits as it is
    Image.fromarray(image).save(tmp_path / 'image.ppm')
    for file in (exported, exported_for_any_size):
        result = subprocess.run([program, file, tmp_path / 'image.ppm'], capture_output=True, text=True)
        rows = [[float(value) for value in line.split()] for line in result.stdout.splitlines()]
        own = load(file).predict([image])[0]
        assert [row[0] for row in rows] == own.labels.tolist()
        np.testing.assert_allclose([row[2:] for row in rows], own.boxes, atol=0.02)
    Image.fromarray(scene(90, 170)).save(tmp_path / 'large.ppm')
    result = subprocess.run([program, exported, tmp_path / 'large.ppm'], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, 'the file takes images of up to 96x160\n')
