# rtmdet_l_convnext_b_4xb32-100e_coco with convformer_s18.
_base_ = 'mmdet::rtmdet/rtmdet_l_convnext_b_4xb32-100e_coco.py'
custom_imports = dict(imports=['mmpretrain.models', 'mmmeta'])
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.001, weight_decay=0.05),
    # No decay of norms, biases, residual scales and StarReLU's scalars.
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0, bypass_duplicate=True, flat_decay_mult=0.0),
)
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmeta.ConvFormer',
        arch='s18',
        # What is read; other stages would have norms without gradients.
        out_indices=(1, 2, 3),
        # As in ImageNet training.
        drop_path_rate=0.2,
        with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint='mmmeta://convformer_s18'),
    ),
    neck=dict(in_channels=[128, 320, 512]),
)
