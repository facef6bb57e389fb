"""Exported files that are damaged or somebody else's: an answer or one sentence, and no code runs."""

import copy
import io
import itertools
import json
import os
import random
import sys
import zipfile

import numpy as np
import pytest
import torch
from conftest import Tools

from mmmeta.deploy import load
from mmmeta.runtime.run import KEY, TASKS, RuntimeProblem, as_json, draw

onnx = pytest.importorskip('onnx', reason='the files are written with it')
pytest.importorskip('onnxruntime', reason='it runs them')
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
ENDS = dict(
    detection=(['image', 'size'], ['boxes', 'scores', 'labels', 'masks']),
    segmentation=(['image', 'size', 'original'], ['labels']),
    classification=(['image'], ['probabilities']),
    features=(['image'], ['features_0']),
)
OUTPUTS = dict(
    boxes=np.array([[1, 2, 30, 20], [5, 5, 9, 9], [0, 0, 0, 0]], np.float32),
    scores=np.array([0.9, 0.5, 0.0], np.float32),
    labels=np.array([0, 2, -1]),
    masks=np.full((3, 7, 7), 0.8, np.float32),
    probabilities=np.array([[0.2, 0.5, 0.3]], np.float32),
    features_0=np.ones((1, 8, 16, 16), np.float32),
)
SEGMENTS = np.tile(np.arange(50, dtype=np.int32) % 3, (1, 40, 1))


def describe(task):
    """What export writes of a network."""
    inputs, outputs = ENDS[task]
    return dict(
        version=1,
        task=task,
        method='Network',
        shape=[64, 64],
        dynamic='none',
        takes_batches=False,
        precision='f32',
        computed_in='f32',
        normalized_inside=True,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        is_bgr=False,
        padding=[123.675, 116.28, 103.53],
        clipped_to='content',
        divisor=32,
        resize=dict(kind='fit', scale=[64, 64]),
        classes=['a', 'b', 'c'],
        palette=[[1, 2, 3]] * 3,
        mask_threshold=0.5,
        checkpoint=dict(name='none'),
        packages=dict(torch='2.12.1'),
        inputs=inputs,
        outputs=outputs,
    )


def write(path, task, text=None, outputs=None, shape=(1, 3, 64, 64)):
    """A network that gives the same for every image, with a description."""
    inputs, names = ENDS[task]
    values = {**OUTPUTS, **(dict(labels=SEGMENTS) if task == 'segmentation' else {}), **(outputs or {})}
    helper, types = onnx.helper, dict(image=onnx.TensorProto.FLOAT)
    kind = onnx.TensorProto.FLOAT if task == 'detection' else onnx.TensorProto.INT64
    tensors = [helper.make_tensor_value_info(name, types.get(name, kind), [2]) for name in inputs]
    tensors[0] = helper.make_tensor_value_info('image', types['image'], shape)
    nodes, results = [], []
    for name in names:
        tensor = onnx.numpy_helper.from_array(values[name])
        nodes.append(helper.make_node('Constant', [], [f'{name}_fixed'], value=tensor))
        nodes.append(helper.make_node('Identity', [f'{name}_fixed'], [name]))
        results.append(helper.make_tensor_value_info(name, tensor.data_type, values[name].shape))
    graph = helper.make_graph(nodes, 'network', tensors, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    helper.set_model_props(model, {KEY: json.dumps(describe(task)) if text is None else text})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize('task', TASKS)
def test_they_run_as_long_as_nothing_is_damaged(tmp_path, task):
    prediction = load(write(tmp_path / 'a.onnx', task), 'onnxruntime').predict([IMAGE])[0]
    assert {*prediction.outputs} == {*ENDS[task][1]}


def change(**changes):
    return json.dumps({**describe('detection'), **changes})


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'was not written by mmmeta'),
        ('{', "the description in '.*' is damaged: it is not JSON"),
        ('[' * 100_000, 'is damaged: it is not JSON'),
        ('[1]', r'is damaged: it is \[1\], not an object'),
        (json.dumps({'version': 1}), 'is damaged: task is missing; export the network again'),
        (change(version='1'), "version is '1', not a positive number"),
        (change(version=3), 'of version 3, and this program reads those up to 2'),
        (change(task='pose'), "task is 'pose', not one of detection, segmentation, classification, features"),
        (change(task=['detection']), r"task is \['detection'\], not one of"),
        (change(shape=[-64, 64]), r'shape is \[-64, 64\], not height and width of at most'),
        (change(shape=[60000, 60000]), 'not height and width of at most 178956970 pixels'),
        (change(mean=[float('nan'), 0, 0]), r'mean is \[nan, 0, 0\], not a list of numbers'),
        (change(mean=[1.0]), 'mean has 1 numbers for 3 channels'),
        (change(std=[0, 1, 1]), r'std is \[0, 1, 1\], not a list of positive numbers'),
        (change(classes='abc'), "classes is 'abc', not a list of texts"),
        (change(classes=[1, 2, 3]), r'classes is \[1, 2, 3\], not a list of texts'),
        (
            change(resize=dict(kind='fit', scale=[64, 64], multiple=0)),
            "resize is {'kind': 'fit', .*, not fit",
        ),
        (change(resize=dict(kind='fit', scale=[9e999, 9e999])), "resize is {'kind': 'fit', .*, not fit"),
        (
            change(resize=dict(kind='fit', scale=[64, 64], multiple=48)),
            'shape .* is not of multiples of 48',
        ),
        (change(resize=dict(kind='warp')), "resize is {'kind': 'warp'}, not fit or stretch with a scale, or"),
        (change(resize=dict(kind='crop', short=9, size=9, interpolation='x')), 'resize is .*, not fit'),
        (change(divisor=0), 'divisor is 0, not a number from 1 to'),
        (change(takes_batches=True), 'takes_batches is true'),
        (change(outputs=['scores', 'boxes', 'labels', 'masks']), 'outputs are .* of a network for detection'),
        (change(inputs=['image', 'size', 'more']), 'inputs are .* of a network for detection'),
        (change(outputs=['boxes', 'scores', 'labels']), 'outputs are .*, and the network has'),
        (json.dumps(describe('features')), 'inputs are .*, and the network has'),
    ],
)
def test_a_damaged_description_is_named(tmp_path, text, message):
    path = write(tmp_path / 'a.onnx', 'detection', text)
    with pytest.raises(RuntimeProblem, match=message) as found:
        load(path, 'onnxruntime')
    assert '\n' not in str(found.value) and len(str(found.value)) < 400


