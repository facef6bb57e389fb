"""Wrong configs, each with one mistake, and what is to be said of it."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

SEGMENTOR = 'tests/data/tiny_upernet.py'
DETECTOR = 'tests/data/tiny_mask_rcnn.py'
CLASSIFIER = 'tests/data/tiny_classifier.py'
FPN = 'configs/fpn_poolformer_s12_ade20k.py'
RETINANET = 'configs/retinanet_poolformer_s12_coco.py'
PARTS = ('train', 'val', 'test')
MASK2FORMER = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
PANOPTIC = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py'
QUERIES = 'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py'
DINO = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
CASCADE = 'configs/cascade_mask_rcnn_caformer_s18_coco.py'


class Mistake(NamedTuple):
    """Options that make a config wrong, and the key and a part of the sentence of the one finding.

    ``threads`` are public ones about it: D of open-mmlab/mmdetection, S of open-mmlab/mmsegmentation, P of
    open-mmlab/mmpretrain, with the number of the issue or pull request.
    """

    config: str
    options: dict
    key: str
    text: str
    is_warning: bool = False
    threads: str = ''

    @property
    def path(self) -> str:
        """The config, one of a package or of ours."""
        return self.config if '::' in self.config else str(ROOT / self.config)


MISTAKES = [
    # Keys.
    Mistake(SEGMENTOR, {'optim_wraper.optimizer.lr': 1.0}, 'optim_wraper', 'it is written optim_wrapper'),
    Mistake(SEGMENTOR, {'train_dataloder.batch_size': 4}, 'train_dataloder', 'written train_dataloader'),
    Mistake(SEGMENTOR, {'val_evaluater.type': 'x'}, 'val_evaluater', 'it is written val_evaluator'),
    Mistake(SEGMENTOR, {'custom_hook': []}, 'custom_hook', 'it is written custom_hooks'),
    Mistake(SEGMENTOR, {'param_schedular': []}, 'param_schedular', 'it is written param_scheduler'),
    Mistake(
        SEGMENTOR,
        {'lr_config.policy': 'poly', 'param_scheduler': None},
        'lr_config',
        'write param_scheduler in its place',
        threads='D10243',
    ),
    Mistake(
        SEGMENTOR,
        {'checkpoint_config.interval': 1, 'default_hooks.checkpoint': None},
        'checkpoint_config',
        'default_hooks.checkpoint',
    ),
    Mistake(DETECTOR, {'evaluation.interval': 1, 'val_evaluator': None}, 'evaluation', 'write val_evaluator'),
    # Arguments.
    Mistake(SEGMENTOR, {'train_cfg.max_iter': 9}, 'train_cfg.max_iter', 'it is written max_iters'),
    Mistake(DETECTOR, {'train_cfg.max_epoch': 9}, 'train_cfg.max_epoch', 'it is written max_epochs'),
    Mistake(SEGMENTOR, {'train_cfg.val_intervall': 9}, 'train_cfg.val_intervall', 'written val_interval'),
    Mistake(SEGMENTOR, {'model.backbone.pretrain': 'x'}, 'model.backbone.pretrain', "no argument 'pretrain'"),
    Mistake(SEGMENTOR, {'model.backbone.drop_path': 0.1}, 'model.backbone.drop_path', 'drop_path_rate'),
    Mistake(SEGMENTOR, {'model.backbone.out_indexes': (3,)}, 'model.backbone.out_indexes', 'out_indices'),
    Mistake(DETECTOR, {'model.neck.num_out': 5}, 'model.neck.num_out', 'it is written num_outs'),
    # Types.
    Mistake(
        SEGMENTOR,
        {'model.backbone.type': 'CAFormer'},
        'model.backbone.type',
        "write 'mmmeta.CAFormer'",
        threads='D7796',
    ),
    Mistake(DETECTOR, {'model.backbone.type': 'mmmeta.CaFormer'}, 'model.backbone.type', 'mmmeta.CAFormer'),
    Mistake(SEGMENTOR, {'model.backbone.type': 'Poolformer'}, 'model.backbone.type', 'mmmeta.PoolFormer'),
    Mistake(SEGMENTOR, {'model.decode_head.type': 'UperHead'}, 'model.decode_head.type', "write 'UPerHead'"),
    Mistake(DETECTOR, {'model.neck.type': 'fpn'}, 'model.neck.type', "write 'FPN'"),
    Mistake(
        DETECTOR,
        {'model.roi_head.bbox_head.type': 'Shared2FCBoxHead'},
        'model.roi_head.bbox_head.type',
        "write 'Shared2FCBBoxHead'",
    ),
    Mistake(CLASSIFIER, {'model.head.type': 'MetaFormerMLPHead'}, 'model.head.type', 'MetaFormerMlpHead'),
    # Weights of another backbone.
    Mistake(
        SEGMENTOR, {'model.pretrained': 'open-mmlab://resnet50_v1c'}, 'model.pretrained', 'pretrained=None'
    ),
    Mistake(DETECTOR, {'model.backbone.pretrained': 'r50'}, 'model.backbone.pretrained', '_delete_=True'),
    # Maps and channels.
    Mistake(
        SEGMENTOR,
        {'model.decode_head.in_channels': [64, 128, 320, 512]},
        'model.decode_head.in_channels',
        'write model.decode_head.in_channels=[32, 32, 64, 64]',
        threads='S2823',
    ),
    Mistake(
        SEGMENTOR,
        {'model.auxiliary_head.in_channels': 1024},
        'model.auxiliary_head.in_channels',
        'write model.auxiliary_head.in_channels=64',
    ),
    Mistake(
        SEGMENTOR,
        {'model.auxiliary_head.in_index': 4},
        'model.auxiliary_head.in_index',
        'has map 4, and the backbone gives 4 maps',
    ),
    Mistake(
        FPN,
        {'model.backbone.arch': 'm36'},
        'model.neck.in_channels',
        'write model.neck.in_channels=[96, 192, 384, 768]',
    ),
    Mistake(
        FPN,
        {'model.neck.out_channels': 128},
        'model.decode_head.in_channels',
        'write model.decode_head.in_channels=[128, 128, 128, 128]',
    ),
    Mistake(
        FPN,
        {'model.decode_head.in_index': (0, 1, 2, 4)},
        'model.decode_head.in_index',
        'has map 4, and the neck gives 4 maps',
    ),
    Mistake(
        DETECTOR,
        {'model.neck.in_channels': [256, 512, 1024, 2048]},
        'model.neck.in_channels',
        'write model.neck.in_channels=[32, 32, 64, 64]',
        threads='D5306',
    ),
    Mistake(
        DETECTOR,
        {'model.backbone.out_indices': (1, 2, 3)},
        'model.neck.in_channels',
        'write model.neck.in_channels=[32, 64, 64]',
    ),
    Mistake(
        DETECTOR,
        {'model.rpn_head.in_channels': 256},
        'model.rpn_head.in_channels',
        'write model.rpn_head.in_channels=16',
    ),
    Mistake(
        RETINANET,
        {'model.bbox_head.in_channels': 128},
        'model.bbox_head.in_channels',
        'write model.bbox_head.in_channels=256',
    ),
    Mistake(
        RETINANET,
        {'model.backbone.arch': 'm48'},
        'model.neck.in_channels',
        'write model.neck.in_channels=[192, 384, 768]',
    ),
    # Classes.
    Mistake(
        SEGMENTOR, {'model.decode_head.num_classes': 19}, 'model.decode_head.num_classes', 'num_classes=150'
    ),
    Mistake(
        SEGMENTOR,
        {'model.auxiliary_head.num_classes': 19},
        'model.auxiliary_head.num_classes',
        'num_classes=150',
        threads='S42 S488',
    ),
    Mistake(
        RETINANET,
        {'model.bbox_head.num_classes': 5},
        'model.bbox_head.num_classes',
        'bbox_head.num_classes=80',
        threads='D8734 D4972',
    ),
    Mistake(
        DETECTOR,
        {'model.roi_head.bbox_head.num_classes': 81},
        'model.roi_head.bbox_head.num_classes',
        'num_classes=80',
    ),
    Mistake(
        DETECTOR,
        {'model.roi_head.mask_head.num_classes': 5},
        'model.roi_head.mask_head.num_classes',
        'mask_head.num_classes=80',
        threads='D6218 D8414',
    ),
    Mistake(
        CASCADE,
        {'model.roi_head.bbox_head.1.num_classes': 5},
        'model.roi_head.bbox_head.1.num_classes',
        'bbox_head.1.num_classes=80',
    ),
    Mistake(
        DETECTOR,
        {'val_dataloader.dataset.metainfo.classes': ('person', 'car')},
        'val_dataloader.dataset.metainfo',
        'give both the same metainfo',
    ),
    # Pixels.
    Mistake(
        RETINANET,
        {'model.data_preprocessor.mean': [0, 0, 0]},
        'model.data_preprocessor.mean',
        'mean=[123.675, 116.28, 103.53]',
    ),
    Mistake(
        RETINANET,
        {'model.data_preprocessor.std': [1, 1, 1]},
        'model.data_preprocessor.std',
        'std=[58.395, 57.12, 57.375]',
    ),
    Mistake(
        FPN,
        {'model.data_preprocessor.bgr_to_rgb': False},
        'model.data_preprocessor.bgr_to_rgb',
        'bgr_to_rgb=True',
    ),
    # Training.
    Mistake(
        SEGMENTOR,
        {'optim_wrapper.optimizer.type': 'SGD'},
        'optim_wrapper.optimizer.type',
        'trained with AdamW',
        True,
    ),
    Mistake(
        SEGMENTOR,
        {'optim_wrapper.optimizer.lr': 10.0},
        'optim_wrapper.optimizer.lr',
        'lr=10: none of ours',
        True,
        threads='D4616 D3062',
    ),
    # Schedules.
    Mistake(
        SEGMENTOR,
        {'param_scheduler.1.by_epoch': True},
        'param_scheduler.1.by_epoch',
        'write param_scheduler.1.by_epoch=False',
        threads='S3113',
    ),
    Mistake(
        SEGMENTOR,
        {'param_scheduler.1.end': 160000},
        'param_scheduler.1.end',
        'write param_scheduler.1.end=12',
        True,
        'D6080',
    ),
    Mistake(
        DETECTOR,
        {'param_scheduler.1.milestones': [8, 11]},
        'param_scheduler.1.milestones',
        'train_cfg.max_epochs=2: none is reached',
        True,
    ),
    Mistake(
        DETECTOR,
        {'train_dataloader.sampler.type': 'InfiniteSampler'},
        'train_dataloader.sampler.type',
        "write 'DefaultSampler'",
        threads='S2908',
    ),
    Mistake(
        SEGMENTOR,
        {'default_hooks.checkpoint.by_epoch': True},
        'default_hooks.checkpoint.by_epoch',
        'write default_hooks.checkpoint.by_epoch=False',
        True,
        'S2566',
    ),
    Mistake(SEGMENTOR, {'val_evaluator': None}, 'val_evaluator', 'give all, or none', threads='D11697'),
    Mistake(DETECTOR, {'optim_wrapper': None}, 'optim_wrapper', 'give all, or none'),
    # Keys of MMCV 1.
    Mistake(
        SEGMENTOR,
        {'data.samples_per_gpu': 4},
        'data.samples_per_gpu',
        'write train_dataloader in its place',
        threads='S2967 D10287',
    ),
    Mistake(DETECTOR, {'runner.max_epochs': 24}, 'runner.max_epochs', 'write train_cfg in its place'),
    Mistake(
        DETECTOR,
        {'total_epochs': 24, 'train_cfg': dict(_delete_=True, type='EpochBasedTrainLoop')},
        'total_epochs',
        'write train_cfg.max_epochs',
    ),
    # Pipelines.
    Mistake(
        DETECTOR,
        {'train_dataloader.dataset.pipeline.2.img_scale': (144, 96)},
        'train_dataloader.dataset.pipeline.2.img_scale',
        "Resize takes no argument 'img_scale'",
        threads='D10287',
    ),
    Mistake(
        SEGMENTOR,
        {
            'train_dataloader.dataset.pipeline': [
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', reduce_zero_label=True),
                dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
                dict(type='PackSegInputs'),
            ]
        },
        'train_dataloader.dataset.pipeline.2',
        'pixels are normalised twice',
        threads='D10127',
    ),
    Mistake(
        DETECTOR,
        {'train_dataloader.dataset.pipeline.3.type': 'Collect'},
        'train_dataloader.dataset.pipeline.3.type',
        'PackDetInputs does now',
        threads='D11407',
    ),
    Mistake(
        SEGMENTOR,
        {'train_dataloader.dataset.pipeline.3.type': 'PackSegInput'},
        'train_dataloader.dataset.pipeline.3.type',
        "write 'PackSegInputs'",
    ),
    Mistake(
        SEGMENTOR,
        {
            'train_dataloader.dataset.pipeline': [
                dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(64, 64)),
                dict(type='LoadAnnotations', reduce_zero_label=True),
                dict(type='PackSegInputs'),
            ]
        },
        'train_dataloader.dataset.pipeline.2',
        'load annotations before',
        threads='S3469',
    ),
    Mistake(
        SEGMENTOR,
        {
            'train_dataloader.dataset.pipeline': [
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', reduce_zero_label=True),
                dict(type='Resize', scale=(64, 64)),
            ]
        },
        'train_dataloader.dataset.pipeline',
        'ends in Resize, and nothing packs what the model takes: add PackSegInputs',
        threads='D10488',
    ),
    Mistake(
        DETECTOR,
        {'train_dataloader.dataset.pipeline.1.with_mask': False},
        'train_dataloader.dataset.pipeline.1.with_mask',
        'write train_dataloader.dataset.pipeline.1.with_mask=True',
        threads='D1297 D7702',
    ),
    Mistake(
        SEGMENTOR,
        {'train_dataloader.dataset.pipeline.1.reduce_zero_label': False},
        'train_dataloader.dataset.pipeline.1.reduce_zero_label',
        'reduce_zero_label=False, and the data set has True',
        threads='S1714 S2206',
    ),
    Mistake(
        SEGMENTOR,
        {'model.data_preprocessor.size': None},
        'model.data_preprocessor.size',
        'has no size, and batches are padded',
        threads='S2938 S3425',
    ),
    Mistake(
        SEGMENTOR,
        {'model.data_preprocessor.size_divisor': 32},
        'model.data_preprocessor.size',
        'has both size=(64, 64) and size_divisor=32',
        threads='S3058',
    ),
    Mistake(
        FPN,
        {'train_dataloader.dataset.pipeline.3.crop_size': (256, 256)},
        'model.data_preprocessor.size',
        'crops are (256, 256): 75% of what is computed is padding',
        True,
    ),
    Mistake(
        SEGMENTOR,
        {'train_dataloader.batch_size': 1, 'model.decode_head.norm_cfg': dict(_delete_=True, type='BN')},
        'train_dataloader.batch_size',
        'write 2 or more',
        threads='S272 S2488',
    ),
    # Types and arguments elsewhere.
    Mistake(
        SEGMENTOR,
        {'train_dataloader.dataset.type': 'ADE20kDataset'},
        'train_dataloader.dataset.type',
        "write 'ADE20KDataset'",
        threads='S3652',
    ),
    Mistake(
        DETECTOR,
        {'train_dataloader.dataset.img_prefix': 'train2017'},
        'train_dataloader.dataset.img_prefix',
        "takes no argument 'img_prefix'",
        threads='D11958',
    ),
    Mistake(
        DETECTOR,
        {
            'train_dataloader.dataset': dict(
                _delete_=True,
                type='RepeatDataset',
                times=2,
                data_root='data/coco',
                dataset=dict(type='CocoDataset', pipeline=[dict(type='PackDetInputs')]),
            )
        },
        'train_dataloader.dataset.data_root',
        "RepeatDataset takes no argument 'data_root'",
        threads='D10674',
    ),
    Mistake(
        SEGMENTOR, {'optim_wrapper.optimizer.type': 'Adamw'}, 'optim_wrapper.optimizer.type', "write 'AdamW'"
    ),
    Mistake(SEGMENTOR, {'param_scheduler.1.type': 'PolyLr'}, 'param_scheduler.1.type', "write 'PolyLR'"),
    Mistake(DETECTOR, {'val_evaluator.type': 'COCOMetric'}, 'val_evaluator.type', "write 'CocoMetric'"),
    # Names of classes.
    Mistake(
        DETECTOR,
        {'train_dataloader.dataset.metainfo.classes': 'balloon'},
        'train_dataloader.dataset.metainfo.classes',
        "write ('balloon',)",
        threads='D8064 D2906 S3505',
    ),
    Mistake(
        SEGMENTOR,
        {'train_dataloader.dataset.metainfo.CLASSES': ('a', 'b')},
        'train_dataloader.dataset.metainfo.CLASSES',
        'it is written classes',
        threads='S2646 D11457',
    ),
    Mistake(
        SEGMENTOR,
        {'train_dataloader.dataset.metainfo.palette': [[0, 0, 0]]},
        'train_dataloader.dataset.metainfo.palette',
        'has 1 colours, and there are 150 classes',
        threads='S3285 S3505',
    ),
    Mistake(
        SEGMENTOR,
        {
            **{f'{part}_dataloader.dataset.metainfo.classes': ('wall', 'crack') for part in PARTS},
            **{f'model.{head}.num_classes': 2 for head in ('decode_head', 'auxiliary_head')},
        },
        'train_dataloader.dataset.metainfo.classes',
        "has crack, which ADE20KDataset does not know: write train_dataloader.dataset.type='BaseSegDataset'",
    ),
    # Heads with queries.
    Mistake(
        MASK2FORMER,
        {'model.panoptic_head.num_things_classes': 5, 'model.panoptic_head.loss_cls.class_weight': [1.0] * 6},
        'model.panoptic_head.num_things_classes',
        'write model.panoptic_head.num_things_classes=80',
    ),
    Mistake(
        PANOPTIC,
        {'model.panoptic_fusion_head.num_stuff_classes': 54},
        'model.panoptic_fusion_head.num_stuff_classes',
        'write model.panoptic_fusion_head.num_stuff_classes=53',
    ),
    Mistake(
        QUERIES,
        {'model.decode_head.loss_cls.class_weight': [1.0] * 150},
        'model.decode_head.loss_cls.class_weight',
        'write [1.0] * 150 + [0.1]',
        threads='S3811',
    ),
    Mistake(
        QUERIES,
        {'model.decode_head.num_classes': 19, 'model.decode_head.loss_cls.class_weight': [1.0] * 20},
        'model.decode_head.num_classes',
        'num_classes=150',
    ),
    Mistake(DINO, {'model.bbox_head.num_classes': 5}, 'model.bbox_head.num_classes', 'num_classes=80'),
    # Losses and anchors.
    Mistake(
        SEGMENTOR,
        {'model.decode_head.out_channels': 1},
        'model.decode_head.loss_decode.use_sigmoid',
        'has one output, whose softmax is always 1',
        threads='S2201 S1681',
    ),
    Mistake(
        SEGMENTOR,
        {'model.decode_head.loss_decode.class_weight': [1.0, 2.0]},
        'model.decode_head.loss_decode.class_weight',
        'has 2 values, and the head has 150 outputs',
        threads='S3412',
    ),
    Mistake(
        RETINANET,
        {'model.neck.num_outs': 4},
        'model.bbox_head.anchor_generator.strides',
        'are for 5 maps, and the neck gives 4',
        threads='D2120',
    ),
    # Random crops in an evaluation.
    Mistake(
        SEGMENTOR,
        {
            'val_dataloader.dataset.pipeline': [
                dict(type='LoadImageFromFile'),
                dict(type='RandomCrop', crop_size=(32, 32)),
                dict(type='LoadAnnotations'),
                dict(type='PackSegInputs'),
            ]
        },
        'val_dataloader.dataset.pipeline.1',
        'is RandomCrop, and an evaluation is of whole images',
    ),
    # What is found while running otherwise: padding, layers, packages.
    Mistake(
        FPN,
        {'model.decode_head.ignore_index': 0},
        'model.data_preprocessor.seg_pad_val',
        'write model.data_preprocessor.seg_pad_val=0, and val_evaluator.ignore_index=0',
        threads='S1688',
    ),
    Mistake(
        SEGMENTOR,
        {
            'optim_wrapper.constructor': 'LearningRateDecayOptimizerConstructor',
            'optim_wrapper.paramwise_cfg': dict(
                _delete_=True, decay_rate=0.9, decay_type='stage_wise', num_layers=6
            ),
        },
        'optim_wrapper.constructor',
        'paramwise_cfg=dict(_delete_=True, layer_decay_rate=0.9, flat_decay_mult=0.0)',
    ),
    Mistake(
        SEGMENTOR,
        {'visualizer.vis_backends': [dict(type='LocalVisBackend'), dict(type='ClearMLVisBackend')]},
        'visualizer.vis_backends.1',
        'needs clearml, and that is not installed: pip install clearml, or take the backend out',
    ),
    Mistake(
        SEGMENTOR,
        {'train_dataloader.dataset.pipeline.0.imdecode_backend': 'turbojpeg'},
        'train_dataloader.dataset.pipeline',
        "has imdecode_backend='turbojpeg', which needs PyTurboJPEG, and that is not installed",
    ),
]
