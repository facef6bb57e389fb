# ConvFormer-S18 on ImageNet-1K, tuned from size 224: 30 epochs, batch 1024 (32 GPUs x 32), crops of 384x384.
_base_ = '../_base_/imagenet_convformer_finetune_384.py'
model = dict(
    backbone=dict(arch='s18', drop_path_rate=0.3),
    head=dict(in_channels=512, dropout=0.4),
)
load_from = 'mmmeta://convformer_s18'
