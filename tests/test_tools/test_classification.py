"""Classifiers through the real command lines."""

import sys

import pytest
import torch
from conftest import Tools, losses, metrics
from PIL import Image

pytest.importorskip('mmpretrain', reason="classification is MMPretrain's")
CONFIG = 'tests/data/tiny_classifier.py'


@pytest.fixture(scope='module')
def cls_tools(imagenet_root):
    """The command lines with a classifier."""
    return Tools(CONFIG, imagenet_root)


@pytest.fixture(scope='module')
def trained(cls_tools, tmp_path_factory):
    """A run of eight epochs, interrupted after four."""
    work_dir = tmp_path_factory.mktemp('run')
    cls_tools.train(work_dir, options=['train_cfg.max_epochs=4'])
    cls_tools.train(work_dir, '--resume')
    return work_dir


def test_it_learns_and_is_resumed(cls_tools, trained, tmp_path):
    assert sorted(losses(trained)) == list(range(5, 165, 5))
    command = (sys.executable, 'tools/test.py', CONFIG, trained / 'epoch_8.pth', '--work-dir', tmp_path)
    cls_tools.run(*command, '--cfg-options', *cls_tools.data_options)
    found = metrics(tmp_path)
    # Chance: 5.6 and 27.8.
    assert found['accuracy/top1'] > 25
    assert found['accuracy/top5'] > 80


def test_a_resumed_run_without_a_checkpoint_starts_from_the_weights_it_names(cls_tools, trained, tmp_path):
    options = ['train_cfg.max_epochs=1', f'load_from={trained / "epoch_8.pth"}']
    output = cls_tools.train(tmp_path, '--resume', options=options)
    assert f'Load checkpoint from {trained / "epoch_8.pth"}' in output
    assert losses(tmp_path)[5] < 2.2  # untrained: 2.9


def test_robustness_data_take_the_place_of_the_test_data(cls_tools, tmp_path):
    """A classifier that ranks class 6 before 11 before all others, whatever it sees."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    cfg = Config.fromfile(CONFIG)
    init_default_scope('mmpretrain')
    cfg.model.head.num_classes = 1000
    model = MODELS.build(cfg.model)
    model.head.fc.fc2.weight.data.zero_()
    model.head.fc.fc2.bias.data.zero_()
    model.head.fc.fc2.bias.data[[500, 6, 11]] = torch.tensor([3.0, 2.0, 1.0])
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'constant.pth')
    for synset, count in (('n01498041', 3), ('n01531178', 1)):
        (tmp_path / 'data' / synset).mkdir(parents=True)
        for i in range(count):
            Image.new('RGB', (80, 64)).save(tmp_path / 'data' / synset / f'{i}.png')
    command = (
        sys.executable,
        'tools/test.py',
        CONFIG,
        tmp_path / 'constant.pth',
        '--work-dir',
        tmp_path / 'work',
    )
    options = (
        '--cfg-options',
        'model.head.num_classes=1000',
        f'test_dataloader.dataset.data_root={tmp_path}/data',
    )
    robustness = 'configs/imagenet/robustness'
    cls_tools.run(*command, '--test-data', f'{robustness}/imagenet_a.py', *options, 'test_evaluator.topk=[1]')
    assert metrics(tmp_path / 'work')['accuracy/top1'] == 75.0
    cls_tools.run(*command, '--test-data', f'{robustness}/imagenet_sketch.py', *options)
    found = metrics(tmp_path / 'work')
    assert (found['accuracy/top1'], found['accuracy/top5']) == (0.0, 100.0)
    message = cls_tools.fail(*command, '--test-data', f'{robustness}/imagenet_c.py', *options)
    assert "ImageNet-C lacks the images of 75 of its 75 folders, such as '" in message
    (tmp_path / 'other.py').write_text('test_evaluator = dict()')
    message = cls_tools.fail(*command, '--test-data', tmp_path / 'other.py', *options)
    assert f"'{tmp_path}/other.py' has no test_dataloader: give a config with test data" in message
