# RetinaNet on COCO as in arXiv:2111.11418: 1x, batch 16, images resized to 1333x800.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmmeta'], allow_failed_imports=False)
model = dict(
    # The pyramid starts at stride 8: the first stage gets no norm and no output that nobody uses.
    backbone=dict(_delete_=True, type='mmmeta.PoolFormer', arch='s12', out_indices=(1, 2, 3)),
    neck=dict(in_channels=[128, 320, 512], start_level=0),
)

optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4))
