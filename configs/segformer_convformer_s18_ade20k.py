# segformer_mit-b2_8xb2-160k_ade20k-512x512 with convformer_s18.
_base_ = 'mmseg::segformer/segformer_mit-b2_8xb2-160k_ade20k-512x512.py'
custom_imports = dict(imports=['mmmeta'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmeta.ConvFormer',
        arch='s18',
        # As in ImageNet training.
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='mmmeta://convformer_s18'),
    ),
)
optim_wrapper = dict(
    # No decay of norms, biases, residual scales and StarReLU's scalars.
    paramwise_cfg=dict(
        custom_keys=dict(_delete_=True, norm=dict(decay_mult=0.0), head=dict(lr_mult=10.0)),
        flat_decay_mult=0.0,
    ),
)
# For --auto-scale-lr: what the learning rate is for.
auto_scale_lr = dict(enable=False, base_batch_size=16)