@pytest.mark.parametrize(
    ('task', 'outputs', 'message'),
    [
        ('detection', dict(boxes=np.zeros((3, 5), np.float32)), 'boxes, scores and labels of different'),
        ('detection', dict(scores=np.zeros(2, np.float32)), 'boxes, scores and labels of different lengths'),
        ('detection', dict(boxes=np.full((3, 4), np.nan, np.float32)), 'boxes or scores that are not finite'),
        ('detection', dict(labels=np.zeros(3, np.float32)), 'labels of type float32'),
        ('segmentation', dict(labels=-SEGMENTS), 'label -2'),
        ('segmentation', dict(labels=SEGMENTS[:, :9]), r'labels of \(9, 50\) pixels, not \(40, 50\)'),
        ('classification', dict(probabilities=np.full((1, 3), np.nan, np.float32)), 'that are not finite'),
        ('classification', dict(probabilities=np.ones((1, 9), np.float32)), '9 probabilities for 3 classes'),
        ('classification', dict(probabilities=np.ones((2, 3), np.float32)), 'probabilities of 2 images, not'),
    ],
)
def test_outputs_that_are_not_those_of_the_task(tmp_path, task, outputs, message):
    network = load(write(tmp_path / 'a.onnx', task, outputs=outputs), 'onnxruntime')
    with pytest.raises(RuntimeProblem, match=f'is damaged: it gives .*{message}'):
        network.predict([IMAGE])


def test_axes_of_another_network(tmp_path):
    path = write(tmp_path / 'a.onnx', 'segmentation', outputs=dict(labels=SEGMENTS[0]))
    for engine in ('onnxruntime', 'openvino'):
        pytest.importorskip(engine, reason='it reads the file')
        with pytest.raises(RuntimeProblem, match='labels of the network has 2 axes, not 3'):
            load(path, engine)


BAD = [
    ['', '\ud800\n\x1b[2J', 'x' * 1000],
    *(None, True, -1, 0, 1, 65536, 10**30, 10**400, 1.5, float('nan'), float('inf'), '', 'x', 'all'),
    *([], [1], [1, 1], [64, 64, 64], [-1, 64], [65536, 65536], [[1, 2, 3]], ['a', 'a'], [None] * 3),
    *({}, dict(kind='stretch', scale=[60000, 60000]), dict(kind='fit', scale=[1e300, 1e300])),
    *(dict(kind='crop', short=65536, size=1, interpolation='lanczos'), dict(kind=['fit']), {'a': {'b': []}}),
]


def predict(path, engine):
    """Either an answer, or one sentence."""
    try:
        network = load(path, engine)
        for image in (IMAGE, IMAGE[:, :1]):
            (prediction,) = network.predict([image])
            json.dumps(as_json(prediction, network.description, 0.3))
            if network.description.task in ('detection', 'segmentation'):
                draw(image, prediction, network.description, 0.3)
    except RuntimeProblem as error:
        sentence = str(error)
    else:
        return
    assert sentence and '\n' not in sentence


