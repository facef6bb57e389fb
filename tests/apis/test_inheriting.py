"""``new --config``: any config that a MetaFormer can be put into, for somebody's data."""

import json

import pytest
from conventions import store_masks

from mmmeta.apis import check, load_config, new
from mmmeta.config.inspection import datasets, iter_dicts
from mmmeta.utils.errors import UsageError

OPTIONS = dict(weights='none', backbone='poolformer_s12', epochs=2)
RTMDET = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
DETECTORS = (
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py',
    'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py',
    'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
)
SEGFORMER = 'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py'
SEGMENTORS = (
    'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
    'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py',
)
CLASSIFIERS = (
    'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
)


def nightly(configs):
    return [pytest.param(config, marks=pytest.mark.nightly) for config in configs]


def classes_of(cfg):
    """Numbers of classes that parts of the model have."""
    return {part['num_classes'] for part in iter_dicts(cfg.model) if 'num_classes' in part}


def create(task, config, tmp_path, *data, **options):
    new(task, *data, tmp_path / 'my.py', config=config, **OPTIONS, **options)
    cfg = load_config(str(tmp_path / 'my.py'))
    assert check(cfg) == []
    assert cfg.model.backbone.type == 'mmmeta.PoolFormer' and cfg.model.backbone.init_cfg is None
    return cfg


@pytest.mark.parametrize('config', [RTMDET, *nightly(DETECTORS)])
def test_a_detector(coco_root, tmp_path, config):
    parts = {
        f'{name}_{kind}': coco_root / path
        for name, part in (('val', 'val2017'), ('test', 'train2017'))
        for kind, path in (('images', part), ('labels', f'annotations/instances_{part}.json'))
    }
    with pytest.raises(UsageError, match='is for training and for the test'):
        create('det', config, tmp_path, parts['test_images'], parts['test_labels'], **parts)
    parts = {key: value for key, value in parts.items() if key.startswith('val')}
    data = coco_root / 'train2017', coco_root / 'annotations/instances_train2017.json'
    cfg = create('det', config, tmp_path, *data, **parts, size=128)
    assert len(next(datasets(cfg.train_dataloader)).metainfo.classes) == 6
    dataset = next(datasets(cfg.val_dataloader))
    assert dataset.ann_file == cfg.val_evaluator.ann_file == str(parts['val_labels'])
    assert 80 not in classes_of(cfg) and 20 not in classes_of(cfg)
    if config == RTMDET:
        assert classes_of(cfg) == {6}
        crops = [step.crop_size for step in cfg.train_dataloader.dataset.pipeline if 'crop_size' in step]
        assert crops == [(128, 128)] and dataset.pipeline[1].scale == (128, 128)
        assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
        assert cfg.custom_hooks[1].switch_epoch == 2  # of 280 in 300
        assert cfg.param_scheduler[-1].end == 2 and cfg.optim_wrapper.optimizer.lr == 2e-4
        assert "data_root + '/" not in (tmp_path / 'my.py').read_text().split('data_root =')[0]


@pytest.mark.parametrize('config', [SEGFORMER, *nightly(SEGMENTORS)])
def test_a_segmentor(ade_root, tmp_path, config):
    root = store_masks(ade_root, tmp_path / 'data', 'sparse')
    cfg = create('seg', config, tmp_path, root / 'images', root / 'masks', ignore=['0'], size=64)
    assert len(next(datasets(cfg.test_dataloader)).metainfo.classes) == 9
    assert not {19, 150} & classes_of(cfg)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'tta_pipeline'):
        steps = [step for step in iter_dicts(cfg.get(loader) or []) if 'Load' in str(step.get('type'))]
        assert {step['type'] for step in steps} <= {
            *('LoadImageFromFile', 'LoadImageFromNDArray', 'mmmeta.LoadMappedLabels')
        }
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == 5  # two epochs of ten in fours


@pytest.mark.parametrize('config', nightly(CLASSIFIERS))
def test_a_classifier(imagenet_root, tmp_path, config):
    cfg = create('cls', config, tmp_path, imagenet_root, None, size=64)
    classes = len(cfg.train_dataloader.dataset.metainfo.classes)
    assert classes_of(cfg) == {classes} == {cfg.data_preprocessor.num_classes}


@pytest.mark.parametrize(
    ('config', 'options', 'error'),
    [
        (SEGFORMER, {}, 'is of mmseg, and det needs one of mmdet: write new seg'),
        (RTMDET, dict(method='retinanet'), '--method retinanet is that of --config mmdet::rtmdet'),
        ('mmdet::none/none.py', {}, "there is no config '"),
        (
            'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
            {},
            'is made for things and stuff: take one for objects alone',
        ),
    ],
)
def test_refused(coco_root, tmp_path, config, options, error):
    data = coco_root / 'train2017', coco_root / 'annotations/instances_train2017.json'
    with pytest.raises(UsageError, match=error):
        new('det', *data, tmp_path / 'my.py', config=config, **OPTIONS, **options)
    assert not list(tmp_path.iterdir())


def test_masks_that_the_data_lack(coco_root, tmp_path):
    content = json.loads((coco_root / 'annotations/instances_train2017.json').read_text())
    for part in content['annotations']:
        part.pop('segmentation')
    (tmp_path / 'boxes.json').write_text(json.dumps(content))
    data = coco_root / 'train2017', tmp_path / 'boxes.json'
    config = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
    with pytest.raises(UsageError, match='the network of --config learns masks, and .* take one that learns'):
        new('det', *data, tmp_path / 'my.py', config=config, **OPTIONS)
