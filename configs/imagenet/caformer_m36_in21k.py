_base_ = '../_base_/imagenet_caformer_in21k.py'
model = dict(
    backbone=dict(arch=dict(base='m36'), drop_path_rate=0.1),
    head=dict(in_channels=576, dropout=0.2),
)
