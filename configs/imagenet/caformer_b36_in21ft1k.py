_base_ = '../_base_/imagenet_caformer_finetune.py'
model = dict(
    backbone=dict(arch=dict(base='b36'), drop_path_rate=0.3),
    head=dict(in_channels=768, dropout=0.5),
)
load_from = 'mmmeta://caformer_b36_in21k'
