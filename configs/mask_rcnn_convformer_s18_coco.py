_base_ = './_base_/mask_rcnn_3x_coco.py'
# Stochastic depth as in ImageNet training (arXiv:2210.13452, Table XIV).
model = dict(
    backbone=dict(
        type='mmmeta.ConvFormer',
        arch='s18',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='mmmeta://convformer_s18'),
    )
)
