"""A MetaFormer in configs of the OpenMMLab packages: what is written, and what is refused."""

import textwrap
from pathlib import Path

import pytest
from conftest import ROOT
from mmengine.config import Config

from mmmeta.apis import load_config, swap
from mmmeta.swapping.maps import read_maps, rewire
from mmmeta.swapping.swap import check_swappable, swap_with_reasons
from mmmeta.swapping.writing import describe_changes, plain, write_swap
from mmmeta.utils.errors import UsageError

pytest.importorskip('mmseg', reason='configs of MMSegmentation are swapped')
pytest.importorskip('mmdet', reason='configs of MMDetection are swapped')
MASK_RCNN = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
PSPNET = 'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py'
# Kept configs, and what writes them.
RECIPES = dict(
    mask2former_caformer_s18_ade20k='mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
    mask2former_caformer_s18_coco='mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    dino_caformer_s18_coco='mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    rtmdet_convformer_s18_coco='mmdet::rtmdet/rtmdet_l_convnext_b_4xb32-100e_coco.py',
    segformer_convformer_s18_ade20k='mmseg::segformer/segformer_mit-b2_8xb2-160k_ade20k-512x512.py',
    upernet_caformer_s18_cityscapes='mmseg::upernet/upernet_r50_4xb2-80k_cityscapes-512x1024.py',
    fpn_poolformer_s12_cityscapes='mmseg::sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024.py',
)


def value(cfg, key):
    """The value under a dotted key; None if there is none."""
    found = cfg
    for part in key.split('.'):
        if isinstance(found, (list, tuple)):
            found = found[int(part)]
        else:
            found = found.get(part)
    return found


@pytest.mark.parametrize('name', RECIPES)
def test_a_kept_recipe_is_what_the_command_writes(name, tmp_path):
    backbone = '_'.join(name.split('_')[1:3])
    path = write_swap(RECIPES[name], backbone, tmp_path / 'out.py')
    assert path.read_text() == (ROOT / f'configs/{name}.py').read_text()


def test_the_file_of_a_detector(tmp_path):
    path = write_swap(MASK_RCNN, 'mmmeta://caformer_s36_in21ft1k,window=(None,None,7,7)', tmp_path / 'out.py')
    assert path.read_text() == textwrap.dedent("""\
        # mask-rcnn_r50_fpn_1x_coco with mmmeta://caformer_s36_in21ft1k,window=(None,None,7,7).
        _base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
        custom_imports = dict(imports=['mmmeta'], allow_failed_imports=False)
        model = dict(
            backbone=dict(
                _delete_=True,
                type='mmmeta.CAFormer',
                arch='s36',
                # As in ImageNet training.
                drop_path_rate=0.3,
                window=(None, None, 7, 7),
                init_cfg=dict(type='Pretrained', checkpoint='mmmeta://caformer_s36_in21ft1k'),
            ),
            neck=dict(in_channels=[64, 128, 320, 512]),
        )
        optim_wrapper = dict(
            # The rate of our configs at a batch of 16.
            optimizer=dict(_delete_=True, type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05),
            # No decay of norms, biases, residual scales and StarReLU's scalars.
            paramwise_cfg=dict(flat_decay_mult=0.0),
        )
    """)