def test_any_value_is_answered_or_named(tmp_path):
    """A sample of the sweep below."""
    cases = [(task, key, value) for task in TASKS for key in describe(task) for value in [*BAD, 'missing']]
    for task, key, value in random.Random(0).sample(cases, 60):
        predict(write(tmp_path / 'a.onnx', task, _text(task, key, value)), 'onnxruntime')


def _text(task, key, value):
    description = copy.deepcopy(describe(task))
    description[key] = value
    if value == 'missing':
        del description[key]
    return json.dumps(description)


@pytest.mark.nightly
@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino'])
def test_all_values_are_answered_or_named(tmp_path, task, engine):
    """Each value of the description replaced by each bad one, and texts with changed characters."""
    pytest.importorskip(engine, reason='it reads the files')
    for key, value in itertools.product(describe(task), [*BAD, 'missing']):
        predict(write(tmp_path / 'a.onnx', task, _text(task, key, value)), engine)
    rng = random.Random(1)
    for _ in range(300):
        text = json.dumps(describe(task))
        for _ in range(rng.randint(1, 4)):
            i = rng.randrange(len(text))
            text = text[:i] + rng.choice('[]{}",:0-1e9ntf\\ \0é') + text[i + rng.randint(0, 3) :]
        predict(write(tmp_path / 'a.onnx', task, text.replace('\0', '')), engine)


@pytest.mark.nightly
@pytest.mark.parametrize('engine', ['onnxruntime', 'openvino'])
def test_changed_bytes_are_answered_or_named(tmp_path, engine):
    pytest.importorskip(engine, reason='it reads the files')
    path, rng = write(tmp_path / 'a.onnx', 'detection'), random.Random(2)
    content = path.read_bytes()
    for _ in range(500):
        changed = bytearray(content)
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        path.write_bytes(changed[: rng.choice([len(changed), rng.randrange(len(changed))])])
        predict(path, engine)


class Evil:
    """What makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def write_pt2(path, kind, ran):
    """A file of PyTorch in which code hides, as its loader would run it."""
    plain = path.with_name('plain.pt2')
    if not plain.exists():
        torch.export.save(torch.export.export(torch.nn.Linear(2, 2).eval(), (torch.zeros(1, 2),)), plain)
    pickled = io.BytesIO()
    torch.save(Evil(ran), pickled)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, 'w') as target:
        for name in source.namelist():
            content = source.read(name)
            if kind == 'weights' and name.endswith('weights_config.json'):
                config = json.loads(content)
                for entry in config['config'].values():
                    entry['use_pickle'] = True
                content = json.dumps(config).encode()
            elif (kind == 'weights' and '/weights/' in name) or (
                kind == 'sample inputs' and '/sample_inputs/' in name
            ):
                content = pickled.getvalue()
            elif kind == 'expression' and name.endswith('models/model.json'):
                model = json.loads(content)
                code = f'__import__("os").mkdir({str(ran)!r})'
                size = dict(as_expr=dict(expr_str=code, hint=None))
                model['graph_module']['graph']['tensor_values']['input']['sizes'][0] = size
                content = json.dumps(model).encode()
            target.writestr(name, content)
    return path


@pytest.mark.parametrize('kind', ['weights', 'sample inputs', 'expression'])
def test_pt2_files_are_read_only_if_they_are_trusted(tmp_path, kind):
    ran = tmp_path / 'ran'
    path = write_pt2(tmp_path / 'evil.pt2', kind, ran)
    with pytest.raises(RuntimeProblem, match='PyTorch executes code that is in .*: if you trust who wrote'):
        load(path)
    assert not ran.exists()
    with pytest.raises(RuntimeProblem):  # no network of ours
        load(path, trusted=True)
    assert ran.exists()  # the reason


def test_pt2_files_on_the_command_lines(tmp_path):
    path = write_pt2(tmp_path / 'evil.pt2', 'weights', tmp_path / 'ran')
    (tmp_path / 'a.png').write_bytes(b'')
    for command in (
        ['tools/deployment/run.py', path, tmp_path / 'a.png'],
        ['tools/deployment/evaluate.py', path, 'tests/data/tiny_upernet.py'],
    ):
        assert '--trust-file' in Tools.fail(sys.executable, *command)
    assert not (tmp_path / 'ran').exists()


def test_a_damaged_pt2_file(tmp_path):
    path = write_pt2(tmp_path / 'a.pt2', 'none', tmp_path / 'ran')
    with pytest.raises(RuntimeProblem, match='was not written by mmmeta'):
        load(path, trusted=True)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo('plain/data/weights/weight_0')
    content[info.header_offset + 30 + len(info.filename)] ^= 255  # the first byte of a weight
    path.write_bytes(content)
    with pytest.raises(RuntimeProblem, match='PyTorch .* cannot open .* the checksum of .* is another'):
        load(path, trusted=True)
