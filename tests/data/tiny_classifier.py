# The classifier of an ImageNet config in miniature, on a generated data set of 18 classes: another arch, smaller
# images, a short schedule; everything else as it is.
_base_ = '../../configs/imagenet/caformer_s18_in1k.py'
arch = dict(_delete_=True, base='s18', depths=(1, 1, 2, 1), dims=(32, 48, 64, 96))
model = dict(
    backbone=dict(arch=arch, drop_path_rate=0.0),
    head=dict(num_classes=18, in_channels=96),
    train_cfg=dict(_delete_=True),
)
data_preprocessor = dict(num_classes=18)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.8, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=64, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=64),
    dict(type='PackInputs'),
]
dataset = dict(_delete_=True, type='CustomDataset', data_root='data/imagenet')
train_dataloader = dict(
    batch_size=36, num_workers=1, dataset=dict(**dataset, data_prefix='train', pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=1, dataset=dict(**dataset, data_prefix='val', pipeline=test_pipeline))
test_dataloader = val_dataloader
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=True, begin=1, end=8, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=8, val_interval=8)
default_hooks = dict(logger=dict(interval=5))
randomness = dict(seed=0)
