# A real config made small: CAFormer with one block a stage and a small window, Mask R-CNN with few channels and
# proposals, and no chance in the pipeline or the network.
_base_ = '../../configs/mask_rcnn_caformer_s18_coco.py'
dims = [32, 32, 64, 64]
width = 16
max_epochs = 2
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, base='s18', depths=(1, 1, 1, 1), dims=dims),
        drop_path_rate=0.0,
        window=3,
        init_cfg=None,
    ),
    neck=dict(in_channels=dims, out_channels=width),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width),
        bbox_head=dict(in_channels=width, fc_out_channels=32),
        mask_roi_extractor=dict(out_channels=width),
        mask_head=dict(in_channels=width, conv_out_channels=width),
    ),
    # All anchors and all proposals instead of some that are drawn.
    train_cfg=dict(
        rpn=dict(sampler=dict(_delete_=True, type='PseudoSampler')),
        rpn_proposal=dict(max_per_img=100),
        rcnn=dict(sampler=dict(num=512)),
    ),
    test_cfg=dict(rpn=dict(max_per_img=100), rcnn=dict(max_per_img=10)),
)
scale = (144, 96)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(num_workers=1, dataset=dict(pipeline=train_pipeline))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[1], gamma=0.1),
]
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_epochs=max_epochs, val_interval=1000)
randomness = dict(seed=0)
default_hooks = dict(logger=dict(interval=1))
