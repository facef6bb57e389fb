_base_ = '../_base_/imagenet_convformer.py'
model = dict(
    backbone=dict(arch=dict(base='s36'), drop_path_rate=0.3),
    head=dict(in_channels=512, dropout=0.0),
)
