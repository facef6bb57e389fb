_base_ = '../_base_/imagenet_convformer_finetune_384.py'
model = dict(
    backbone=dict(arch=dict(base='m36'), drop_path_rate=0.8),
    head=dict(in_channels=576, dropout=0.5),
)
load_from = 'mmmeta://convformer_m36'
