# mask2former_r50_8xb2-lsj-50e_coco with caformer_s18.
_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
custom_imports = dict(imports=['mmmeta'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmeta.CAFormer',
        arch='s18',
        # As in ImageNet training.
        drop_path_rate=0.15,
        # Images may exceed 640 pixels: attention in windows takes less memory.
        window=13,
        init_cfg=dict(type='Pretrained', checkpoint='mmmeta://caformer_s18'),
    ),
    panoptic_head=dict(in_channels=[64, 128, 320, 512]),
)
optim_wrapper = dict(
    # No decay of norms, biases, residual scales and StarReLU's scalars.
    paramwise_cfg=dict(flat_decay_mult=0.0),
    # flat_decay_mult holds below custom_keys as well.
    constructor='mmmeta.FlatDecayOptimWrapperConstructor',
)
