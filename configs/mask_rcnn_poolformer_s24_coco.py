# Mask R-CNN with PoolFormer-S24 on COCO: 12 epochs (1x), batch 16 (8 GPUs x 2), images resized to 1333x800.
_base_ = './_base_/mask_rcnn_1x_coco.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmeta.PoolFormer',
        arch='s24',
        init_cfg=dict(type='Pretrained', checkpoint='mmmeta://poolformer_s24'),
    )
)
