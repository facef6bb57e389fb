_base_ = './_base_/retinanet_coco.py'
model = dict(backbone=dict(arch='s24'))
