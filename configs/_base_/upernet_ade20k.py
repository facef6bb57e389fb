# UperNet on ADE20K as in arXiv:2210.13452, Table X: 160 K iterations, batch 16, crops of 512x512. The paper
# follows Swin and ConvNeXt and prints no learning rate: this is Swin's recipe as MMSegmentation ships it.
_base_ = [
    './ade20k.py',
    'mmseg::_base_/models/upernet_swin.py',
    'mmseg::_base_/schedules/schedule_160k.py',
]
channels = [64, 128, 320, 512]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
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
