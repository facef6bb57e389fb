"""tools/train.py and tools/dist_train.sh on real files."""

import signal
import sys
import time

import pytest
import torch
from conftest import TINY_CONFIG, losses

STOCK_HOOK = 'default_hooks.checkpoint.type=mmengine.CheckpointHook'
SHORT = ('train_cfg.max_iters=2',)
FAST = ('train_cfg.max_iters=8', 'optim_wrapper.optimizer.lr=1e-2', 'param_scheduler.0.start_factor=1.0')


def test_two_processes_with_one_image_each_do_what_one_does_with_two(tools, tmp_path):
    tools.train(tmp_path / 'one', options=('train_dataloader.batch_size=2', *FAST))
    command = ('tools/dist_train.sh', TINY_CONFIG, 2, '--work-dir', tmp_path / 'two')
    options = ('--cfg-options', *tools.data_options, 'train_dataloader.batch_size=1', *FAST)
    output = tools.run(*command, *options)
    expected, curve = losses(tmp_path / 'one'), losses(tmp_path / 'two')
    assert list(curve) == list(expected) == list(range(1, 9))
    # The steps are large: gradients that were not averaged would show from the second iteration on.
    assert expected[8] < 0.92 * expected[1]
    assert list(curve.values()) == pytest.approx(list(expected.values()), rel=1e-4)
    lines = output.splitlines()
    assert next(i for i, line in enumerate(lines) if 'loss: ' in line) < 40
    assert 'UserWarning' not in output  # of the stack, once for each process


class TestResume:
    """A run that was killed goes on as if nothing had happened."""

    config = 'tests/data/tiny_ema.py'

    def test_after_kill_equals_an_uninterrupted_run(self, tools, tmp_path):
        killed, whole = tmp_path / 'killed', tmp_path / 'whole'
        options = ['--cfg-options', *tools.data_options]
        command = (sys.executable, 'tools/train.py', self.config, '--work-dir')
        process = tools.start(*command, killed, *options)
        pointer = killed / 'last_checkpoint'
        deadline = time.monotonic() + 120
        while not pointer.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, 'the run ended before it could be killed'
        at = int(pointer.read_text().rpartition('iter_')[2].removesuffix('.pth'))
        assert at in (4, 8)
        # The uninterrupted run starts from the seed that the killed one drew.
        seed = torch.load(killed / f'iter_{at}.pth', weights_only=True)['meta']['seed']
        tools.run(*command, whole, *options, f'randomness.seed={seed}')
        before = losses(killed)
        tools.run(*command, killed, '--resume', *options)

        expected, resumed = losses(whole), losses(killed)
        assert list(expected) == list(range(1, 13))
        assert {i: resumed[i] for i in range(at + 1, 13)} == {i: expected[i] for i in range(at + 1, 13)}
        assert {i: before[i] for i in range(1, at + 1)} == {i: expected[i] for i in range(1, at + 1)}
        a, b = (torch.load(folder / 'iter_12.pth', weights_only=True) for folder in (killed, whole))
        assert not torch.equal(
            a['state_dict']['backbone.stem.0.conv.weight'],
            a['ema_state_dict']['module.backbone.stem.0.conv.weight'],
        )
        for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
            assert_equal(a[part], b[part], part)
        assert_equal(
            a['message_hub']['log_scalars']['train/loss'],
            b['message_hub']['log_scalars']['train/loss'],
            'log',
        )
        assert sorted(p.name for p in killed.glob('*.pth')) == ['iter_12.pth', 'iter_8.pth']
        assert not list(killed.glob('*.part'))


def assert_equal(a, b, where):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_equal(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_equal(*pair, f'{where}.{i}')
    else:
        assert a == b, where


def test_a_stock_checkpoint_is_read_only_if_trusted(tools, tmp_path):
    tools.train(tmp_path, options=(*SHORT, STOCK_HOOK))
    with pytest.raises(Exception, match='Weights only load failed'):
        torch.load(tmp_path / 'iter_2.pth', weights_only=True)
    command = (sys.executable, 'tools/train.py', TINY_CONFIG, '--work-dir', tmp_path, '--resume')
    options = ('--cfg-options', *tools.data_options, 'train_cfg.max_iters=3')
    message = tools.fail(*command, *options)
    assert f"'{tmp_path}/iter_2.pth' needs code to be read" in message
    assert 'if you trust its origin, pass --trust-checkpoint' in message
    tools.run(*command, '--trust-checkpoint', *options)
    assert torch.load(tmp_path / 'iter_3.pth', weights_only=True)['meta']['iter'] == 3
    test = (sys.executable, 'tools/test.py', TINY_CONFIG, tmp_path / 'iter_2.pth', '--work-dir', tmp_path)
    assert 'mIoU' in tools.run(*test, '--trust-checkpoint', '--cfg-options', *tools.data_options)
    # With other widths the optimiser's fused kernel ended the process by SIGSEGV, or parts stayed random.
    message = tools.fail(*command, *options, 'model.decode_head.channels=32')
    assert (
        f"cannot resume from '{tmp_path}/iter_3.pth': its state_dict is not that of the config's" in message
    )


def test_amp_is_bfloat16_on_cpu_and_lr_scales_with_the_batch(tools, tmp_path):
    output = tools.train(tmp_path, '--amp', '--auto-scale-lr', '--verbose', options=SHORT)
    assert "type='mmmeta.Bf16OptimWrapper'" in output
    # 2 images at once instead of the 16 that the learning rate of 1e-3 is for.
    checkpoint = torch.load(tmp_path / 'iter_2.pth', weights_only=True)
    assert checkpoint['optimizer']['param_groups'][0]['initial_lr'] == pytest.approx(1e-3 / 8)
    assert all(loss > 0 for loss in losses(tmp_path).values())


def test_the_first_loss_is_on_the_first_screen(tools, tmp_path):
    lines = tools.train(tmp_path, options=SHORT).splitlines()
    first = next(i for i, line in enumerate(lines) if 'loss: ' in line)
    assert first < 40
    (summary,) = [line for line in lines if 'M parameters' in line]
    assert (
        'EncoderDecoder with mmmeta.CAFormer, 0.3 M parameters, 2 iterations in batches of 2 images, '
        in summary
    )
    assert 'train_dataloader = dict(' not in lines
    (log,) = tmp_path.glob('*/*.log')
    assert 'train_dataloader = dict(' in log.read_text().splitlines()
