# UperNet with ConvFormer-S18 on ADE20K: 160 K iterations, batch 16 (8 GPUs x 2), crops of 512x512.
_base_ = './_base_/upernet_ade20k.py'
# Stochastic depth as in ImageNet training (arXiv:2210.13452, Table XIV).
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmeta.ConvFormer',
        arch='s18',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='mmmeta://convformer_s18'),
    )
)
