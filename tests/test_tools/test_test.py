"""tools/test.py and tools/dist_test.sh on real files."""

import sys

import pytest
import torch
from conftest import ROOT, TINY_CONFIG, metrics
from PIL import Image

TEST = (sys.executable, 'tools/test.py')


@pytest.fixture(scope='module')
def checkpoint(tools, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('trained')
    tools.train(work_dir, options=('train_cfg.max_iters=3',))
    return work_dir / 'iter_3.pth'


def test_one_and_two_processes_measure_the_same(tools, checkpoint, tmp_path):
    options = ('--cfg-options', *tools.data_options)
    tools.run(*TEST, TINY_CONFIG, checkpoint, '--work-dir', tmp_path / 'one', *options)
    two = ('tools/dist_test.sh', TINY_CONFIG, checkpoint, 2, '--work-dir', tmp_path / 'two')
    tools.run(*two, *options)
    one = metrics(tmp_path / 'one')
    assert {'aAcc', 'mIoU', 'mAcc'} <= set(one)
    for name in ('aAcc', 'mIoU', 'mAcc'):
        assert metrics(tmp_path / 'two')[name] == one[name]


def test_none_evaluates_the_network_before_training(tools, checkpoint, tmp_path):
    options = ('--cfg-options', *tools.data_options)
    for folder, which in (('a', 'none'), ('b', 'none'), ('c', checkpoint)):
        tools.run(*TEST, TINY_CONFIG, which, '--work-dir', tmp_path / folder, *options)
    a, b, c = (metrics(tmp_path / folder)['aAcc'] for folder in 'abc')
    assert a == b != c


def test_show_dir_holds_a_picture_of_every_image(tools, checkpoint, tmp_path):
    pictures = tmp_path / 'pictures'
    command = (*TEST, TINY_CONFIG, checkpoint, '--work-dir', tmp_path, '--show-dir', pictures)
    tools.run(*command, '--cfg-options', *tools.data_options)
    found = sorted(pictures.rglob('*.png'))
    assert len(found) == 4
    source = Image.open(sorted((tools.data_root / 'images/validation').iterdir())[0])
    # Annotation and prediction, side by side.
    assert Image.open(found[0]).size == (2 * source.width, source.height)


def test_tta_averages_scales_and_flips(tools, checkpoint, tmp_path):
    plain = tmp_path / 'plain'
    options = ['--cfg-options', *tools.data_options, 'test_dataloader.dataset.indices=1']
    tools.run(*TEST, TINY_CONFIG, checkpoint, '--work-dir', plain, *options)
    scales = 'tta_pipeline.1.transforms.0'
    options += [f'{scales}.{i}.scale=({32 * i + 64},{32 * i + 64})' for i in range(6)]
    tools.run(*TEST, TINY_CONFIG, checkpoint, '--work-dir', tmp_path / 'tta', '--tta', *options)
    a, b = metrics(plain)['aAcc'], metrics(tmp_path / 'tta')['aAcc']
    assert 0 <= b <= 100
    assert a != b


class TestRefusals:
    def test_a_checkpoint_of_another_model(self, tools, checkpoint, tmp_path):
        options = ('--cfg-options', *tools.data_options, 'model.backbone.arch.dims=[32,32,64,96]')
        options += ('model.decode_head.in_channels=[32,32,64,96]',)
        message = tools.fail(*TEST, TINY_CONFIG, checkpoint, '--work-dir', tmp_path, *options)
        assert f"'{checkpoint}' is not a checkpoint of this config's model: of " in message
        assert 'of another shape (backbone.stages.3.downsample.conv.weight (64, 64, 3, 3)' in message
        assert 'Give the config that it was trained with' in message

    def test_a_checkpoint_that_does_not_exist(self, tools, tmp_path):
        command = (*TEST, TINY_CONFIG, tmp_path / 'no.pth', '--work-dir', tmp_path / 'work')
        message = tools.fail(*command, '--cfg-options', *tools.data_options)
        assert message == f"error: there is no checkpoint '{tmp_path}/no.pth': give the path of a file"
        assert not (tmp_path / 'work').exists()

    def test_a_checkpoint_that_was_cut_off(self, tools, checkpoint, tmp_path):
        half = tmp_path / 'half.pth'
        half.write_bytes(checkpoint.read_bytes()[:100_000])
        message = tools.fail(
            *TEST, TINY_CONFIG, half, '--work-dir', tmp_path, '--cfg-options', *tools.data_options
        )
        assert f"'{half}' is damaged or cut off" in message

    def test_code_in_a_checkpoint_does_not_run(self, tools, tmp_path):
        class Payload:
            def __reduce__(self):
                return (open, (str(tmp_path / 'ran'), 'w'))

        torch.save({'state_dict': {}, 'x': Payload()}, tmp_path / 'evil.pth')
        command = (*TEST, TINY_CONFIG, tmp_path / 'evil.pth', '--work-dir', tmp_path)
        message = tools.fail(*command, '--cfg-options', *tools.data_options)
        assert 'needs code to be read' in message
        assert not (tmp_path / 'ran').exists()


REAL = ROOT.parent / 'shared/data/ade/ADEChallengeData2016'


@pytest.mark.skipif(not REAL.is_dir(), reason='the real ADE20K images are not on this machine')
def test_real_images(tools, checkpoint, tmp_path):
    options = [
        f'test_dataloader.dataset.data_root={REAL}',
        'test_dataloader.dataset.pipeline.1.scale=(2048,512)',
    ]
    command = (*TEST, TINY_CONFIG, checkpoint, '--work-dir', tmp_path, '--show-dir', tmp_path / 'pictures')
    tools.run(*command, '--cfg-options', *options)
    assert 0 <= metrics(tmp_path)['mIoU'] <= 100
    assert len(list((tmp_path / 'pictures').rglob('*.png'))) == len(
        list((REAL / 'images/validation').iterdir())
    )