# Configs of each kind of wiring, and values under keys of the swapped model.
WIRINGS = [
    (
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        dict(
            {'backbone.out_indices': (1, 2, 3), 'backbone.out_stride': None, 'neck.start_level': 0},
            **{'neck.in_channels': [128, 320, 512], 'bbox_head.in_channels': 256},
        ),
    ),
    ('mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py', {'neck.in_channels': [512, 320, 128]}),
    (
        'mmdet::yolox/yolox_s_8xb8-300e_coco.py',
        dict(
            {'backbone.out_indices': (1, 2, 3), 'neck.in_channels': [128, 320, 512]},
            **{'data_preprocessor.mean': [123.675, 116.28, 103.53], 'data_preprocessor.bgr_to_rgb': True},
        ),
    ),
    (
        'mmdet::ssd/ssd300_coco.py',
        dict(
            {'backbone.out_indices': (1, 2), 'neck.in_channels': (128, 320)},
            **{f'{part}_channels': (128, 320, 512, 256, 256, 256) for part in ('neck.out', 'bbox_head.in')},
        ),
    ),
    (
        'mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py',
        dict(
            {'backbone.out_indices': (3,), 'backbone.out_stride': 16, 'rpn_head.in_channels': 512},
            **{'roi_head.bbox_roi_extractor.out_channels': 512, 'roi_head.bbox_head.in_channels': 512},
        ),
    ),
    (
        'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
        {'panoptic_head.in_channels': [64, 128, 320, 512], 'panoptic_head.strides': [4, 8, 16, 32]},
    ),
    (
        'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
        dict(
            {'detector.backbone.type': 'mmmeta.CAFormer', 'detector.neck.in_channels': [64, 128, 320, 512]},
            **{'detector.data_preprocessor.bgr_to_rgb': True},
        ),
    ),
    (
        PSPNET,
        dict(
            {'pretrained': None, 'backbone.out_indices': (2, 3), 'backbone.out_stride': 8},
            **{'decode_head.in_channels': 512, 'decode_head.in_index': 1},
            **{'auxiliary_head.in_channels': 320, 'auxiliary_head.in_index': 0},
        ),
    ),
    (
        'mmseg::deeplabv3plus/deeplabv3plus_r101-d16-mg124_4xb2-40k_cityscapes-512x1024.py',
        dict(
            {'backbone.out_indices': (0, 2, 3), 'backbone.out_stride': 16, 'decode_head.c1_in_channels': 64},
            **{'decode_head.in_index': 2, 'auxiliary_head.in_index': 1},
        ),
    ),
    (
        'mmseg::fastfcn/fastfcn_r50-d32_jpu_enc_4xb2-80k_cityscapes-512x1024.py',
        dict(
            {'backbone.out_indices': (1, 2, 3), 'neck.in_channels': (128, 320, 512)},
            **{'decode_head.in_channels': [128, 320, 2048], 'auxiliary_head.in_channels': 320},
        ),
    ),
    (
        'mmseg::encnet/encnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
        dict(
            {'backbone.out_indices': (2, 3), 'decode_head.in_channels': [512], 'decode_head.in_index': (1,)},
            **{'auxiliary_head.in_channels': 320, 'auxiliary_head.in_index': 0},
        ),
    ),
    (
        'mmseg::ocrnet/ocrnet_hr18_4xb2-160k_cityscapes-512x1024.py',
        {f'decode_head.{i}.in_channels': [64, 128, 320, 512] for i in (0, 1)},
    ),
    (
        'mmseg::knet/knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512.py',
        {'decode_head.kernel_generate_head.in_channels': [64, 128, 320, 512]},
    ),
    (
        'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
        {'neck.type': 'GlobalAveragePooling', 'head.in_channels': 512, 'backbone.out_indices': (3,)},
    ),
    (
        'mmpretrain::hrnet/hrnet-w18_4xb32_in1k.py',
        {'neck.0.in_channels': (64, 128, 320, 512), 'head.in_channels': 2048},
    ),
    (
        'mmpretrain::efficientformer/efficientformer-l1_8xb128_in1k.py',
        {'neck.dim': 2, 'head.in_channels': 512},
    ),
    ('mmpretrain::byol/byol_resnet50_16xb256-coslr-200e_in1k.py', {'neck.in_channels': 512}),
]


@pytest.mark.parametrize(('config', 'expected'), WIRINGS, ids=[config for config, _ in WIRINGS])
def test_channels_stages_and_strides(config, expected):
    model = swap(load_config(config), 'caformer_s18').model
    assert {key: value(model, key) for key in expected} == expected


