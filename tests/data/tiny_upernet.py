# A real config made small: CAFormer with one block a stage, UperNet with few channels, norms that do not look
# across the batch, and no chance in the pipeline or the network.
_base_ = '../../configs/upernet_caformer_s18_ade20k.py'
norm_cfg = dict(type='GN', num_groups=4)
dims = [32, 32, 64, 64]
max_iters = 12
scale = (64, 64)
model = dict(
    data_preprocessor=dict(size=scale),
    backbone=dict(
        arch=dict(_delete_=True, base='s18', depths=(1, 1, 1, 1), dims=dims),
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    decode_head=dict(in_channels=dims, channels=16, dropout_ratio=0.0, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=dims[2], channels=16, dropout_ratio=0.0, norm_cfg=norm_cfg),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='Resize', scale=scale, keep_ratio=False),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=2, num_workers=1, dataset=dict(pipeline=pipeline))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(192, 64), keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=5),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=5, end=max_iters),
]
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_iters=max_iters, val_interval=1000)
randomness = dict(seed=0)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1000))
