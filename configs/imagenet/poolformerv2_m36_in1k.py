# PoolFormerV2-M36 on ImageNet-1K: 300 epochs, batch 4096 (32 GPUs x 128), crops of 224x224.
_base_ = '../_base_/imagenet.py'
model = dict(
    backbone=dict(type='mmmeta.PoolFormerV2', arch='m36', drop_path_rate=0.3),
    head=dict(in_channels=768),
)
