_base_ = '../_base_/imagenet.py'
model = dict(
    backbone=dict(type='mmmeta.RandFormer', arch=dict(base='m36'), drop_path_rate=0.3),
    head=dict(in_channels=768),
)
