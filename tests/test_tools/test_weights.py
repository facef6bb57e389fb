"""Weights of other repositories through the real command lines."""

import sys

import pytest
import timm
import torch
from conftest import ROOT, TINY_CONFIG, losses, metrics
from safetensors.torch import load_file, save_file
from timm_peer import randomise

CONVERT = (sys.executable, 'tools/model_converters/convert_weights.py')


@pytest.fixture(scope='module')
def peer():
    """timm's CAFormer-S18."""
    model = timm.create_model('caformer_s18')
    randomise(model)
    return model


@pytest.fixture
def file(peer, tmp_path):
    """``peer`` as a file."""
    save_file(peer.state_dict(), tmp_path / 'timm.safetensors')
    return tmp_path / 'timm.safetensors'


class TestConvert:
    def test_there_and_back(self, tools, file, peer, tmp_path):
        own, sail, back = tmp_path / 'own.pth', tmp_path / 'sail.pth', tmp_path / 'back.safetensors'
        output = tools.run(*CONVERT, file, own)
        assert f'206 tensors, timm layout -> mmmeta layout: {own}' in output
        assert 'backbone.stem.0.conv.weight' in torch.load(own, weights_only=True)['state_dict']
        tools.run(*CONVERT, own, sail, '--to', 'sail-sg/metaformer')
        output = tools.run(*CONVERT, sail, back, '--to', 'timm')
        assert 'sail-sg/metaformer layout -> timm layout' in output
        state_dict = load_file(back)
        assert state_dict.keys() == peer.state_dict().keys()
        assert all(torch.equal(state_dict[name], tensor) for name, tensor in peer.state_dict().items())

    def test_what_is_there_is_kept(self, tools, file):
        message = tools.fail(*CONVERT, file, file)
        assert message == f"error: '{file}' exists already: choose another name, or pass --force"
        message = tools.fail(*CONVERT, file.with_name('no.pth'), file.with_name('new.pth'))
        assert 'there is no checkpoint' in message
        assert not file.with_name('new.pth').exists()


class TestPoolFormerOfMMSegmentation:
    """A whole segmentor of MMSegmentation's PoolFormer zoo, with our config unchanged."""

    CONFIG = 'configs/fpn_poolformer_s12_ade20k.py'

    @pytest.fixture(scope='class')
    def theirs(self):
        """MMSegmentation's own model."""
        from mmengine.config import Config
        from mmseg.registry import MODELS
        from mmseg.utils import register_all_modules

        register_all_modules(init_default_scope=True)
        cfg = Config.fromfile(self.CONFIG)
        cfg.model.backbone = dict(
            type='mmpretrain.PoolFormer',
            arch='s12',
            in_patch_size=7,
            in_stride=4,
            in_pad=2,
            out_indices=[0, 2, 4, 6],
        )
        import mmpretrain.models  # noqa: F401

        model = MODELS.build(cfg.model)
        randomise(model)
        return model

    def test_it_evaluates(self, tools, theirs, tmp_path):
        torch.save({'meta': {}, 'state_dict': theirs.state_dict()}, tmp_path / 'theirs.pth')
        command = (
            sys.executable,
            'tools/test.py',
            self.CONFIG,
            tmp_path / 'theirs.pth',
            '--work-dir',
            tmp_path,
        )
        tools.run(*command, '--cfg-options', *tools.data_options)
        assert 'mIoU' in metrics(tmp_path)

        from mmengine.config import Config
        from mmseg.registry import MODELS

        ours = MODELS.build(Config.fromfile(self.CONFIG).model)
        ours.load_state_dict(theirs.state_dict())
        image = torch.randn(1, 3, 64, 96)
        ours.eval()
        theirs.eval()
        with torch.no_grad():
            expected = theirs(image)
            assert (ours(image) - expected).abs().max() < 1e-4 * expected.abs().max()

    def test_one_tensor_less_is_refused(self, tools, theirs, tmp_path):
        state_dict = dict(theirs.state_dict())
        del state_dict['backbone.network.4.0.mlp.fc1.weight']
        torch.save({'state_dict': state_dict}, tmp_path / 'theirs.pth')
        command = (
            sys.executable,
            'tools/test.py',
            self.CONFIG,
            tmp_path / 'theirs.pth',
            '--work-dir',
            tmp_path,
        )
        message = tools.fail(*command, '--cfg-options', *tools.data_options)
        assert '1 missing (backbone.stages.2.blocks.0.mlp.fc1.weight)' in message


