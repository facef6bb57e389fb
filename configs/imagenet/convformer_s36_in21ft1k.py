# ConvFormer-S36 on ImageNet-1K, tuned from 21K: 30 epochs, batch 1024 (8 GPUs x 128), crops of 224x224.
_base_ = '../_base_/imagenet_convformer_finetune.py'
model = dict(
    backbone=dict(arch='s36', drop_path_rate=0.1),
    head=dict(in_channels=512, dropout=0.2),
)
load_from = 'mmmeta://convformer_s36_in21k'