# Configs, and values under keys of the swapped config.
RECIPE_VALUES = [
    (
        PSPNET,
        dict(
            {'optim_wrapper.optimizer.type': 'AdamW', 'optim_wrapper.optimizer.lr': 3e-5},
            **{'auto_scale_lr.base_batch_size': 8, 'param_scheduler.0.type': 'LinearLR'},
            **{'param_scheduler.1.begin': 1500, 'param_scheduler.1.eta_min': 3e-7},
        ),
    ),
    (
        'mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
        dict(
            {'optim_wrapper.constructor': None, 'optim_wrapper.type': 'AmpOptimWrapper'},
            **{'optim_wrapper.paramwise_cfg': dict(flat_decay_mult=0.0), 'optim_wrapper.optimizer.lr': 1e-4},
        ),
    ),
    (
        'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
        {
            'optim_wrapper.paramwise_cfg': dict(
                custom_keys=dict(norm=dict(decay_mult=0.0)), flat_decay_mult=0.0
            )
        },
    ),
    (
        'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
        dict(
            {'optim_wrapper.constructor': 'mmmeta.FlatDecayOptimWrapperConstructor'},
            **{'optim_wrapper.paramwise_cfg.custom_keys': dict(backbone=dict(lr_mult=0.1))},
            **{'optim_wrapper.clip_grad.max_norm': 0.1},
        ),
    ),
    ('mmdet::yolox/yolox_s_8xb8-300e_coco.py', {'optim_wrapper.optimizer.lr': 4e-4}),
    ('mmdet::carafe/../cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py', {'load_from': None}),
]


@pytest.mark.parametrize(('config', 'expected'), RECIPE_VALUES, ids=[config for config, _ in RECIPE_VALUES])
def test_optimiser_schedule_and_weights(config, expected):
    cfg = swap(load_config(config), 'convformer_s18')
    assert {key: value(cfg, key) for key in expected} == expected


def test_the_optimiser_stays_if_asked():
    original = load_config(PSPNET)
    kept = swap(original, 'caformer_s18', keep_optimizer=True)
    assert kept.optim_wrapper == original.optim_wrapper
    assert kept.param_scheduler == original.param_scheduler


def test_windows_are_for_large_images_of_caformer_unless_given():
    ade, coco = (load_config(name) for name in ('configs/demo/upernet_caformer_s18_shapes.py', MASK_RCNN))
    assert 'window' not in swap(ade, 'caformer_s18').model.backbone
    assert swap(coco, 'caformer_s18').model.backbone.window == 13
    assert swap(coco, 'caformer_s18,window=None').model.backbone.window is None
    assert 'window' not in swap(coco, 'convformer_s18').model.backbone


def test_another_size_of_training_images():
    cfg = swap(load_config(PSPNET), 'caformer_s18', train_size=(256, 512))
    crops = [step for step in cfg.train_dataloader.dataset.pipeline if step['type'] == 'RandomCrop']
    assert crops[0].crop_size == (256, 512)
    assert cfg.model.data_preprocessor.size == (256, 512)
    resizes = [step for step in cfg.train_dataloader.dataset.pipeline if step['type'] == 'RandomResize']
    assert resizes[0].scale == (1024, 512)
    cfg = swap(load_config(MASK_RCNN), 'caformer_s18', train_size=(416, 672))
    assert [step.scale for step in cfg.train_dataloader.dataset.pipeline if 'scale' in step] == [(672, 416)]


def test_what_is_changed_and_what_is_kept_is_said():
    before = load_config(MASK_RCNN)
    changed, kept = describe_changes(before, swap(before, 'caformer_s18'))
    optimizer = ['optim_wrapper.optimizer', 'optim_wrapper.paramwise_cfg']
    assert changed == ['model.backbone', 'model.neck.in_channels', *optimizer, 'custom_imports']
    assert kept == [
        "the data of CocoDataset in 'data/coco/'",
        'its 80 classes (person, bicycle, car and 77 more)',
        'max_epochs=12',
    ]


def test_what_is_given_is_not_changed():
    cfg = load_config(PSPNET)
    before = cfg.to_dict()
    swap(cfg, 'caformer_s18')
    assert cfg.to_dict() == before


