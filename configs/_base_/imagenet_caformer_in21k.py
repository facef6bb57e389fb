# Pre-training of CAFormer on ImageNet-21K as in arXiv:2210.13452, Table XV: 90 epochs, 5 of them warm-up.
# The data set, of 21,841 classes, has no validation split; its classes are the folders of its train/.
_base_ = './imagenet_caformer.py'
model = dict(head=dict(num_classes=21841))
data_preprocessor = dict(num_classes=21841)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=5, end=90, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=90, val_interval=91)
train_dataloader = dict(dataset=dict(type='ImageNet21k', data_root='data/imagenet21k'))
val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = None
test_evaluator = None
test_cfg = None
default_hooks = dict(checkpoint=dict(save_best=None))
