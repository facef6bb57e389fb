# Semantic FPN with PoolFormer-M48 on ADE20K: 40 K iterations, batch 32 (8 GPUs x 4), crops of 512x512.
_base_ = './_base_/fpn_ade20k.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmeta.PoolFormer',
        arch='m48',
        init_cfg=dict(type='Pretrained', checkpoint='mmmeta://poolformer_m48'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