def test_a_config_that_replaces_the_backbone_again_after_inheriting(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        f"_base_ = '{MASK_RCNN}'\n"
        "model = dict(backbone=dict(_delete_=True, type='ResNet', depth=18, frozen_stages=1,\n"
        "    init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),\n"
        '    neck=dict(in_channels=[64, 128, 256, 512]))\n'
    )
    out = write_swap(str(path), 'convformer_s18', tmp_path / 'sub' / 'out.py')
    assert "_base_ = '../mine.py'" in out.read_text()
    cfg = load_config(str(out))
    assert plain(cfg) == plain(swap(load_config(str(path)), 'convformer_s18'))
    assert 'frozen_stages' not in cfg.model.backbone
    assert cfg.model.neck.in_channels == [64, 128, 320, 512]


def test_all_tools_put_it_in_by_one_argument():
    cfg = load_config(MASK_RCNN, {'model.backbone.window': 7}, backbone='caformer_s18')
    assert cfg.work_dir == 'work_dirs/mask-rcnn_r50_fpn_1x_coco_caformer_s18'
    assert (cfg.model.backbone.type, cfg.model.backbone.window) == ('mmmeta.CAFormer', 7)


REFUSED = [
    ('mmseg::unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py', "'UNet' (model.backbone.type) has no"),
    ('mmseg::san/san-vit-b16_coco-stuff164k-640x640.py', "model.type='MultimodalEncoderDecoder' has no"),
    ('mmseg::cgnet/cgnet_fcn_4xb4-60k_cityscapes-680x680.py', "'CGNet' (model.backbone.type)"),
    ('mmseg::mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py', "'MAE' (model.backbone.type)"),
    ('mmseg::segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512.py', "'VisionTransformer' (model"),
    ('mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py', "'ResLayer' is made for the backbone"),
    (
        'mmdet::nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py',
        "'NASFCOS_FPN' is made for the backbone of this config: it takes sizes of maps by their places",
    ),
    (
        'mmdet::rtmdet/classification/cspnext-s_8xb256-rsb-a1-600e_in1k.py',
        'is a config of mmpretrain that mmdet installs',
    ),
    ('mmdet::detectors/detectors_htc-r50_1x_coco.py', "'RFP' is made for the backbone of this config"),
    ('mmdet::rtmdet/rtmdet_x_p6_4xb8-300e_coco.py', "'CSPNeXt' gives a map of stride 64, and the stages of"),
    ('mmdet::ld/ld_r18-gflv1-r101_fpn_1x_coco.py', "model.teacher_config='configs/gfl/gfl_r101_fpn"),
    ('mmdet::common/lsj-100e_coco-instance.py', 'has no model: it is a part of a config'),
    ('mmpretrain::vgg/vgg16_8xb32_in1k.py', "'VGG' (model.backbone.type) has no other in its place: it ends"),
    ('mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py', "'VisionTransformer' (model.backbone"),
]


@pytest.mark.parametrize(('config', 'message'), REFUSED, ids=[config for config, _ in REFUSED])
def test_what_is_tied_to_its_backbone_is_refused_before_anything_is_built(
    config, message, tmp_path, monkeypatch
):
    try:
        load_config(config)
    except UsageError:
        pytest.skip('another version of the package')
    if 'stride' not in message:
        monkeypatch.setattr('mmmeta.config.wiring.MODELS.build', lambda cfg: pytest.fail('built'))
    with pytest.raises(UsageError) as error:
        write_swap(config, 'caformer_s18', tmp_path / 'out.py')
    assert message in str(error.value)
    assert '\n' not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('config', 'options', 'message'),
    [
        ('glip/glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco', {}, 'BertModel in this config needs'),
        (
            'dino/dino-5scale_swin-l_8xb2-12e_coco',
            {'model.encoder.num_cp': 2},
            'num_cp=2 in this config needs',
        ),
        ('boxinst/boxinst_r50_fpn_ms-90k_coco', {}, 'pip install scikit-image'),
    ],
)
def test_a_method_whose_package_is_missing(config, options, message, monkeypatch):
    monkeypatch.setattr('mmmeta.swapping.tied.find_spec', lambda name: None)
    with pytest.raises(UsageError, match=message):
        check_swappable(load_config(f'mmdet::{config}.py', options))


