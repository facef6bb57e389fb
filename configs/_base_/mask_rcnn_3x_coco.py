# Mask R-CNN on COCO as in arXiv:2210.13452, Table IX.
_base_ = ['./coco_3x.py', 'mmdet::_base_/models/mask-rcnn_r50_fpn.py']
model = dict(neck=dict(in_channels=[64, 128, 320, 512]))
