# upernet_r50_4xb2-80k_cityscapes-512x1024 with caformer_s18.
_base_ = 'mmseg::upernet/upernet_r50_4xb2-80k_cityscapes-512x1024.py'
custom_imports = dict(imports=['mmmeta'], allow_failed_imports=False)
model = dict(
    pretrained=None,
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
    decode_head=dict(in_channels=[64, 128, 320, 512]),
    auxiliary_head=dict(in_channels=320),
)
optim_wrapper = dict(
    # 6e-05 for a batch of 16 in our configs, in proportion for 8 here.
    optimizer=dict(_delete_=True, type='AdamW', lr=3e-05, betas=(0.9, 0.999), weight_decay=0.01),
    # No decay of norms, biases, residual scales and StarReLU's scalars.
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
# As UperNet: AdamW begins with a warm-up.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-06, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=3e-07, power=0.9, begin=1500, end=80000, by_epoch=False),
]
# For --auto-scale-lr: what the learning rate is for.
auto_scale_lr = dict(enable=False, base_batch_size=8)
