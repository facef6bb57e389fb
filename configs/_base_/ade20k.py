# What all configs on ADE20K share.
_base_ = ['./runtime.py', 'mmseg::_base_/datasets/ade20k.py', 'mmseg::_base_/default_runtime.py']

# Multi-scale and flip testing scales the 2048x512 box that images are fitted into, as MMSegmentation 0.x did
# for the results in print; the 1.x base scales the images as they are on disk.
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(int(2048 * ratio), int(512 * ratio)), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
