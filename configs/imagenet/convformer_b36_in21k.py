_base_ = '../_base_/imagenet_convformer_in21k.py'
model = dict(
    backbone=dict(arch=dict(base='b36'), drop_path_rate=0.2),
    head=dict(in_channels=768, dropout=0.3),
)
