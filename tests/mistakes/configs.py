"""Wrong configs, each with one mistake, and what is to be said of it."""

from typing import NamedTuple

SEGMENTOR = 'tests/data/tiny_upernet.py'
DETECTOR = 'tests/data/tiny_mask_rcnn.py'
CLASSIFIER = 'tests/data/tiny_classifier.py'
FPN = 'configs/fpn_poolformer_s12_ade20k.py'
RETINANET = 'configs/retinanet_poolformer_s12_coco.py'
CASCADE = 'configs/cascade_mask_rcnn_caformer_s18_coco.py'


class Mistake(NamedTuple):
    """Options that make a config wrong, and the key and a part of the sentence of the one finding."""

    config: str
    options: dict
    key: str
    text: str
    is_warning: bool = False


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
    Mistake(SEGMENTOR, {'model.backbone.type': 'CAFormer'}, 'model.backbone.type', "write 'mmmeta.CAFormer'"),
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
    ),
    Mistake(
        RETINANET,
        {'model.bbox_head.num_classes': 5},
        'model.bbox_head.num_classes',
        'bbox_head.num_classes=80',
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
    ),
]
