# Fine-tuning of ConvFormer on ImageNet-1K at 224x224 as in arXiv:2210.13452, Tables XIV and XV: 30 epochs,
# batch 1024, constant learning rate, averaged weights, no Mixup and no CutMix.
_base_ = './imagenet_convformer.py'
model = dict(train_cfg=dict(_delete_=True))
optim_wrapper = dict(optimizer=dict(lr=5e-5))
param_scheduler = []
train_cfg = dict(max_epochs=30)
custom_hooks = [dict(type='EMAHook', momentum=1e-4)]
auto_scale_lr = dict(base_batch_size=1024)
