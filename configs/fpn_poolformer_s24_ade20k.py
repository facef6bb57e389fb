# Semantic FPN with PoolFormer-S24 on ADE20K: 40 K iterations, batch 32 (8 GPUs x 4), crops of 512x512.
_base_ = './_base_/fpn_ade20k.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmeta.PoolFormer',
        arch='s24',
        init_cfg=dict(type='Pretrained', checkpoint='mmmeta://poolformer_s24'),
    )
)
