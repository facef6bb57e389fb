_base_ = '../_base_/imagenet_caformer_finetune_384.py'
model = dict(
    backbone=dict(arch=dict(base='m36'), drop_path_rate=0.7),
    head=dict(in_channels=576, dropout=0.4),
)
load_from = 'mmmeta://caformer_m36'
