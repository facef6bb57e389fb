# PoolFormerV2-S24 on ImageNet-1K: 300 epochs, batch 4096 (32 GPUs x 128), crops of 224x224.
_base_ = '../_base_/imagenet.py'
model = dict(
    backbone=dict(type='mmmeta.PoolFormerV2', arch='s24', drop_path_rate=0.1),
    head=dict(in_channels=512),
)
