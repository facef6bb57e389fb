# PoolFormer-M48 on ImageNet-1K: 300 epochs, batch 4096 (32 GPUs x 128), crops of 224x224.
_base_ = './poolformer_m36_in1k.py'
model = dict(backbone=dict(arch='m48', drop_path_rate=0.4))
