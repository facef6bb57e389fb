# ConvFormer-M36 on ImageNet-21K: 90 epochs, batch 4096 (32 GPUs x 128), crops of 224x224.
_base_ = '../_base_/imagenet_convformer_in21k.py'
model = dict(
    backbone=dict(arch='m36', drop_path_rate=0.1),
    head=dict(in_channels=576, dropout=0.2),
)
