"""Classifiers through the real command lines."""

import sys

import peers
import pytest
import torch
from conftest import ROOT, Tools, losses, metrics
from PIL import Image
from timm_peer import randomise

from mmmeta.apis.inference import zoo_config_path
from mmmeta.config.loading import load_config
from mmmeta.visualization.pictures import GAP, TITLE
from mmmeta.weights import ZOO

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
    assert sorted(losses(trained)) == list(range(5, 85, 5))
    command = (sys.executable, 'tools/test.py', CONFIG, trained / 'epoch_8.pth', '--work-dir', tmp_path)
    cls_tools.run(*command, '--cfg-options', *cls_tools.data_options)
    found = metrics(tmp_path)
    # Chance: 5.6 and 27.8.
    assert found['accuracy/top1'] > 18
    assert found['accuracy/top5'] > 70


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


@pytest.mark.parametrize('wrap', [dict, lambda state_dict: {'state_dict': state_dict}])
def test_an_average_of_weights_starts_from_weights_of_any_layout(wrap, cls_tools, tmp_path):
    """EMAHook reads a checkpoint too: what it makes of it is what is tested."""
    peer = peers.timm_model('caformer_s18')
    randomise(peer)
    torch.save(wrap(peer.state_dict()), tmp_path / 'timm.pth')
    for synset in ('n01498041', 'n01531178'):
        (tmp_path / 'data' / synset).mkdir(parents=True)
        Image.new('RGB', (80, 64)).save(tmp_path / 'data' / synset / 'a.png')
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = '{ROOT}/configs/imagenet/caformer_s18_in1k.py'\n"
        "custom_hooks = [dict(type='EMAHook', momentum=1e-4)]\n"
        "test_dataloader = dict(dataset=dict(_delete_=True, type='mmmeta.ImageNetSubset', "
        f"data_root='{tmp_path}/data', pipeline=[dict(type='LoadImageFromFile'), "
        "dict(type='Resize', scale=(64, 64)), dict(type='PackInputs')]))\n"
    )
    with torch.no_grad():
        mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
        scores = peer((-mean / std)[None, :, None, None].expand(1, 3, 64, 64))[0]
    rank = int((scores > scores[6]).sum()) + 1, int((scores > scores[11]).sum()) + 1
    command = (
        sys.executable,
        'tools/test.py',
        config,
        tmp_path / 'timm.pth',
        '--work-dir',
        tmp_path / 'work',
    )
    best, worst = sorted(rank)
    cls_tools.run(*command, '--cfg-options', f'test_evaluator.topk=[{best},{worst}]')
    found = metrics(tmp_path / 'work')
    assert (found[f'accuracy/top{best}'], found[f'accuracy/top{worst}']) == (50.0, 100.0)


class TestImageDemo:
    DEMO = (sys.executable, 'tools/image_demo.py')

    @pytest.fixture(scope='class')
    def image(self, tmp_path_factory):
        """A picture in which chance has its say."""
        path = tmp_path_factory.mktemp('images') / 'cats.png'
        pixels = torch.randint(256, (150, 200, 3), generator=torch.Generator().manual_seed(0))
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)
        return path

    @pytest.fixture(scope='class')
    def weights(self, tmp_path_factory):
        """timm's PoolFormerV2-S12 and its file in the layout of the authors."""
        peer = peers.timm_model('poolformerv2_s12')
        randomise(peer)
        path = tmp_path_factory.mktemp('weights') / 'poolformerv2_s12.pth'
        torch.save(peers.sail_metaformer(peer.state_dict()), path)
        return peer, path

    def test_its_guesses_are_those_of_timm(self, tools, image, weights, tmp_path):
        from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
        from timm.data import create_transform

        peer, path = weights
        output = tools.run(*self.DEMO, image, 'poolformerv2_s12', path, '--out-dir', tmp_path, COLUMNS='200')
        transform = create_transform(224, crop_pct=1.0, interpolation='bicubic')
        with torch.no_grad():
            scores = peer(transform(Image.open(image))[None]).softmax(-1)[0]
        for value, label in zip(*scores.topk(5), strict=True):
            line = next(line for line in output.splitlines() if IMAGENET_CATEGORIES[label] in line)
            assert line.strip('│ ').split('│')[0].strip() == str(int(label))
            assert abs(float(line.strip('│ ').split('│')[2]) - value) < 2e-4
        with Image.open(tmp_path / 'cats.png') as picture:
            assert picture.size == (3 * 200 + 2 * GAP, 3 * 150 + TITLE + GAP)  # 512 pixels or more

    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            (('{image}x', 'caformer_s18'), "there is no image '{image}x': give a file or a folder"),
            ((__file__, 'caformer_s18'), "'{file}' is damaged or not an image: give another one"),
            (('{image}', 'caformer_s19'), "there are no weights 'caformer_s19' in the zoo: did you mean "),
            (
                ('{image}', 'configs/imagenet/caformer_s18_in1k.py'),
                "_in1k.py' is a config, and no weights are published for it: give a checkpoint",
            ),
            (('{image}', 'caformer_s18', '--device', 'gpu'), "device 'gpu' cannot be used ("),
            (
                ('{image}', 'convformer_s18', '{weights}'),
                "is not a checkpoint of this config's model: of ",
            ),
        ],
    )
    def test_mistakes(self, arguments, message, tools, image, weights):
        values = dict(image=image, weights=weights[1], file=__file__)
        error = tools.fail(*self.DEMO, *(argument.format(**values) for argument in arguments))
        assert message.format(**values) in error


@pytest.mark.parametrize('name', [w.name for w in ZOO.values() if w.num_classes not in (0, 150)])
def test_every_published_classifier_has_its_config(name):
    cfg = load_config(zoo_config_path(name))
    weights = ZOO[name]
    assert cfg.model.head.num_classes == weights.num_classes
    arch = cfg.model.backbone.arch
    assert (arch if isinstance(arch, str) else arch['base']) == weights.size
    assert cfg.model.backbone.type.lower() == f'mmmeta.{weights.family}'
