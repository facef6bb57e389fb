# Pre-training of CAFormer on ImageNet-21K: ConvFormer's recipe with LAMB.
_base_ = './imagenet_convformer_in21k.py'
model = dict(backbone=dict(type='mmmeta.CAFormer'))
optim_wrapper = dict(optimizer=dict(type='Lamb', lr=2e-3))
