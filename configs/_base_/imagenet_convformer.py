# ConvFormer on ImageNet-1K as in arXiv:2210.13452, Table XIV: 20 epochs of warm-up, MLP head.
_base_ = './imagenet.py'
model = dict(
    backbone=dict(type='mmmeta.ConvFormer'),
    head=dict(type='mmmeta.MetaFormerMlpHead', dropout=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=2.5e-4, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=20, end=300, convert_to_iter_based=True
    ),
]
