"""MetaFormer as a dense backbone: outputs, freezing, checkpointing, depth, refusals."""

import copy
import gc
from typing import ClassVar

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timm_peer import ALL_MODELS, build, randomise
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmmeta.analysis.benchmark import bytes_kept
from mmmeta.analysis.paper_tables import load_paper_table
from mmmeta.models import CAFormer, ConvFormer, MetaFormer, PoolFormer, RandFormer
from mmmeta.models.layers import DropPath
from mmmeta.registry import MODELS
from mmmeta.utils.errors import UsageError

TINY = dict(depths=(1, 1, 1, 1), dims=(32, 32, 64, 64))


def classifier_parameters(name: str, dim: int, num_classes: int = 1000) -> int:
    """Norm and classifier behind the backbone, as the papers build them."""
    if name.startswith(('convformer', 'caformer')):
        hidden = 4 * dim
        return 2 * dim + (dim * hidden + hidden) + 2 * hidden + (hidden * num_classes + num_classes)
    return 2 * dim + dim * num_classes + num_classes


@pytest.mark.parametrize('name', ALL_MODELS)
def test_parameters_with_the_classifier_match_the_paper(name):
    (row,) = [row for row in load_paper_table('imagenet') if row['model'] == name]
    with torch.device('meta'):
        model = build(name)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    digits = len(row['params_m'].partition('.')[2])
    total = (trained + classifier_parameters(name, model.dims[-1])) / 1e6
    assert f'{total:.{digits}f}' == row['params_m']
    assert f'{frozen / 1e6:.1f}' == (row['frozen_params_m'] or '0.0')


