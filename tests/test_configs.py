"""Every config is built, run forward, and given one loss and backward."""

from pathlib import Path

import pytest
import torch
from conftest import ROOT

from mmmeta.analysis.paper_tables import load_paper_table
from mmmeta.apis.config import adapt_to_device, load_config

mmseg = pytest.importorskip('mmseg', reason='the configs inherit from MMSegmentation')
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('configs/*.py'))


def batch_of(cfg, ade_root, count=2):
    """Images and annotations of the generated data set through the config's own training pipeline."""
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    init_default_scope('mmseg')
    loader = cfg.train_dataloader.to_dict()
    loader['dataset']['data_root'] = str(ade_root)
    loader.update(num_workers=0, persistent_workers=False, batch_size=count)
    return next(iter(Runner.build_dataloader(loader, seed=0)))


@pytest.mark.parametrize('path', CONFIGS)
def test_a_config_learns_from_its_own_pipeline(path, ade_root):
    from mmengine.registry import MODELS

    cfg = load_config(path)
    adapt_to_device(cfg)
    crop = [step for step in cfg.train_dataloader.dataset.pipeline if step['type'] == 'RandomCrop']
    assert tuple(crop[0].crop_size) == (512, 512)
    # The same pipeline at an eighth of the size.
    cfg.merge_from_dict({'model.data_preprocessor.size': (64, 64)})
    for step in cfg.train_dataloader.dataset.pipeline:
        if step['type'] == 'RandomCrop':
            step.crop_size = (64, 64)
        elif step['type'] == 'RandomResize':
            step.scale = (256, 64)
    batch = batch_of(cfg, ade_root)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    data = model.data_preprocessor(batch, training=True)
    assert data['inputs'].shape == (2, 3, 64, 64)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    with torch.no_grad():
        assert model(data['inputs'][:1], mode='tensor').shape == (1, 150, 16, 16)


def test_there_is_a_config_for_each_row_of_the_papers():
    rows = {
        f'configs/{dict(UperNet="upernet").get(row["method"], "fpn")}_{row["backbone"]}_ade20k.py'
        for row in load_paper_table('ade20k')
        if 'former' in row['backbone']
    }
    assert rows == set(CONFIGS)


@pytest.mark.parametrize('path', CONFIGS)
def test_schedule_and_recipe(path):
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


def test_one_dimensional_parameters_are_not_decayed():
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import MODELS, init_default_scope

    cfg = load_config('configs/upernet_caformer_s18_ade20k.py')
    init_default_scope('mmseg')
    backbone = MODELS.build(cfg.model.backbone)
    groups = build_optim_wrapper(backbone, cfg.optim_wrapper).optimizer.param_groups
    assert len(groups) == len(list(backbone.parameters()))
    for group in groups:
        (parameter,) = group['params']
        assert group['weight_decay'] == (0.0 if parameter.ndim == 1 else 0.01)
