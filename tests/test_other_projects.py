"""Use in somebody else's project: its own folder, stock bases, Runner and inferencers, not our tools."""

import json
import sys

import pytest
import torch
import torchvision
from conftest import ROOT, Tools

BACKBONE = """
{imports}
dims = [32, 32, 64, 64]
backbone = dict(
    _delete_=True,
    type='mmmeta.CAFormer',
    arch=dict(base='s18', depths=(1, 1, 1, 1), dims=dims),
    window=3,
)
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}'))
val_dataloader = test_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root='{data}')
)
env_cfg = dict(dist_cfg=dict(backend='gloo'))
randomness = dict(seed=0)
"""
DETECTOR = """
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
{backbone}
model = dict(
    backbone=backbone,
    neck=dict(in_channels=dims),
    train_cfg=dict(rpn_proposal=dict(max_per_img=50), rcnn=dict(sampler=dict(num=16))),
    test_cfg=dict(rpn=dict(max_per_img=50), rcnn=dict(score_thr=0.0, max_per_img=5)),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(96, 64), keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(96, 64), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader['dataset']['pipeline'] = train_pipeline
val_dataloader['dataset']['pipeline'] = test_pipeline
val_evaluator = test_evaluator = dict(ann_file='{data}/annotations/instances_val2017.json')
train_cfg = dict(max_epochs=1)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4))
"""
SEGMENTOR = """
_base_ = [
    'mmseg::_base_/models/upernet_swin.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_160k.py',
]
{backbone}
norm_cfg = dict(type='BN')
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=backbone,
    decode_head=dict(in_channels=dims, channels=16, num_classes=150, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=dims[2], channels=16, num_classes=150, norm_cfg=norm_cfg),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='Resize', scale=(64, 64)),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 64), keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
train_dataloader['batch_size'] = 2
train_dataloader['dataset']['pipeline'] = train_pipeline
val_dataloader['dataset']['pipeline'] = test_pipeline
train_cfg = dict(max_iters=3, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=3))
"""
RUN = """
from mmengine.config import Config
from mmengine.runner import Runner

cfg = Config.fromfile('config.py')
cfg.work_dir = 'work'
Runner.from_cfg(cfg).train()
"""
DETECT = """
from mmdet.apis import DetInferencer

inferencer = DetInferencer('config.py', show_progress=False)
(prediction,) = inferencer('{image}', out_dir='out', no_save_vis=False)['predictions']
assert set(prediction) >= {{'bboxes', 'labels', 'scores', 'masks'}}, prediction.keys()
assert len(prediction['bboxes']) == len(prediction['masks']) == 5
"""
SEGMENT = """
from mmseg.apis import MMSegInferencer

inferencer = MMSegInferencer('config.py')
prediction = inferencer('{image}', out_dir='out')['predictions']
assert prediction.ndim == 2 and prediction.min() >= 0 and prediction.max() < 150, prediction.shape
"""


def run(script, folder):
    (folder / 'script.py').write_text(script)
    return Tools.run(sys.executable, folder / 'script.py', cwd=folder)


# Without custom_imports the registry finds the module by its scope.
@pytest.fixture(params=["custom_imports = dict(imports=['mmmeta'], allow_failed_imports=False)", ''])
def imports(request):
    return request.param


def write(folder, template, imports, data):
    backbone = BACKBONE.replace('{imports}', imports)
    text = template.replace('{backbone}', backbone).replace('{data}', str(data))
    (folder / 'config.py').write_text(text)


def test_a_detector(tmp_path, coco_root, imports):
    pytest.importorskip('mmdet', reason='the project is one of MMDetection')
    write(tmp_path, DETECTOR, imports, coco_root)
    out = run(RUN, tmp_path)
    assert 'coco/segm_mAP_50' in out
    assert (tmp_path / 'work/epoch_1.pth').is_file()
    image = next((coco_root / 'val2017').iterdir())
    run(DETECT.format(image=image), tmp_path)
    assert (tmp_path / 'out/vis' / image.name).is_file()


def test_a_segmentor(tmp_path, ade_root, imports):
    pytest.importorskip('mmseg', reason='the project is one of MMSegmentation')
    write(tmp_path, SEGMENTOR, imports, ade_root)
    assert 'mIoU' in run(RUN, tmp_path)
    assert (tmp_path / 'work/iter_3.pth').is_file()
    image = next((ade_root / 'images/validation').iterdir())
    run(SEGMENT.format(image=image), tmp_path)
    assert [len(list((tmp_path / 'out' / kind).iterdir())) for kind in ('pred', 'vis')] == [1, 1]


def test_our_runtime_is_one_base_more(tmp_path, ade_root):
    """As MMSegmentation's own train.py builds a runner."""
    pytest.importorskip('mmseg', reason='the project is one of MMSegmentation')
    base = f"_base_ = [\n    '{ROOT}/configs/_base_/runtime.py',"
    write(tmp_path, SEGMENTOR.replace('_base_ = [', base), '', ade_root)
    script = RUN.replace('Runner.from_cfg(cfg)', 'RUNNERS.build(cfg)')
    output = run(
        script.replace('mmengine.runner import Runner', 'mmengine.registry import RUNNERS'), tmp_path
    )
    assert (
        'added by mmmeta.Runner: mmmeta.CheckpointHook, mmmeta.LoggerHook, mmmeta.IterBasedTrainLoop, '
        'mmmeta.AgreementHook, mmmeta.MeanLossHook, mmmeta.CompleteWeightsHook, mmmeta.DivergenceHook, '
        'mmmeta.RunRecordHook, mmmeta.StopHook\n'
    ) in output
    assert torch.load(tmp_path / 'work/iter_3.pth', weights_only=True)['meta']['iter'] == 3
    (record,) = (tmp_path / 'work').rglob('record_train.json')
    assert json.loads(record.read_text())['iterations'] == [3, 3]


OTHERS = """
import sys

import timm
import torch
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import CheckpointLoader

before = dict(CheckpointLoader._schemes)
import mmmeta.apis.run
from mmmeta.models import CAFormer

CAFormer('s18', out_indices=(0,)).init_weights()
after = dict(CheckpointLoader._schemes)
assert after.pop('mmmeta://')
assert after == before

import mmpretrain.models
expected = torch.load(sys.argv[1], weights_only=True)
for checkpoint in ('torchvision://resnet18', sys.argv[1]):
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    model = MODELS.build(dict(type='mmpretrain.ResNet', depth=18, init_cfg=init_cfg))
    model.init_weights()
    assert torch.equal(model.conv1.weight, expected['conv1.weight'])
model = MODELS.build(dict(type='mmpretrain.TIMMBackbone', model_name='resnet18', checkpoint_path=sys.argv[1]))
model.init_weights()
assert torch.equal(model.timm_model.conv1.weight, expected['conv1.weight'])

# A package may take timm:// for itself, before and after.
CheckpointLoader.register_scheme('timm://', loader=lambda name, map_location: (name, map_location))
assert CheckpointLoader.load_checkpoint('timm://resnet18', 'cpu') == ('timm://resnet18', 'cpu')
"""


def test_backbones_of_other_packages_load_as_ever(tmp_path):
    pytest.importorskip('mmpretrain', reason='its backbones are loaded')
    file = tmp_path / 'hub/checkpoints/resnet18-f37072fd.pth'  # where PyTorch keeps torchvision's
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), file)
    (tmp_path / 'run.py').write_text(OTHERS)
    process = Tools.finish(sys.executable, 'run.py', file, cwd=tmp_path, TORCH_HOME=str(tmp_path))
    assert process.returncode == 0, process.stderr[-3000:]
