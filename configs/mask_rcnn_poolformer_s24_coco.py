_base_ = './_base_/mask_rcnn_1x_coco.py'
model = dict(backbone=dict(arch='s24'))
