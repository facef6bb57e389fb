# UperNet with all that is drawn at random, in the network and in the pipeline, and averaged weights.
_base_ = '../data/tiny_ema.py'
model = dict(backbone=dict(drop_path_rate=0.3), decode_head=dict(dropout_ratio=0.1))
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(96, 96), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(64, 64), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
train_cfg = dict(max_iters=40, val_interval=15)
randomness = dict(seed=0)
default_hooks = dict(checkpoint=dict(interval=7))
