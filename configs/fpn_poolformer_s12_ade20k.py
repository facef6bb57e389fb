_base_ = './_base_/fpn_ade20k.py'
model = dict(backbone=dict(arch='s12'))
