# Mask R-CNN whose samplers draw some of the boxes, with random sizes, flips and stochastic depth; epochs.
_base_ = '../data/tiny_mask_rcnn.py'
model = dict(
    backbone=dict(drop_path_rate=0.3),
    train_cfg=dict(
        rpn=dict(
            sampler=dict(
                _delete_=True,
                type='RandomSampler',
                num=32,
                pos_fraction=0.5,
                neg_pos_ub=-1,
                add_gt_as_proposals=False,
            )
        ),
        rcnn=dict(sampler=dict(num=16)),
    ),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=(144, 96), ratio_range=(0.7, 1.3), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(num_workers=2, dataset=dict(pipeline=pipeline))
train_cfg = dict(max_epochs=6)
