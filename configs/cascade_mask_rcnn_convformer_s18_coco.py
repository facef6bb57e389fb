# Cascade Mask R-CNN with ConvFormer-S18 on COCO: 36 epochs (3x), batch 16 (8 GPUs x 2), multi-scale crops.
_base_ = './_base_/cascade_mask_rcnn_3x_coco.py'
# Stochastic depth as in ImageNet training (arXiv:2210.13452, Table XIV).
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmeta.ConvFormer',
        arch='s18',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='mmmeta://convformer_s18'),
    )
)
