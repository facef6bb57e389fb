# UperNet on ADE20K as in arXiv:2210.13452, Table X: 160 K iterations, batch 16, crops of 512x512. The paper
# follows Swin and ConvNeXt and prints no learning rate: this is Swin's recipe as MMSegmentation ships it.
_base_ = [
    'mmseg::_base_/models/upernet_swin.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_160k.py',
]
custom_imports = dict(imports=['mmmeta'], allow_failed_imports=False)
crop_size = (512, 512)
channels = [64, 128, 320, 512]
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(_delete_=True, type='mmmeta.CAFormer', arch='s18'),
    decode_head=dict(in_channels=channels, num_classes=150),
    auxiliary_head=dict(in_channels=channels[2], num_classes=150),
)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    # No decay of norms, biases, residual scales and StarReLU's scalars.
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=1500, end=160000, by_epoch=False),
]
# 8 GPUs with 2 images each.
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)

# Multi-scale and flip testing scales the 2048x512 box that images are fitted into, as MMSegmentation 0.x did
# for the results in print; the 1.x base scales the images as they are on disk.
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(int(2048 * ratio), int(512 * ratio)), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
