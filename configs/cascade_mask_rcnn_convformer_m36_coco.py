_base_ = './_base_/cascade_mask_rcnn_3x_coco.py'
# Stochastic depth as in ImageNet training (arXiv:2210.13452, Table XIV).
model = dict(
    backbone=dict(
        type='mmmeta.ConvFormer',
        arch='m36',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint='mmmeta://convformer_m36'),
    ),
    neck=dict(in_channels=[96, 192, 384, 576]),
)
