# Mask R-CNN on COCO as in arXiv:2210.13452, Table IX: 3x, batch 16, multi-scale and crop training as for Swin
# and ConvNeXt, whose config gives detector, data and schedule. The paper prints no learning rate: Swin's.
_base_ = 'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'
custom_imports = dict(imports=['mmmeta'])
model = dict(
    backbone=dict(_delete_=True, type='mmmeta.CAFormer', arch='s18'),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    # No decay of norms, biases, residual scales and StarReLU's scalars.
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