class _Allocations(TorchDispatchMode):
    """Every storage that operations return, and its size."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, torch.Tensor):
                storage = result.untyped_storage()
                self.storages[storage.data_ptr()] = storage.nbytes()
        return results


@pytest.mark.parametrize('name', ['poolformer_s12', 'convformer_s18', 'caformer_s18'])
def test_building_allocates_each_parameter_once(name):
    with _Allocations() as log:
        model = build(name)
    assert sum(log.storages.values()) <= 1.001 * sum(p.nbytes for p in model.parameters())


@pytest.mark.parametrize('family', [PoolFormer, RandFormer, ConvFormer, CAFormer])
@pytest.mark.parametrize('size', [(32, 32), (33, 47), (250, 187)])
def test_outputs_have_strides_4_8_16_32_at_any_size(family, size):
    model = family(dict(base=next(iter(family.arch_table)), depths=(1, 1, 1, 1)))
    outs = model(torch.randn(2, 3, *size))
    assert len(outs) == 4
    for out, dim, stride in zip(outs, model.dims, (4, 8, 16, 32), strict=True):
        # Both the 7x7 stem (padding 2) and the 3x3 downsampling (padding 1) are strided convolutions.
        expected = [(n + 2 * 2 - 7) // 4 + 1 for n in size]
        for _ in range({4: 0, 8: 1, 16: 2, 32: 3}[stride]):
            expected = [(n + 2 - 3) // 2 + 1 for n in expected]
        assert out.shape == (2, dim, *expected)
        assert torch.isfinite(out).all()


def test_only_asked_for_outputs_have_norms_and_later_stages_are_not_built():
    model = CAFormer('s18', out_indices=(1, 2))
    assert [name for name, _ in model.named_parameters() if name.startswith('norms.')] == [
        'norms.1.weight',
        'norms.1.bias',
        'norms.2.weight',
        'norms.2.bias',
    ]
    assert not any(name.startswith('stages.3.') for name, _ in model.named_parameters())
    outs = model(torch.randn(1, 3, 64, 64))
    assert [tuple(out.shape) for out in outs] == [(1, 128, 8, 8), (1, 320, 4, 4)]


def test_every_parameter_of_a_partial_backbone_gets_a_gradient():
    model = CAFormer(TINY, out_indices=(2,))
    sum(out.square().sum() for out in model(torch.randn(1, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_an_output_norm_normalises_the_stage():
    model = ConvFormer(TINY).eval()
    raw = ConvFormer(TINY, output_norm=False).eval()
    raw.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith('norms.')})
    x = torch.randn(1, 3, 64, 64)
    for out, feature, dim in zip(model(x), raw(x), model.dims, strict=True):
        expected = nn.functional.layer_norm(feature.permute(0, 2, 3, 1), (dim,), eps=1e-6)
        assert torch.allclose(out, expected.permute(0, 3, 1, 2), atol=1e-5)


@pytest.mark.parametrize('in_channels', [1, 4])
def test_images_of_any_number_of_channels(in_channels):
    model = CAFormer(TINY, in_channels=in_channels)
    assert model(torch.randn(1, in_channels, 32, 32))[0].shape == (1, 32, 8, 8)


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 3, 4])
def test_frozen_stages_stops_exactly_these_parameters(frozen_stages):
    model = CAFormer(TINY, frozen_stages=frozen_stages, drop_path_rate=0.5)
    assert model.train() is model
    stopped = {name for name, p in model.named_parameters() if not p.requires_grad}
    prefixes = () if frozen_stages < 0 else ('stem.', *(f'stages.{i}.' for i in range(frozen_stages)))
    assert stopped == {name for name, _ in model.named_parameters() if name.startswith(prefixes or ('none',))}
    in_eval = {name for name, m in model.named_modules() if not m.training}
    assert all(f'{name}.'.startswith(prefixes) for name in in_eval)
    if frozen_stages >= 1:
        assert not model.stages[0].blocks[0].drop_path.training
    if frozen_stages < 4:
        assert model.stages[3].blocks[0].drop_path.training
    assert all(p.requires_grad for p in model.norms.parameters())
    assert model.eval() is model
    assert not model.training


def test_norm_eval_holds_batch_norms_and_only_them():
    arch = dict(base='s12', depths=(1, 1, 1, 1), norm='BN')
    model = PoolFormer(arch, norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 8 and not any(m.training for m in norms)
    assert model.training
    before = [m.running_mean.clone() for m in norms]
    model(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(m.running_mean, mean) for m, mean in zip(norms, before, strict=True))
    with pytest.raises(UsageError, match='norm_eval=True has no meaning here'):
        PoolFormer('s12', norm_eval=True)


@pytest.mark.parametrize('arch', [dict(TINY), dict(TINY, norm='BN')])
def test_with_cp_gives_identical_gradients_and_statistics(arch):
    plain = CAFormer(arch, drop_path_rate=0.5).train()
    recomputing = CAFormer(arch, drop_path_rate=0.5, with_cp=True).train()
    recomputing.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 64, 64)
    gradients = []
    for model in (plain, recomputing):
        torch.manual_seed(0)  # the same stochastic depth
        sum(out.square().mean() for out in model(x)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
    for (name, expected), (_, buffer) in zip(plain.named_buffers(), recomputing.named_buffers(), strict=True):
        assert torch.equal(expected, buffer), name


def test_with_cp_keeps_less_for_backward():
    plain, recomputing = (
        bytes_kept(CAFormer('s18', with_cp=with_cp), torch.randn(1, 3, 128, 128)) for with_cp in (False, True)
    )
    assert recomputing < 0.5 * plain


def _train_step_under_ddp(rank, store, path):
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    torch.manual_seed(0)
    model = CAFormer(TINY, with_cp=True)
    randomise(model)
    wrapped = nn.parallel.DistributedDataParallel(model)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    sum(out.square().mean() for out in wrapped(images[rank : rank + 1])).backward()
    if rank == 0:
        torch.save({name: p.grad for name, p in model.named_parameters()}, path)
    # The last one to hold the group must not be the wrapper, which waits for Gloo's threads, and they for it.
    del wrapped
    gc.collect()
    dist.destroy_process_group()


def test_with_cp_under_ddp_equals_one_process(tmp_path):
    path = tmp_path / 'gradients.pth'
    mp.spawn(_train_step_under_ddp, args=(tmp_path / 'store', path), nprocs=2)
    model = CAFormer(TINY)
    randomise(model)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    sum(out.square().mean() for out in model(images)).backward()
    gradients = torch.load(path, weights_only=True)
    largest = max(parameter.grad.abs().max() for parameter in model.parameters())
    for name, parameter in model.named_parameters():
        scale = max(parameter.grad.abs().max(), largest / 100)
        assert (gradients[name] - parameter.grad).abs().max() / scale < 1e-4, name


def test_drop_path_grows_linearly_over_the_blocks():
    model = CAFormer('s18', drop_path_rate=0.17)
    rates = [m.drop_prob for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.17 * i / 17 for i in range(18)])


def test_weights_are_initialised_as_in_the_papers():
    model = ConvFormer('s18')
    model.init_weights()
    weight = model.stages[2].blocks[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not model.stem[0].conv.bias.any()
    assert model.stages[2].blocks[0].res_scale1.eq(1).all()
    layer_scale = PoolFormer('s36').stages[0].blocks[0].layer_scale1
    assert torch.allclose(layer_scale, torch.tensor(1e-6))
    initial = {name: PoolFormer.resolve_arch(name)['layer_scale_init'] for name in PoolFormer.arch_table}
    assert initial == {
        name: (1e-5 if name in ('s12', 's24') else 1e-6,) * 4 for name in ('s12', 's24', 's36', 'm36', 'm48')
    }


def test_a_copied_model_is_independent():
    model = CAFormer(dict(TINY, norm='BN'), with_cp=True)
    twin = copy.deepcopy(model).train()
    sum(out.sum() for out in twin(torch.randn(2, 3, 32, 32))).backward()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet', 'mmpretrain'])
def test_registered_in_scope_mmmeta_for_every_package(scope):
    package = pytest.importorskip(f'{scope}.registry', reason=f'{scope} is not installed')
    backbone = package.MODELS.build(dict(type='mmmeta.CAFormer', arch=TINY, out_indices=(1, 3)))
    assert type(backbone) is CAFormer
    assert len(backbone(torch.randn(1, 3, 32, 32))) == 2


class TestLayerDepth:
    def test_counts_the_stem_then_blocks_then_the_rest(self):
        model = CAFormer('s18')
        depth = model.get_layer_depth
        assert depth('stem.0.conv.weight') == (0, 20)
        assert depth('stages.0.blocks.0.norm1.weight') == (1, 20)
        assert depth('stages.1.downsample.conv.weight') == (4, 20)
        assert depth('stages.1.blocks.0.mlp.fc1.weight') == (4, 20)
        assert depth('stages.3.blocks.2.res_scale1') == (18, 20)
        assert depth('norms.0.weight') == (19, 20)
        assert depth('backbone.stages.2.blocks.8.norm2.weight', 'backbone.') == (15, 20)
        assert depth('decode_head.conv_seg.weight', 'backbone.') == (19, 20)

    def test_every_parameter_has_a_depth_and_every_depth_parameters(self):
        model = ConvFormer('s36')
        depths = {model.get_layer_depth(name)[0] for name, _ in model.named_parameters()}
        assert depths == set(range(38))


@MODELS.register_module()
class ShiftMixer(nn.Module):
    """A token mixer of a user: shift the map by some columns."""

    def __init__(self, dim, columns=1):
        super().__init__()
        self.columns = columns

    def forward(self, x):
        return x.roll(self.columns, dims=3)


def test_a_registered_token_mixer_can_be_named():
    for mixer in ('ShiftMixer', 'mmmeta.ShiftMixer', dict(type='ShiftMixer', columns=2)):
        model = MetaFormer(dict(TINY, token_mixers=('sep_conv', 'sep_conv', mixer, 'attention')))
        assert type(model.stages[2].blocks[0].token_mixer) is ShiftMixer
        assert model(torch.randn(1, 3, 64, 64))[2].shape == (1, 64, 4, 4)
    assert model.stages[2].blocks[0].token_mixer.columns == 2


class TestRefusals:
    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            (
                dict(arch='s17'),
                "unknown arch 's17' of CAFormer: choose one of s18, s36, m36, b36, or give a dict",
            ),
            (
                dict(arch='s18', out_indices=(0, 4)),
                r'out_indices=\(0, 4\): choose from the stages \(0, 1, 2, 3\)',
            ),
            (dict(arch='s18', out_indices=(-1,)), r'out_indices=\(-1,\): choose from the stages'),
            (dict(arch='s18', out_indices=(2, 1)), 'each at most once, in ascending order'),
            (dict(arch='s18', out_indices=()), 'choose from the stages'),
            (dict(arch='s18', out_indices=3), 'out_indices=3: choose from the stages'),
            (dict(arch='s18', frozen_stages=5), r'frozen_stages=5: choose -1 \(nothing\), 0 \(the stem\)'),
            (dict(arch='s18', drop_path_rate=1.0), r'drop_path_rate=1.0: choose a probability in \[0, 1\)'),
            (dict(arch=dict(depths=(1, 1))), 'the arch of CAFormer lacks dims: give them, or a base'),
            (
                dict(arch=dict(base='s18', depth=(1,))),
                'unknown key depth in the arch of CAFormer: choose from',
            ),
            (
                dict(arch=dict(depths=(1, 0), dims=(8, 8))),
                r'arch depths=\(1, 0\): give a sequence of positive',
            ),
            (dict(arch=dict(base='s18', depths=(1, 1))), 'arch dims=.* has 4 entries for 2 stages'),
            (dict(arch=dict(base='s18', act='Relu6')), "unknown act 'Relu6': choose one of StarReLU"),
            (dict(arch=dict(base='s18', norm='IN')), "unknown norm 'IN': choose one of LN, GN1, BN"),
            (dict(arch=dict(base='s18', norm=None)), 'arch norm=None: give LN, GN1, BN, or a dict'),
            (
                dict(arch=dict(base='s18', token_mixers='conv')),
                "unknown token mixer 'conv': choose one of identity, pooling, random_mixing",
            ),
            (
                dict(arch=dict(base='s18', stem=dict(strides=(2, 2)))),
                'give kernel_sizes, strides and paddings of the same length',
            ),
        ],
    )
    def test_a_wrong_value_names_the_allowed_ones(self, arguments, message):
        with pytest.raises(UsageError, match=message):
            CAFormer(**arguments)

    def test_an_output_norm_that_is_none(self):
        with pytest.raises(UsageError, match='output_norm=1: give True, False, or a norm as in arch'):
            CAFormer('s18', output_norm=1)

    def test_settings_of_a_subclass_are_checked_as_well(self):
        class Old(CAFormer):
            arch_settings: ClassVar[dict] = dict(CAFormer.arch_settings, output_norm='GN1')

        with pytest.raises(
            UsageError, match='unknown key output_norm in the arch of Old: .*; output_norm is an'
        ):
            Old('s18')

    def test_metaformer_itself_has_no_named_archs(self):
        with pytest.raises(UsageError, match="unknown arch 's18' of MetaFormer: give a dict"):
            MetaFormer('s18')

    def test_a_misspelt_argument_is_a_type_error(self):
        with pytest.raises(TypeError, match="unexpected keyword argument 'drop_path'"):
            CAFormer('s18', drop_path=0.1)

    @pytest.mark.parametrize('size', [(31, 64), (64, 16)])
    def test_an_image_smaller_than_the_stride(self, size):
        message = f'an image of {size[0]}x{size[1]} pixels is smaller than the stride 32 of CAFormer'
        with pytest.raises(UsageError, match=message):
            CAFormer(TINY)(torch.randn(1, 3, *size))
