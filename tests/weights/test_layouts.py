"""Weights of every source give ours the outputs that the source computes, and go back unchanged."""

import peers
import pytest
import torch
from conftest import nightly_but
from mmengine.registry import DefaultScope
from timm.models.metaformer import checkpoint_filter_fn
from timm_peer import FAMILIES, TIMM_MODELS, build, is_small, load_from_timm, randomise, relative_error

from mmmeta.models import CAFormer, PoolFormer, RandFormer
from mmmeta.utils.errors import UsageError
from mmmeta.weights import convert_to_layout, translate

MLP, LINEAR = dict(type='mmmeta.MetaFormerMlpHead'), dict(type='mmmeta.MetaFormerLinearHead')


@pytest.fixture(scope='module')
def caformer():
    """timm's CAFormer-S18 with weights that matter."""
    peer = peers.timm_model('caformer_s18')
    randomise(peer)
    return peer


@pytest.fixture(scope='module')
def poolformer():
    """timm's PoolFormer-S12 with weights that matter."""
    peer = peers.timm_model('poolformer_s12')
    randomise(peer)
    return peer


@pytest.mark.parametrize('name', nightly_but(TIMM_MODELS, is_small))
def test_classifiers_of_timm_there_and_back(name):
    peer = peers.timm_model(name)
    randomise(peer)
    family, size = name.split('_')
    model = peers.classifier(
        FAMILIES[family],
        size,
        LINEAR if family.startswith('pool') else MLP,
    )
    state_dict, layout = translate(peer.state_dict(), name)
    assert layout == 'timm'
    # timm normalises PoolFormer's average, where its authors and we average the normalised map.
    own = {k.replace('backbone.norms.3', 'head.norm'): v for k, v in state_dict.items()}
    model.load_state_dict(own)
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        assert relative_error(model(image), peer(image)) < 1e-4

    back, expected = convert_to_layout(state_dict, 'timm'), peer.state_dict()
    assert back.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(back[key], tensor)


@pytest.mark.parametrize('name', ['convformer_s18', 'poolformerv2_s12'])
def test_layout_of_sail_metaformer(name):
    peer = peers.timm_model(name)
    randomise(peer)
    theirs = peers.sail_metaformer(peer.state_dict())
    # timm reads the hand-made dictionary as it does the authors' files.
    timms = checkpoint_filter_fn(theirs, peer)
    assert all(torch.equal(timms[key], tensor) for key, tensor in peer.state_dict().items())

    state_dict, layout = translate(theirs, name)
    assert layout == 'sail-sg/metaformer'
    expected, _ = translate(peer.state_dict(), name)
    assert state_dict.keys() == expected.keys()
    assert all(torch.equal(state_dict[key], tensor) for key, tensor in expected.items())
    back = convert_to_layout(state_dict, layout)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in theirs.items())


def test_layout_of_sail_poolformer_and_transformers(poolformer):
    theirs = peers.sail_poolformer(poolformer.state_dict())
    timms = checkpoint_filter_fn(theirs, poolformer)
    assert all(torch.equal(timms[key], tensor) for key, tensor in poolformer.state_dict().items())
    expected, _ = translate(poolformer.state_dict(), 'timm')
    for made, name in (
        (theirs, 'sail-sg/poolformer'),
        (peers.transformers(poolformer.state_dict()), 'transformers'),
    ):
        state_dict, layout = translate(made, 'made')
        assert layout == name
        assert state_dict.keys() == expected.keys()
        assert all(torch.equal(state_dict[key], tensor) for key, tensor in expected.items())
        back = convert_to_layout(state_dict, layout)
        assert back.keys() == made.keys()
        assert all(torch.equal(back[key], tensor) for key, tensor in made.items())


@pytest.mark.parametrize('size', ['s12', 'm36'])
def test_poolformer_of_mmpretrain(size):
    from mmpretrain.models.backbones import PoolFormer as Peer

    multi_scale = Peer(size, out_indices=[0, 2, 4, 6])
    multi_scale.eval()  # which returns None
    randomise(multi_scale)
    model = PoolFormer(size).eval()
    model.load_state_dict(multi_scale.state_dict())  # names of any layout, all of them
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        for out, expected in zip(model(image), multi_scale(image), strict=True):
            assert relative_error(out, expected) < 1e-4
    back = convert_to_layout({f'backbone.{k}': v for k, v in model.state_dict().items()}, 'mmpretrain')
    assert back.keys() == multi_scale.state_dict().keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in multi_scale.state_dict().items())


