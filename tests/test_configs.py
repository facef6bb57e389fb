"""Every config is built, run forward, and given one loss and backward, with its own pipeline."""

import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT, nightly_but

from mmmeta.analysis.paper_tables import load_paper_table
from mmmeta.config.adaptation import adapt_to_device
from mmmeta.config.loading import load_config
from mmmeta.weights import get_weights

pytest.importorskip('mmseg', reason='the configs inherit from MMSegmentation and MMDetection')
pytest.importorskip('mmdet', reason='the configs inherit from MMSegmentation and MMDetection')
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('configs/*.py'))
# Recipes without a published result, which tests/apis/test_swapping.py compares with what writes them.
RECIPES = [path for path in CONFIGS if re.search('/(mask2former|dino|rtmdet|segformer)_|_cityscapes', path)]
ADE20K = [path for path in CONFIGS if path.endswith('_ade20k.py') and path not in RECIPES]
COCO = [path for path in CONFIGS if path.endswith('_coco.py') and path not in RECIPES]
METHODS = {
    'UperNet': 'upernet',
    'Semantic FPN': 'fpn',
    'RetinaNet': 'retinanet',
    'Mask R-CNN': 'mask_rcnn',
    'Cascade Mask R-CNN': 'cascade_mask_rcnn',
}


