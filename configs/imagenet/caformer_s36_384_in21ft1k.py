_base_ = '../_base_/imagenet_caformer_finetune_384.py'
model = dict(
    backbone=dict(arch=dict(base='s36'), drop_path_rate=0.1),
    head=dict(in_channels=512, dropout=0.2),
)
load_from = 'mmmeta://caformer_s36_in21k'
