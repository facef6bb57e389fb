# CAFormer-M36 on ImageNet-1K, tuned from size 224: 30 epochs, batch 1024 (32 GPUs x 32), crops of 384x384.
_base_ = '../_base_/imagenet_caformer_finetune_384.py'
model = dict(
    backbone=dict(arch='m36', drop_path_rate=0.7),
    head=dict(in_channels=576, dropout=0.4),
)
load_from = 'mmmeta://caformer_m36'
