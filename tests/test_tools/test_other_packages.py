"""The same tools with a config of MMPretrain."""

import sys

import numpy as np
import pytest
import torch
from conftest import losses, metrics
from PIL import Image

from mmmeta.apis.inference import build_model
from mmmeta.utils.errors import UsageError

CONFIG = """
_base_ = ['mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['mmmeta'], allow_failed_imports=False)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmmeta.PoolFormerV2', out_indices=(3,),
        arch=dict(base='s12', depths=(1, 1, 1, 1), dims=(16, 16, 32, 32)),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', in_channels=32, num_classes=2, topk=(1,)),
)
data_preprocessor = dict(num_classes=2, mean=[127.5] * 3, std=[127.5] * 3)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset', data_root='{root}', data_prefix='',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    ),
)
val_dataloader = test_dataloader = train_dataloader
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1,))
optim_wrapper = dict(
    type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(type='AdamW', lr=1e-3),
    constructor='mmmeta.LayerDecayOptimWrapperConstructor', paramwise_cfg=dict(layer_decay_rate=0.9),
)
param_scheduler = dict(type='CosineAnnealingLR', by_epoch=True, T_max=6)
train_cfg = dict(by_epoch=True, max_epochs=6)
val_cfg = test_cfg = dict()
"""


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    for name, level in (('dark', 40), ('light', 200)):
        (tmp_path / 'data' / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.normal(level, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / 'data' / name / f'{name}{i}.png')
    path = tmp_path / 'classifier.py'
    path.write_text(CONFIG.replace('{root}', str(tmp_path / 'data')))
    return path


def test_a_classifier_trains_by_epoch_resumes_and_is_tested(tools, config, tmp_path):
    pytest.importorskip('mmpretrain', reason='mmpretrain is not installed')
    work_dir = tmp_path / 'work'
    train = (sys.executable, 'tools/train.py', config, '--work-dir', work_dir)
    options = ('--cfg-options', 'default_hooks.logger.interval=1', 'randomness.seed=1')
    tools.run(*train, *options, 'train_cfg.max_epochs=3')
    tools.run(*train, '--resume', *options)
    assert list(losses(work_dir)) == list(range(1, 13))
    assert torch.load(work_dir / 'epoch_6.pth', weights_only=True)['meta']['epoch'] == 6
    test = (
        sys.executable,
        'tools/test.py',
        config,
        work_dir / 'epoch_6.pth',
        '--work-dir',
        tmp_path / 'test',
    )
    tools.run(*test, '--show-dir', tmp_path / 'pictures')
    assert metrics(tmp_path / 'test')['accuracy/top1'] == 100.0
    assert len(list((tmp_path / 'pictures').rglob('*.png'))) == 8


def test_a_classifier_of_another_family_is_built_with_its_checkpoint(tmp_path):
    pytest.importorskip('mmpretrain', reason='mmpretrain is not installed')
    name, path = 'mmpretrain::shufflenet_v1/shufflenet-v1-1x_16xb64_in1k.py', tmp_path / 'epoch_1.pth'
    state_dict = build_model(name, 'none').state_dict()
    torch.save(dict(state_dict=state_dict, meta={}), path)
    for key, value in build_model(name, str(path)).state_dict().items():
        assert torch.equal(value, state_dict[key])
    del state_dict['head.fc.weight']
    torch.save(dict(state_dict=state_dict, meta={}), path)
    with pytest.raises(
        UsageError, match=r"epoch_1.pth' is not a checkpoint of this config.* \(head\.fc\.weight\)"
    ):
        build_model(name, str(path))


def test_a_folder_that_is_not_there(tools, config, tmp_path):
    message = tools.fail(
        sys.executable,
        'tools/train.py',
        config,
        '--work-dir',
        tmp_path / 'w',
        '--cfg-options',
        'train_dataloader.dataset.data_root=/no/where',
    )
    assert "looked for images or annotations in '/no/where/'" in message
