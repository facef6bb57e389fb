_base_ = '../_base_/imagenet.py'
model = dict(
    backbone=dict(type='mmmeta.RandFormer', arch=dict(base='s12'), drop_path_rate=0.1),
    head=dict(in_channels=512),
)
