# UperNet with CAFormer-S36 on ADE20K: 160 K iterations, batch 16 (8 GPUs x 2), crops of 512x512.
_base_ = './_base_/upernet_ade20k.py'
# Stochastic depth as in ImageNet training (arXiv:2210.13452, Table XIV).
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmeta.CAFormer',
        arch='s36',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='mmmeta://caformer_s36'),
    )
)
