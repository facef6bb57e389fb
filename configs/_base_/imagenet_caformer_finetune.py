# Fine-tuning of CAFormer at 224x224: ConvFormer's recipe with LAMB.
_base_ = './imagenet_convformer_finetune.py'
model = dict(backbone=dict(type='mmmeta.CAFormer'))
optim_wrapper = dict(optimizer=dict(type='Lamb', lr=1e-4))