def test_poolformer_classifier_of_mmpretrain_gives_its_logits():
    from mmpretrain.registry import MODELS

    model = peers.classifier('PoolFormer', 's12', dict(type='mmpretrain.LinearClsHead'), raw=False)
    cfg = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='mmpretrain.PoolFormer', arch='s12'),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=1000, in_channels=512),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        peer = MODELS.build(cfg).eval()
    randomise(peer)
    model.load_state_dict(peer.state_dict())
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = peer(image, mode='tensor')
        assert relative_error(model(image, mode='tensor')[0], expected[0]) < 1e-4
        logits, theirs = model.head(model.extract_feat(image)), peer.head(peer.extract_feat(image))
        assert relative_error(logits, theirs) < 1e-4


def test_randformer_with_its_frozen_matrices():
    """timm has no RandFormer: its names in the authors' layout, made by hand from those of PoolFormerV2."""
    model = RandFormer('s12').eval()
    randomise(model)
    state_dict = {f'backbone.{name}': tensor for name, tensor in model.state_dict().items()}
    theirs = convert_to_layout(
        {k: v for k, v in state_dict.items() if 'norms' not in k}, 'sail-sg/metaformer'
    )
    names = set(peers.sail_metaformer(peers.timm_model('poolformerv2_s12').state_dict()))
    matrices = {f'stages.{i}.{j}.token_mixer.random_matrix' for i, n in ((2, 6), (3, 2)) for j in range(n)}
    assert set(theirs) == {name for name in names if not name.startswith(('norm.', 'head.'))} | matrices
    other = RandFormer('s12')
    other.load_state_dict(theirs, strict=False)
    own = {name: tensor for name, tensor in model.state_dict().items() if 'norms' not in name}
    assert all(torch.equal(other.state_dict()[name], tensor) for name, tensor in own.items())


@pytest.mark.parametrize(
    'wrap',
    [
        lambda s: s,
        lambda s: {'state_dict': s, 'epoch': 300},
        lambda s: {'model': s},
        lambda s: {'state_dict': {k: torch.zeros_like(v) for k, v in s.items()}, 'state_dict_ema': s},
        lambda s: {'state_dict': {f'module.{k}': v for k, v in s.items()}},
        lambda s: {'state_dict': {f'backbone.{k}': v for k, v in s.items() if not k.startswith('head.')}},
        lambda s: {f'backbone.{k}': v for k, v in s.items()},
        lambda s: {f'_orig_mod.{k}': v for k, v in s.items()},
        lambda s: {f'module.backbone.{k}': v for k, v in s.items() if not k.startswith('head.')},
    ],
)
def test_wrappings(wrap, caformer, tmp_path):
    torch.save(wrap(caformer.state_dict()), tmp_path / 'weights.pth')
    reference, model = (
        build('caformer_s18').eval(),
        CAFormer(
            's18',
            output_norm=False,
            init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')),
        ).eval(),
    )
    load_from_timm(reference, caformer)
    model.init_weights()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for out, expected in zip(model(image), reference(image), strict=True):
            assert torch.equal(out, expected)


def test_a_whole_model_in_mmpretrains_layout_is_read_back(poolformer):
    state_dict, _ = translate(peers.sail_poolformer(poolformer.state_dict()), 'peer')
    written = convert_to_layout({**state_dict, 'neck.x': torch.zeros(1)}, 'mmpretrain')
    assert 'backbone.network.0.0.mlp.fc1.weight' in written
    back, layout = translate(written, 'written')
    assert layout == 'mmpretrain'
    assert back.keys() == {*state_dict, 'neck.x'} - {'backbone.norms.3.weight', 'backbone.norms.3.bias'} | {
        name for name in state_dict if name.startswith('backbone.norms')
    }


def test_unknown_layouts():
    with pytest.raises(
        UsageError, match="'x.pth' holds no MetaFormer, its tensors are called conv1.weight, bn1"
    ):
        translate({'conv1.weight': torch.zeros(1), 'bn1.weight': torch.zeros(1)}, 'x.pth')
    with pytest.raises(UsageError, match="unknown layout 'keras': choose one of mmmeta, timm, "):
        convert_to_layout({}, 'keras')
    stems = dict(kernel_sizes=(3, 3), strides=(2, 2), paddings=(1, 1), dims=(32,))
    state_dict = {f'backbone.{k}': v for k, v in CAFormer(dict(base='s18', stem=stems)).state_dict().items()}
    with pytest.raises(UsageError, match=r'the layout of timm has no name for backbone.stem.1.conv.weight'):
        convert_to_layout(state_dict, 'timm')


def test_a_backbone_for_dense_prediction_leaves_its_output_norms_behind(caformer):
    state_dict = {f'backbone.{k}': v for k, v in CAFormer('s18').state_dict().items()}
    names = {name for name in caformer.state_dict() if not name.startswith('head.')}
    assert set(convert_to_layout(state_dict, 'timm')) == names
