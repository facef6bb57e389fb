"""Files in eight bits."""

import sys

import numpy as np
import pytest
import torch
from conftest import Tools
from deploy.test_exporting import SCALE_OPTIONS, TINY, scene

from mmmeta.config.backbones import build_backbone
from mmmeta.deploy import Calibration, export, load
from mmmeta.utils.errors import UsageError

pytest.importorskip('onnxscript', reason='export needs onnxscript')
openvino = pytest.importorskip('openvino', reason="files in eight bits are compared with OpenVINO's")
pytest.importorskip('nncf', reason='eight bits are chosen by NNCF')

IMAGES = [scene(64, 96, seed) for seed in range(4)]


@pytest.fixture(scope='module')
def backbone():
    torch.manual_seed(0)
    return build_backbone(TINY)


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_eight_bits_agree_and_take_less_room(backbone, tmp_path, suffix):
    shape = dict(shape=(64, 96), images=IMAGES[:1])
    plain = export(backbone, tmp_path / f'plain{suffix}', **shape)
    small = export(
        backbone, tmp_path / f'small{suffix}', precision='int8', calibration=Calibration(IMAGES), **shape
    )
    assert small.quantized.endswith('agreement with float32 on 4 images, float32 1.000')
    assert 0.95 < float(small.quantized.split()[0]) < 1
    sizes = [
        sum(path.stat().st_size for path in one.files if path.suffix in ('.onnx', '.bin'))
        for one in (plain, small)
    ]
    assert sizes[1] < 0.7 * sizes[0]
    network = load(tmp_path / f'small{suffix}')
    about = network.description
    assert about['precision'] == 'int8'
    assert about['computed_in'] == {'.onnx': 'f32', '.xml': 'bf16'}[suffix]
    for own, expected in zip(
        network.predict(IMAGES[1:2])[0].outputs.values(),
        load(tmp_path / f'plain{suffix}').predict(IMAGES[1:2])[0].outputs.values(),
        strict=True,
    ):
        error = np.linalg.norm(own - expected) / np.linalg.norm(expected)
        assert 0 < error < 0.2


@pytest.mark.nightly
def test_what_costs_too_much_is_left_as_it_is_until_the_bound_holds(tmp_path):
    backbone, images = build_backbone('poolformer_s12,depths=(1,1,1,1),dims=(8,8,16,16)'), IMAGES[:2]
    exact = load(export(backbone, tmp_path / 'plain.onnx', shape=(64, 96)).files[0])
    expected = [one.outputs['features_3'] for one in exact.predict(images)]
    found = []

    def metric(network):
        own = [one.outputs['features_3'] for one in network.predict(images)]
        found.append(100 - 100 * float(np.abs(np.array(own) - np.array(expected)).max()))
        return found[-1]

    def quantized(name, max_drop):
        calibration = Calibration(images, metric, max_drop)
        return export(backbone, tmp_path / name, shape=(64, 96), precision='int8', calibration=calibration)

    quantized('all.onnx', 100.0)
    in_eight_bits = found[-1]
    drop = (100 - in_eight_bits) / 2
    assert quantized('small.onnx', drop).quantized == f'{found[-1]:.3f} points, float32 100.000'
    assert in_eight_bits < 100 - drop <= found[-1]
    message = (
        r'bfloat16, in which the rest is computed, keeps 9\d.\d+ points of 100.000 by itself, .* not kept'
    )
    with pytest.raises(UsageError, match=message):
        quantized('other.xml', 1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'all.onnx', 'plain.onnx', 'run.py', 'small.onnx',
    ]  # fmt: skip


@pytest.mark.parametrize('dynamic', ['none', pytest.param('all', marks=pytest.mark.nightly)])
def test_through_the_command_line(tmp_path, ade_root, dynamic):
    """Calibrated with the training set, judged by the metric."""
    data = [
        *SCALE_OPTIONS,
        *(f'{part}_dataloader.dataset.data_root={ade_root}' for part in ('train', 'test')),
    ]
    command = [sys.executable, 'tools/deployment/export.py', 'tests/data/tiny_upernet.py', 'none']
    out = tmp_path / 'small.xml'
    options = ['--dynamic', dynamic, '--precision', 'int8', '--max-drop', '5', '--samples', '3']
    options += ['--cfg-options', *data]
    result = Tools.finish(*command, out, *options)
    assert result.returncode == 0, result.stderr
    assert 'calibrating with 3 images' in result.stdout and ' points, float32 ' in result.stdout
    assert load(out).description['precision'] == 'int8'
    # Of all convolutions: those of the head, too, whose parts are convolved before they are resized.
    constants = [op for op in openvino.Core().read_model(out).get_ops() if op.get_type_name() == 'Constant']
    kernels = [op for op in constants if [*op.get_output_shape(0)][-2:] == [3, 3]]
    assert kernels and {op.get_element_type().get_type_name() for op in kernels} == {'i8'}
    for rest, message in (
        (['--max-drop', '1'], '--calibration and --max-drop are for --precision int8'),
        (
            ['--precision', 'int8', '--cfg-options', 'train_dataloader.dataset.data_root=none'],
            'give --calibration',
        ),
        (
            ['--precision', 'int8', '--samples', '0', '--cfg-options', *data],
            'samples=0: give a positive number',
        ),
    ):
        wrong = Tools.finish(*command, tmp_path / 'no.xml', *rest)
        assert wrong.returncode == 1 and message in wrong.stderr and wrong.stderr.count('\n') == 1
    assert not list(tmp_path.glob('no.*'))
