_base_ = './_base_/mask_rcnn_1x_coco.py'
model = dict(
    backbone=dict(arch='s36', init_cfg=dict(type='Pretrained', checkpoint='mmmeta://poolformer_s36'))
)