@pytest.mark.parametrize(
    ('backbone', 'message'),
    [
        ('caformer_s17', "unknown arch 's17' of CAFormer: choose one of s18, s36, m36, b36"),
        ('cafomer_s18', "unknown backbone 'cafomer_s18': did you mean caformer_s18"),
        ('mmmeta://caformer_s18_in22k', 'did you mean caformer_s18_in21k'),
        ('caformer_s18,windw=13', "CAFormer takes no argument 'windw': it is written window"),
        ('caformer_s18,window=12', 'window=12'),
        (
            "metaformer_x,depths=(1,1,1),dims=(32,64,128),token_mixers='pooling'",
            "unknown backbone 'metaformer_x'",
        ),
        (
            'convformer_s18,depths=(1,1,1),dims=(32,64,128)',
            "'ResNet' gives a map of stride 32, and the stages of ConvFormer have 4, 8, 16",
        ),
    ],
)
def test_a_backbone_that_is_none_or_does_not_fit(backbone, message, tmp_path):
    with pytest.raises(UsageError) as error:
        write_swap(MASK_RCNN, backbone, tmp_path / 'out.py')
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('model = dict(', 'is not valid Python'),
        ('x = 1', 'has no model: it is a part of a config'),
        ("model = dict(type='X')", 'with default_scope=None: write the package that its types are of'),
        (
            "model = dict(type='FasterRCNN', pretrained='x')\ndata = dict(samples_per_gpu=2)",
            'is a config of MMCV 1 with default_scope=None',
        ),
        (
            'from mmengine.config import read_base\nfrom mmdet.models import ATSS\n'
            "default_scope = 'mmdet'\nmodel = dict(type=ATSS)",
            'is a config of pure Python (its types are classes)',
        ),
    ],
)
def test_a_config_that_is_none(text, message, tmp_path):
    path = tmp_path / 'bad.py'
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        write_swap(str(path), 'caformer_s18', tmp_path / 'out.py')
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path):
    out = tmp_path / 'out.py'
    out.write_text('mine')
    with pytest.raises(UsageError, match='exists: give another --out, or --force to write over it'):
        write_swap(MASK_RCNN, 'caformer_s18', out)
    assert out.read_text() == 'mine'
    write_swap(MASK_RCNN, 'caformer_s18', out, force=True)
    assert out.read_text().startswith('# mask-rcnn_r50_fpn_1x_coco with caformer_s18.')


@pytest.mark.parametrize('size', [(100, 128), (0, 64)])
def test_a_training_size_that_is_none(size):
    with pytest.raises(UsageError, match=f'--train-size {size[0]} {size[1]}: give multiples of 32'):
        swap(load_config(PSPNET), 'caformer_s18', train_size=size)


