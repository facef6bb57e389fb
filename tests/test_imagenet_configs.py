"""The configs of the classifiers: models and recipes are those of the papers' tables."""

import pytest
import torch
from conftest import ROOT

from mmmeta.analysis.paper_tables import load_paper_table
from mmmeta.config.adaptation import adapt_to_device
from mmmeta.config.loading import load_config
from mmmeta.weights import ZOO, get_weights

pytest.importorskip('mmpretrain', reason='the configs of the classifiers inherit from MMPretrain')
CONFIGS = sorted(path.stem for path in ROOT.glob('configs/imagenet/*.py'))
ROWS = {row['model']: row for row in load_paper_table('imagenet')}
TWO, SIZES = ('convformer', 'caformer'), ('s18', 's36', 'm36', 'b36')
# arXiv:2210.13452, Tables XIV and XV: stochastic depth and dropout of the head for S18, S36, M36, B36.
DEPTH_AND_DROPOUT = {
    ('convformer', 'in1k'): ((0.2, 0.3, 0.4, 0.6), (0, 0, 0, 0)),
    ('convformer', '384_in1k'): ((0.3, 0.5, 0.8, 0.8), (0.4, 0.4, 0.5, 0.5)),
    ('convformer', 'in21k'): ((0, 0, 0.1, 0.2), (0.2, 0.2, 0.2, 0.3)),
    ('convformer', 'in21ft1k'): ((0.1, 0.1, 0.1, 0.3), (0.2, 0.2, 0.2, 0.5)),
    ('caformer', 'in1k'): ((0.15, 0.3, 0.4, 0.6), (0, 0.4, 0.4, 0.5)),
    ('caformer', '384_in1k'): ((0.3, 0.5, 0.7, 0.8), (0.4, 0.4, 0.4, 0.5)),
    ('caformer', 'in21k'): ((0.1, 0.1, 0.1, 0.3), (0.2, 0.2, 0.2, 0.4)),
    ('caformer', 'in21ft1k'): ((0.1, 0.1, 0.1, 0.3), (0.2, 0.2, 0.2, 0.5)),
}
# Epochs, warm-up, batch, optimiser and learning rate.
SCHEDULES = {
    ('convformer', 'in1k'): (300, 20, 4096, 'AdamW', 4e-3),
    ('convformer', '384_in1k'): (30, None, 1024, 'AdamW', 5e-5),
    ('convformer', 'in21k'): (90, 5, 4096, 'AdamW', 1e-3),
    ('convformer', 'in21ft1k'): (30, None, 1024, 'AdamW', 5e-5),
    ('caformer', 'in1k'): (300, 20, 4096, 'Lamb', 8e-3),
    ('caformer', '384_in1k'): (30, None, 1024, 'Lamb', 1e-4),
    ('caformer', 'in21k'): (90, 5, 4096, 'Lamb', 2e-3),
    ('caformer', 'in21ft1k'): (30, None, 1024, 'Lamb', 1e-4),
}
TABLE_XIII = (300, 5, 4096, 'AdamW', 4e-3)


def build(cfg):
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


def test_every_model_and_training_has_a_config():
    names = {f'{model}_in1k' for model in ROWS}
    trainings = ('384_in1k', 'in21k', 'in21ft1k', '384_in21ft1k')
    names |= {f'{family}_{size}_{training}' for family in TWO for size in SIZES for training in trainings}
    assert set(CONFIGS) == names
    assert len(names) == 60


