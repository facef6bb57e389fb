# ConvFormer-B36 on ImageNet-1K: 300 epochs, batch 4096 (32 GPUs x 128), crops of 224x224.
_base_ = '../_base_/imagenet_convformer.py'
model = dict(
    backbone=dict(arch='b36', drop_path_rate=0.6),
    head=dict(in_channels=768, dropout=0.0),
)
