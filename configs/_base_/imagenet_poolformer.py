# PoolFormer (arXiv:2111.11418): it averages the normalised map, so that the norm is the backbone's.
_base_ = './imagenet.py'
model = dict(
    backbone=dict(type='mmmeta.PoolFormer', arch='s12'),
    head=dict(type='LinearClsHead'),
)