@pytest.mark.parametrize('name', CONFIGS)
def test_recipe(name):
    cfg = load_config(f'configs/imagenet/{name}.py')
    family, size, training = name.split('_', 2)
    key = (family, training.replace('384_in21ft1k', 'in21ft1k'))
    epochs, warm_up, batch, optimiser, rate = SCHEDULES.get(key, TABLE_XIII)
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.auto_scale_lr.base_batch_size == batch
    assert cfg.optim_wrapper.optimizer.type == optimiser
    assert cfg.optim_wrapper.optimizer.lr == rate
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
    fine_tuned = warm_up is None
    ends = [] if fine_tuned else [(0, warm_up), (warm_up, epochs)]
    assert [(step.begin, step.end) for step in cfg.param_scheduler] == ends
    assert [augment.alpha for augment in cfg.model.train_cfg.get('augments', [])] == (
        [] if fine_tuned else [0.8, 1.0]
    )
    averaged = [hook.momentum for hook in cfg.get('custom_hooks', []) if hook.type == 'EMAHook']
    assert averaged == ([1e-4] if fine_tuned else [])
    if family in TWO:
        depth, dropout = (values[SIZES.index(size)] for values in DEPTH_AND_DROPOUT[key])
        assert cfg.model.head.dropout == dropout
    else:
        depth = dict(s12=0.1, s24=0.1, s36=0.2, m36=0.3, m48=0.3 if family == 'randformer' else 0.4)[size]
    assert cfg.model.backbone.drop_path_rate == depth
    assert cfg.model.head.loss.label_smooth_val == 0.1
    steps = {step['type']: step for step in cfg.train_dataloader.dataset.pipeline}
    assert (steps['RandAugment'].magnitude_level, steps['RandAugment'].magnitude_std) == (9, 0.5)
    assert steps['RandomErasing'].erase_prob == 0.25
    side = 384 if '384' in name else 224
    assert steps['RandomResizedCrop'].scale == side
    if fine_tuned:
        start = name.removesuffix('_384_in1k') if training == '384_in1k' else f'{family}_{size}_in21k'
        assert cfg.load_from == f'mmmeta://{start}'
        assert start in ZOO
    if training == 'in21k':
        assert cfg.test_dataloader is None
        assert cfg.data_preprocessor.num_classes == cfg.model.head.num_classes == 21841
        return
    weights = get_weights(f'{family}_{size}{training[:4] if "384" in name else ""}'.replace('384_', '_384'))
    resize, crop = cfg.test_dataloader.dataset.pipeline[1:3]
    assert (resize.interpolation, crop.crop_size) == ('bicubic', side)
    assert resize.scale == int(side / weights.crop_ratio)
    assert cfg.data_preprocessor.num_classes == cfg.model.head.num_classes == 1000


@pytest.mark.parametrize('model', ROWS)
def test_parameters_are_those_of_the_paper(model):
    cfg = load_config(f'configs/imagenet/{model}_in1k.py')
    with torch.device('meta'):
        classifier = build(cfg)
    # RandFormer's frozen matrices are not counted.
    millions = sum(p.numel() for p in classifier.parameters() if p.requires_grad) / 1e6
    printed = str(ROWS[model]['params_m'])
    assert f'{millions:.{len(printed.partition(".")[2])}f}' == printed


@pytest.mark.parametrize(
    'name',
    [
        'identityformer_s12_in1k',
        'randformer_s12_in1k',
        'poolformerv2_s12_in1k',
        'poolformer_s12_in1k',
        'convformer_s18_in1k',
        'caformer_s18_384_in1k',
        'convformer_s18_in21k',
    ],
)
def test_it_learns_from_its_own_pipeline(name, imagenet_root):
    from mmengine.runner import Runner

    cfg = load_config(f'configs/imagenet/{name}.py')
    adapt_to_device(cfg)
    model = build(dict_with_preprocessor(cfg))
    loader = cfg.train_dataloader.to_dict()
    loader['dataset'] = dict(
        type='CustomDataset',
        data_root=str(imagenet_root),
        data_prefix='train',
        pipeline=loader['dataset']['pipeline'],
    )
    loader.update(num_workers=0, persistent_workers=False, batch_size=2)
    batch = next(iter(Runner.build_dataloader(loader, seed=0)))
    model.init_weights()
    model.train()
    data = model.data_preprocessor(batch, training=True)
    side = 384 if '384' in name else 224
    assert data['inputs'].shape == (2, 3, side, side)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert all(n.endswith('random_matrix') for n in without)
    with torch.no_grad():
        scores = model.eval()(data['inputs'][:1], mode='predict')[0].pred_score
    assert scores.shape == (21841 if 'in21k' in name else 1000,)


def dict_with_preprocessor(cfg):
    """The config with its data preprocessor inside of the model, where the runner puts it."""
    cfg.model.data_preprocessor = cfg.data_preprocessor
    return cfg
