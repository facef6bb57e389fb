_base_ = './_base_/fpn_ade20k.py'
model = dict(
    backbone=dict(arch='m48', init_cfg=dict(type='Pretrained', checkpoint='mmmeta://poolformer_m48')),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