UPERNET = 'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py'
RESNET = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
LINEAR = dict(type='LinearNeck', in_channels=2048, out_channels=512)
# Settings over a config, and what is expected under keys of the swapped one.
SETTINGS = [
    (UPERNET, {'model.auxiliary_head': None}, {'model.auxiliary_head': None}),
    (
        RESNET,
        {'model.neck': [dict(type='GlobalAveragePooling'), LINEAR], 'model.head.in_channels': 512},
        {'model.neck.1.in_channels': 512, 'model.head.in_channels': 512},
    ),
    (RESNET, {'model.head': None}, {'model.head': None}),
    (
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        {'model.neck.end_level': 2, 'model.neck.num_outs': 5, 'model.neck.add_extra_convs': 'on_output'},
        {
            'model.backbone.out_indices': (1, 2),
            'model.neck.in_channels': [128, 320],
            'model.neck.end_level': -1,
        },
    ),
    (
        RESNET,
        {
            'model.backbone.in_channels': 1,
            'data_preprocessor': dict(num_classes=1000, mean=[127.5], std=[127.5], to_rgb=False),
        },
        {
            'model.backbone.in_channels': 1,
            'data_preprocessor.mean': [127.5],
            'data_preprocessor.to_rgb': False,
        },
    ),
    (
        RESNET,
        {'model.backbone.frozen_stages': 4, 'model.backbone.with_cp': True},
        {'model.backbone.frozen_stages': 4, 'model.backbone.with_cp': True},
    ),
    (MASK_RCNN, {'load_from': 'x.pth', 'resume': True}, {'load_from': None, 'resume': False}),
    (
        MASK_RCNN,
        {'model.init_cfg': [dict(type='Pretrained', checkpoint='old.pth')]},
        {'model.init_cfg': None},
    ),
    (
        'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py',
        {'optim_wrapper.optimizer': dict(type='AdamW', lr=5e-5, betas=(0.9, 0.95), weight_decay=0.05)},
        {'optim_wrapper.optimizer.lr': 5e-5, 'optim_wrapper.optimizer.betas': (0.9, 0.95)},
    ),
    (
        MASK_RCNN,
        {'optim_wrapper.accumulative_counts': 4, 'auto_scale_lr': dict(enable=True, base_batch_size=None)},
        {'optim_wrapper.optimizer.lr': 4e-4, 'auto_scale_lr': dict(enable=True, base_batch_size=64)},
    ),
    (
        RESNET,
        {'param_scheduler': [dict(type='CosineAnnealingMomentum'), dict(type='StepLR', step_size=3)]},
        {'param_scheduler': [dict(type='StepLR', step_size=3)]},
    ),
    ('mmdet::yolox/yolox_s_8xb8-300e_coco.py', {}, {'model.backbone.window': 13}),
    (
        'mmpretrain::spark/benchmarks/resnet50_8xb256-coslr-300e_in1k.py',
        {},
        {
            'optim_wrapper.constructor': 'LearningRateDecayOptimWrapperConstructor',
            'optim_wrapper.paramwise_cfg.layer_decay_rate': 0.7,
        },
    ),
]


@pytest.mark.parametrize(('config', 'options', 'expected'), SETTINGS)
def test_settings_of_users(config, options, expected):
    cfg = load_config(config)
    for key, new in options.items():
        *path, last = key.split('.')
        found = cfg
        for part in path:
            found = found[part]
        found[last] = new
    swapped = swap(cfg, 'caformer_s18')
    assert {key: value(swapped, key) for key in expected} == expected


@pytest.mark.parametrize(
    ('part', 'expected'),
    [
        (dict(in_index=-1, in_channels=2048), dict(in_index=1, in_channels=512)),
        (dict(in_index=-2, in_channels=1024), dict(in_index=0, in_channels=320)),
        (dict(in_index=3, in_channels=2048), dict(in_index=1, in_channels=512)),
        (dict(in_index=(-2, -1), in_channels=(1024, 2048)), dict(in_index=(0, 1), in_channels=(320, 512))),
        (dict(in_index=[-1], in_channels=[2048]), dict(in_index=[1], in_channels=[512])),
    ],
)
def test_maps_that_are_counted_from_the_last_where_others_are_left_out(part, expected):
    old = [256, 512, 1024, 2048]
    model = Config(dict(decode_head=part, auxiliary_head=dict(in_index=[2, 3])))._cfg_dict
    read = read_maps(model, len(old), 'mmseg')
    assert read == [2, 3]
    assert rewire(part, old, [320, 512], {index: place for place, index in enumerate(read)}) == expected


def test_what_normalises_in_a_pipeline_does_so_once():
    cfg = load_config(UPERNET)
    normalise = dict(type='Normalize', mean=[1.0] * 3, std=[2.0] * 3, to_rgb=False)
    cfg.train_dataloader.dataset.pipeline.insert(-1, normalise)
    cfg.model.data_preprocessor = dict(type='SegDataPreProcessor', size=(512, 512))
    swapped = swap(cfg, 'caformer_s18')
    assert 'mean' not in swapped.model.data_preprocessor
    step = swapped.train_dataloader.dataset.pipeline[-2]
    assert (step['mean'], step['to_rgb']) == ([123.675, 116.28, 103.53], True)


