# ConvFormer-S18 on ImageNet-1K: 300 epochs, batch 4096 (32 GPUs x 128), crops of 224x224.
_base_ = '../_base_/imagenet_convformer.py'
model = dict(
    backbone=dict(arch='s18', drop_path_rate=0.2),
    head=dict(in_channels=512, dropout=0.0),
)
