_base_ = '../_base_/imagenet_caformer.py'
model = dict(
    backbone=dict(arch=dict(base='s18'), drop_path_rate=0.15),
    head=dict(in_channels=512, dropout=0.0),
)