class TestTraining:
    @pytest.fixture
    def config(self, tmp_path):
        """The small config, starting from the weights in a file."""

        def write(checkpoint):
            init_cfg = f"dict(_delete_=True, type='Pretrained', checkpoint='{checkpoint}')"
            path = tmp_path / 'config.py'
            path.write_text(
                f"_base_ = '{ROOT}/{TINY_CONFIG}'\nmodel = dict(backbone=dict(init_cfg={init_cfg}))\n"
            )
            return path

        return write

    def test_from_pretrained_weights(self, tools, config, tmp_path):
        tools.train(tmp_path / 'first', options=['train_cfg.max_iters=1', 'train_cfg.val_interval=1'])
        path = config(tmp_path / 'first/iter_1.pth')
        output = tools.train(tmp_path / 'second', options=['train_cfg.max_iters=1'], config=path)
        assert f'backbone tensors from {tmp_path}/first/iter_1.pth (mmmeta layout)' in output
        assert losses(tmp_path / 'second')

    def test_from_a_backbone_of_another_size(self, tools, config, file, tmp_path):
        def refused(path, *options):
            command = (sys.executable, 'tools/train.py', path, '--work-dir', tmp_path / 'work')
            return tools.fail(*command, '--cfg-options', *tools.data_options, *options)

        message = refused(config(file))
        assert 'does not fit this CAFormer' in message
        assert "It matches CAFormer arch='s18'" in message
        message = refused(tools.config, f'load_from={file}')
        assert "does not have the backbone of this config's model" in message
        assert f"there is no checkpoint '{file}x'" in refused(config(f'{file}x'))


def test_a_classifier_straight_from_the_hub(tools, imagenet_root, tmp_path):
    """A published name as the checkpoint of a test, with the hub's cache on this machine and no network."""
    from PIL import Image
    from timm.data import ImageNetInfo, create_transform

    peer = timm.create_model('poolformerv2_s12').eval()
    randomise(peer)
    repo = tmp_path / 'hf/models--timm--poolformerv2_s12.sail_in1k'
    (repo / 'snapshots/abc').mkdir(parents=True)
    (repo / 'refs').mkdir()
    (repo / 'refs/main').write_text('abc')
    save_file(peer.state_dict(), repo / 'snapshots/abc/model.safetensors')
    command = (sys.executable, 'tools/test.py', 'configs/imagenet/poolformerv2_s12_in1k.py')
    sketch = (
        '--test-data',
        'configs/imagenet/robustness/imagenet_sketch.py',
        '--work-dir',
        tmp_path / 'work',
    )
    images = []
    for path in sorted((imagenet_root / 'val').rglob('*.JPEG'))[::9]:
        images.append(tmp_path / 'val' / path.parent.name / path.name)
        images[-1].parent.mkdir(parents=True, exist_ok=True)
        images[-1].symlink_to(path)
    data = (f'test_dataloader.dataset.data_root={tmp_path}', 'test_dataloader.dataset.data_prefix=val')
    options = ('--cfg-options', *data, 'test_evaluator.topk=[50]', 'test_dataloader.batch_size=8')
    cached = dict(HF_HUB_CACHE=str(tmp_path / 'hf'), HF_HUB_OFFLINE='1')
    tools.run(*command, 'mmmeta://poolformerv2_s12', *sketch, *options, **cached)

    transform = create_transform(224, crop_pct=1.0, interpolation='bicubic')
    info, found = ImageNetInfo('imagenet-1k'), []
    classes = {info.index_to_label_name(i): i for i in range(1000)}
    for path in images:
        with torch.no_grad():
            best = peer(transform(Image.open(path))[None])[0].topk(50).indices
        found.append(classes[path.parent.name] in best)
    # A score on the edge may fall to either side.
    assert abs(metrics(tmp_path / 'work')['accuracy/top50'] * len(found) / 100 - sum(found)) < 1.01
