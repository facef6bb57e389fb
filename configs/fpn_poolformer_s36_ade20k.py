_base_ = './_base_/fpn_ade20k.py'
model = dict(
    backbone=dict(arch='s36', init_cfg=dict(type='Pretrained', checkpoint='mmmeta://poolformer_s36'))
)
