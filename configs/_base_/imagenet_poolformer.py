# PoolFormer (arXiv:2111.11418): it averages the normalised map, so that the norm is the backbone's.
_base_ = './imagenet.py'
model = dict(
    backbone=dict(type='mmmeta.PoolFormer', output_norm=True),
    head=dict(type='LinearClsHead'),
)

# The crop of the authors' evaluation takes 0.9 of the shorter side.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=248, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
