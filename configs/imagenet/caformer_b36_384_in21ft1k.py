# CAFormer-B36 on ImageNet-1K, tuned from 21K: 30 epochs, batch 1024 (32 GPUs x 32), crops of 384x384.
_base_ = '../_base_/imagenet_caformer_finetune_384.py'
model = dict(
    backbone=dict(arch='b36', drop_path_rate=0.3),
    head=dict(in_channels=768, dropout=0.5),
)
load_from = 'mmmeta://caformer_b36_in21k'
