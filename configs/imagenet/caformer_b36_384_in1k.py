_base_ = '../_base_/imagenet_caformer_finetune_384.py'
model = dict(
    backbone=dict(arch=dict(base='b36'), drop_path_rate=0.8),
    head=dict(in_channels=768, dropout=0.5),
)
load_from = 'mmmeta://caformer_b36'
