# Semantic FPN on ADE20K as in arXiv:2111.11418: 40 K iterations, batch 32, crops of 512x512. Test images are
# aligned to multiples of 32 pixels (the starred mIoU of MMSegmentation's model zoo).
_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    './ade20k.py',
    'mmseg::_base_/schedules/schedule_40k.py',
]
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(512, 512)),
    neck=dict(in_channels=[64, 128, 320, 512]),
    decode_head=dict(num_classes=150),
)

optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4)
)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=40000, by_epoch=False)]

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
# 8 GPUs with 4 images each.
train_dataloader = dict(batch_size=4)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
auto_scale_lr = dict(enable=False, base_batch_size=32)

# The same alignment for every scale of multi-scale testing.
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1]['transforms'].insert(1, [dict(type='ResizeToMultiple', size_divisor=32)])
