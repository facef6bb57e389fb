# CAFormer on ImageNet-1K as in arXiv:2210.13452, Table XIV: ConvFormer's recipe with LAMB.
_base_ = './imagenet_convformer.py'
model = dict(backbone=dict(type='mmmeta.CAFormer'))
optim_wrapper = dict(optimizer=dict(type='Lamb', lr=8e-3))
