_base_ = '../_base_/imagenet_caformer.py'
model = dict(
    backbone=dict(arch=dict(base='b36'), drop_path_rate=0.6),
    head=dict(in_channels=768, dropout=0.5),
)
