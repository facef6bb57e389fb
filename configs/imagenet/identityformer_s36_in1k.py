_base_ = '../_base_/imagenet.py'
model = dict(
    backbone=dict(type='mmmeta.IdentityFormer', arch=dict(base='s36'), drop_path_rate=0.2),
    head=dict(in_channels=512),
)
