# RetinaNet on COCO as in arXiv:2111.11418: 1x, batch 16, images resized to 1333x800.
_base_ = [
    './runtime.py',
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
# The pyramid starts at stride 8: backbones return stages 1 to 3, and the first has no norm that nobody uses.
model = dict(neck=dict(in_channels=[128, 320, 512], start_level=0))

optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4))