def test_means_of_other_channels_are_refused():
    with pytest.raises(UsageError, match=r'in_channels=1 of the backbone, and data_preprocessor.mean=\[123'):
        swap(load_config(RESNET), 'caformer_s18,in_channels=1')


def test_gpus_in_the_name_of_a_base(tmp_path):
    path = tmp_path / 'child.py'
    path.write_text(f"_base_ = '{PSPNET}'")
    swapped = swap_with_reasons(load_config(str(path)), 'caformer_s18')
    assert swapped.cfg.auto_scale_lr.base_batch_size == 8
    assert '8 GPUs' not in swapped.reasons['auto_scale_lr',]


def test_sizes_of_later_pipelines_and_of_sliding_tests():
    cfg = swap(
        load_config('mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py'), 'caformer_s18', train_size=(320, 320)
    )
    (hook,) = [hook for hook in cfg.custom_hooks if hook['type'] == 'PipelineSwitchHook']
    assert [step['crop_size'] for step in hook.switch_pipeline if 'crop_size' in step] == [(320, 320)]
    cfg = swap(load_config('mmdet::detr/detr_r50_8xb2-150e_coco.py'), 'caformer_s18', train_size=(416, 672))
    assert cfg.train_dataloader.dataset.pipeline[3].transforms[0][0].scales[-1] == (416, 672)
    crowds = load_config('mmdet::crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py')
    cfg = swap(crowds, 'caformer_s18', train_size=(416, 672))
    assert cfg.model.data_preprocessor.batch_augments[0].scale == (672, 416)
    name = 'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-769x769.py'
    test = swap(load_config(name), 'caformer_s18', train_size=(512, 1024)).model.test_cfg
    assert (test.crop_size, test.stride) == ((512, 1024), (342, 683))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            "model = dict(backbone=dict(_delete_=True, type='MyNet'))",
            "model.backbone.type='MyNet' is not registered",
        ),
        (
            "custom_imports = dict(imports=['no_such_module'])",
            'cannot be imported (Failed to import no_such',
        ),
    ],
)
def test_types_that_are_not_there(text, message, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = '{UPERNET}'\n{text}\n")
    with pytest.raises(UsageError) as error:
        write_swap(str(path), 'caformer_s18', tmp_path / 'out.py')
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_not_written_over_what_it_inherits_from(tmp_path):
    base, child = tmp_path / 'base.py', tmp_path / 'child.py'
    base.write_text(f"_base_ = '{RESNET}'\nwork_dir = 'work_dirs/mine'")
    child.write_text("_base_ = 'base.py'")
    for out in (base, child):
        with pytest.raises(UsageError, match='is what it would inherit from: give another file'):
            write_swap(str(child), 'poolformer_s12', out, force=True)
    assert base.read_text().startswith("_base_ = 'mmpretrain")
    written = write_swap(str(child), 'poolformer_s12', tmp_path / 'out.py')
    assert load_config(str(written)).work_dir == 'work_dirs/mine_poolformer_s12'
    assert load_config(str(child), backbone='poolformer_s12').work_dir == 'work_dirs/mine_poolformer_s12'


@pytest.mark.parametrize('out', ['name', 'folder.py'])
def test_a_name_that_is_none_of_a_config(out, tmp_path):
    (tmp_path / 'folder.py').mkdir()
    with pytest.raises(UsageError, match='is no name of a config: give a file that ends in .py'):
        write_swap(RESNET, 'poolformer_s12', tmp_path / out, force=True)


def test_reasons_are_of_values_that_differ():
    reasons = swap_with_reasons(load_config(PSPNET), 'caformer_s18').reasons
    assert reasons['backbone', 'out_stride'] == 'The head wants fine maps.'
    assert ('data_preprocessor', 'mean') not in reasons


def test_the_default_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_swap(MASK_RCNN, 'mmmeta://caformer_s18_in21ft1k')
    assert path == Path('mask-rcnn_r50_fpn_1x_coco_caformer_s18_in21ft1k.py')
    assert Config.fromfile(path).model.backbone.arch == 's18'