def dicts(value):
    """Every dict inside a config value, such as the steps of a pipeline and those inside its choices."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from dicts(part)


def learn(cfg, data_root):
    """One loss and backward on two images of a generated data set; the model, and what reached it."""
    from mmengine.registry import MODELS, init_default_scope
    from mmengine.runner import Runner

    adapt_to_device(cfg)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.init_cfg = None  # published weights are far away
    loader = cfg.train_dataloader.to_dict()
    loader['dataset']['data_root'] = str(data_root)
    loader.update(num_workers=0, persistent_workers=False, batch_size=2)
    batch = next(iter(Runner.build_dataloader(loader, seed=0)))
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    data = model.data_preprocessor(batch, training=True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    return model.eval(), data


def is_small(path):
    """Whether a config has the smallest size of its family: the pipeline and the heads are those of all."""
    return '_s12_' in path or '_s18_' in path


@pytest.mark.parametrize('path', nightly_but(ADE20K, is_small))
def test_a_segmentor_learns_from_its_own_pipeline(path, ade_root):
    cfg = load_config(path)
    crop = [step for step in cfg.train_dataloader.dataset.pipeline if step['type'] == 'RandomCrop']
    assert tuple(crop[0].crop_size) == (512, 512)
    # The same pipeline at an eighth of the size.
    cfg.merge_from_dict({'model.data_preprocessor.size': (64, 64)})
    for step in cfg.train_dataloader.dataset.pipeline:
        if step['type'] == 'RandomCrop':
            step.crop_size = (64, 64)
        elif step['type'] == 'RandomResize':
            step.scale = (256, 64)
    model, data = learn(cfg, ade_root)
    assert data['inputs'].shape == (2, 3, 64, 64)
    with torch.no_grad():
        assert model(data['inputs'][:1], mode='tensor').shape == (1, 150, 16, 16)


@pytest.mark.parametrize('path', nightly_but(COCO, is_small))
def test_a_detector_learns_from_its_own_pipeline(path, coco_root):
    cfg = load_config(path)
    # The same pipeline at an eighth of the size.
    for step in dicts(cfg.train_dataloader.dataset.pipeline):
        if step.get('type') == 'Resize':
            step.scale = (166, 100)
        elif step.get('type') == 'RandomChoiceResize':
            step.scales = [(short // 8, 166) for short, _ in step.scales]
        elif step.get('type') == 'RandomCrop':
            step.crop_size = (48, 75)
    # And few proposals.
    for part in dicts([cfg.model.train_cfg, cfg.model.test_cfg]):
        for key in {'num', 'max_per_img'} & part.keys():
            part[key] //= 32
    model, data = learn(cfg, coco_root)
    with torch.no_grad():
        features = model.extract_feat(data['inputs'])
        assert [feature.shape[1] for feature in features] == [256] * 5
        results = model(**data, mode='predict')
    assert len(results) == 2
    assert ('masks' in results[0].pred_instances) == ('mask' in path)


def test_the_detector_of_the_demo_learns_from_its_own_pipeline(coco_root):
    cfg = load_config('configs/demo/mask_rcnn_caformer_s18_shapes.py')
    _, data = learn(cfg, coco_root)
    assert data['inputs'].shape == (2, 3, 128, 160)


@pytest.mark.parametrize('path', CONFIGS)
def test_it_starts_from_published_weights_of_its_backbone(path):
    backbone = load_config(path).model.backbone
    weights = get_weights(backbone.init_cfg.checkpoint.removeprefix('mmmeta://'))
    assert (f'mmmeta.{weights.family}', weights.size) == (backbone.type.lower(), backbone.arch)
    assert (weights.num_classes, weights.image_size) == (1000, 224)


@pytest.mark.parametrize(('table', 'configs'), [('ade20k', ADE20K), ('coco', COCO)])
def test_there_is_a_config_for_each_row_of_the_papers(table, configs):
    rows = {
        f'configs/{METHODS[row["method"]]}_{row["backbone"]}_{table}.py'
        for row in load_paper_table(table)
        if 'former' in row['backbone']
    }
    assert rows == set(configs)


def test_there_are_no_other_configs():
    assert sorted(ADE20K + COCO + RECIPES) == CONFIGS
    assert len(RECIPES) == 7


@pytest.mark.parametrize('path', ADE20K)
def test_schedule_and_recipe_of_a_segmentor(path):
    cfg = load_config(path)
    name = Path(path).stem
    upernet = name.startswith('upernet')
    assert cfg.model.backbone.type.startswith('mmmeta.')
    assert cfg.train_cfg.max_iters == (160_000 if upernet else 40_000)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == (16 if upernet else 32)
    assert cfg.auto_scale_lr.enable is False
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.optim_wrapper.optimizer.lr == (6e-5 if upernet else 2e-4)
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_iters
    assert cfg.param_scheduler[-1].power == (1.0 if upernet else 0.9)
    steps = [step.type for step in cfg.test_dataloader.dataset.pipeline]
    assert ('ResizeToMultiple' in steps) == (not upernet)
    assert cfg.val_dataloader.dataset.pipeline == cfg.test_dataloader.dataset.pipeline
    scales = [step.scale for step in cfg.tta_pipeline[1].transforms[0]]
    assert scales == [(int(2048 * r), int(512 * r)) for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)]


@pytest.mark.parametrize('path', COCO)
def test_schedule_and_recipe_of_a_detector(path):
    cfg = load_config(path)
    method, family, size = re.fullmatch(r'configs/(.+)_(.+former)_(.+)_coco.py', path).groups()
    one_x = family == 'poolformer'
    assert cfg.custom_imports['imports'] == ['mmmeta']
    assert cfg.train_cfg.max_epochs == (12 if one_x else 36)
    assert list(cfg.param_scheduler[-1].milestones) == ([8, 11] if one_x else [27, 33])
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == 16
    assert cfg.auto_scale_lr.enable is False
    optimizer = cfg.optim_wrapper.optimizer
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert 'clip_grad' not in cfg.optim_wrapper
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == (
        'AdamW',
        2e-4 if (method, family) == ('mask_rcnn', 'poolformer') else 1e-4,
        1e-4 if one_x else 0.05,
    )
    names = {step.get('type') for step in dicts(cfg.train_dataloader.dataset.pipeline)}
    assert ('RandomCrop' in names) == ('RandomChoiceResize' in names) == (not one_x)
    resize = [
        step.scale for step in dicts(cfg.test_dataloader.dataset.pipeline) if step.get('type') == 'Resize'
    ]
    assert resize == [(1333, 800)]
    backbone = cfg.model.backbone
    assert backbone.arch == size
    assert backbone.get('window') == (13 if family == 'caformer' else None)
    if method == 'retinanet':
        # Strides 8 to 32; the first stage has no norm that nobody uses.
        assert list(backbone.out_indices) == [1, 2, 3]
    if method == 'cascade_mask_rcnn':
        heads = cfg.model.roi_head.bbox_head
        assert [(h.num_shared_convs, h.num_shared_fcs, h.loss_bbox.type) for h in heads] == [
            (4, 1, 'GIoULoss')
        ] * 3


def test_one_dimensional_parameters_are_not_decayed():
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import MODELS, init_default_scope

    for path in (
        'upernet_caformer_s18_ade20k',
        'mask_rcnn_caformer_s18_coco',
        'cascade_mask_rcnn_caformer_s18_coco',
    ):
        cfg = load_config(f'configs/{path}.py')
        init_default_scope(cfg.default_scope)
        backbone = MODELS.build(cfg.model.backbone)
        groups = build_optim_wrapper(backbone, cfg.optim_wrapper).optimizer.param_groups
        assert len(groups) == len(list(backbone.parameters()))
        for group in groups:
            (parameter,) = group['params']
            decay = cfg.optim_wrapper.optimizer.weight_decay
            assert group['weight_decay'] == (0.0 if parameter.ndim == 1 else decay)
