"""Weights of other repositories through the real command lines."""

import sys

import pytest
import timm
import torch
from conftest import losses, metrics
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
        assert message == f"error: '{file}' is there already: choose another name, or say --force"
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
    def test_from_pretrained_weights(self, tools, tmp_path):
        tools.train(tmp_path / 'first', options=['train_cfg.max_iters=1', 'train_cfg.val_interval=1'])
        first = tmp_path / 'first/iter_1.pth'
        init = [
            'model.backbone.init_cfg.type=Pretrained',
            f'model.backbone.init_cfg.checkpoint={first}',
            'train_cfg.max_iters=1',
        ]
        output = tools.train(tmp_path / 'second', options=init)
        assert 'backbone tensors from' in output
        assert losses(tmp_path / 'second')

    def test_from_a_backbone_of_another_size(self, tools, file, tmp_path):
        command = (sys.executable, 'tools/train.py', tools.config, '--work-dir', tmp_path / 'work')
        init = ('model.backbone.init_cfg.type=Pretrained', f'model.backbone.init_cfg.checkpoint={file}')
        message = tools.fail(*command, '--cfg-options', *tools.data_options, *init)
        assert 'does not fit this' in message
        assert "What it has fits CAFormer arch='s18'" in message
        message = tools.fail(*command, '--cfg-options', *tools.data_options, f'load_from={file}')
        assert "is not a checkpoint of this config's model" in message
        message = tools.fail(*command, '--cfg-options', *tools.data_options, *init[:1], f'{init[1]}x')
        assert f"there is no checkpoint '{file}x'" in message
