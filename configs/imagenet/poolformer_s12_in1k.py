# PoolFormer-S12 on ImageNet-1K: 300 epochs, batch 4096 (32 GPUs x 128), crops of 224x224.
_base_ = '../_base_/imagenet_poolformer.py'
model = dict(backbone=dict(arch='s12', drop_path_rate=0.1))
