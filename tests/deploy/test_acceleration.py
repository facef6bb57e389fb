"""Models accelerated for a CPU compute the same, and only what is known is replaced."""

import copy
import pickle

import pytest
import torch
from conftest import ROOT
from timm_peer import randomise
from torch import nn

from mmmeta import models
from mmmeta.apis.config import load_config
from mmmeta.deploy import accelerate, acceleration, chunked_block
from mmmeta.errors import UsageError
from mmmeta.models import CAFormer, ConvFormer
from mmmeta.models.layers import MetaFormerBlock, SepConv

TINY = dict(depths=(2, 1, 2, 1), dims=(8, 16, 32, 64))


def tiny(family='ConvFormer', **arch):
    base = 's18' if family in ('CAFormer', 'ConvFormer') else 's12'
    model = getattr(models, family)(dict(TINY, base=base, **arch)).eval()
    randomise(model)
    return model


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('size', [(96, 64), (131, 85)])
@pytest.mark.parametrize('family', ['CAFormer', 'ConvFormer', 'PoolFormer', 'PoolFormerV2', 'RandFormer'])
def test_pieces_make_the_whole(family, size, dtype, monkeypatch):
    scales = {} if family == 'PoolFormer' else dict(layer_scale_init=(None, 0.5, 0.7, None))
    plain = tiny(family, **scales)
    fast = accelerate(copy.deepcopy(plain))
    image = torch.randn(2, 3, *size)
    original = image.clone()
    for limit in (1 << 10, 1 << 30):
        monkeypatch.setattr(chunked_block, 'CHUNK_BYTES', limit)
        with torch.no_grad(), torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            outs, expected = fast(image), plain(image)
        for out, reference in zip(outs, expected, strict=True):
            assert out.dtype == reference.dtype
            bound = 4 * torch.finfo(dtype).eps * (4 * 6) ** 0.5
            assert (out - reference).norm() <= bound * reference.norm()
    assert torch.equal(image, original)


def test_a_block_does_not_write_over_its_input():
    block = accelerate(MetaFormerBlock(8, SepConv(8), norm='LN').eval())
    x = torch.randn(1, 8, 40, 20).contiguous(memory_format=torch.channels_last)
    original = x.clone()
    with torch.no_grad():
        block(x)
    assert torch.equal(x, original)


@pytest.mark.parametrize('case', ['gradients', 'training', 'a hook', 'compiled'])
def test_where_it_does_not_apply_the_plain_model_runs(case, monkeypatch):
    monkeypatch.setattr(chunked_block, 'CHUNK_BYTES', 1 << 10)
    plain = tiny()
    fast = accelerate(copy.deepcopy(plain))
    image, shapes = torch.randn(1, 3, 96, 64), []
    for model in (plain, fast):
        model.train(case == 'training')
        if case == 'a hook':
            model.stages[0].blocks[1].mlp.fc1.register_forward_hook(
                lambda module, args, out: shapes.append(out.shape)
            )
    if case == 'compiled':
        plain, fast = (torch.compile(model, fullgraph=True, backend='eager') for model in (plain, fast))
    with torch.set_grad_enabled(case in ('gradients', 'training')):
        outs, expected = fast(image), plain(image)
    if case == 'a hook':
        assert shapes == [torch.Size([1, 32, 24, 16])] * 2
    for out, reference in zip(outs, expected, strict=True):
        assert case == 'a hook' or torch.equal(out, reference)


def test_what_is_replaced_is_printed_and_shown(capsys):
    model = tiny()
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    assert accelerate(model) is model
    assert capsys.readouterr().out == 'accelerate: 6 MetaFormerBlock -> ChunkedBlock\n'
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before
    assert 'ChunkedBlock' in str(model)
    assert 'MetaFormerBlock' not in str(model)
    accelerate(model)
    assert capsys.readouterr().out == 'accelerate: nothing left to replace\n'


def test_one_of_several_processes_prints(capsys, monkeypatch):
    monkeypatch.setattr(acceleration, 'is_main_process', lambda: False)
    assert 'ChunkedBlock' in str(accelerate(tiny()))
    assert capsys.readouterr().out == ''


def test_hooks_and_subclasses_are_left_alone(capsys):
    class Block(MetaFormerBlock):
        pass

    model = tiny()
    model.stages[0].blocks[0].mlp.act.register_forward_hook(lambda *_: None)
    model.stages[2].blocks[1].__class__ = Block
    accelerate(model)
    assert capsys.readouterr().out == (
        'accelerate: 4 MetaFormerBlock -> ChunkedBlock\n'
        'accelerate: kept because of their hooks: 1 MetaFormerBlock\n'
    )
    assert type(model.stages[0].blocks[0]) is MetaFormerBlock
    assert type(model.stages[2].blocks[1]) is Block


def test_refusals():
    with pytest.raises(UsageError, match=r'takes a model in evaluation mode: call model\.eval\(\) first'):
        accelerate(tiny().train())
    model = ConvFormer(dict(TINY, base='s18')).eval().to('meta')
    with pytest.raises(UsageError, match='for inference on a CPU, and the model is on meta: leave it out'):
        accelerate(model)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies(copied):
    model = accelerate(tiny())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for out, expected in zip(copied(model)(image), model(image), strict=True):
            assert torch.equal(out, expected)


def test_a_stochastic_depth_that_was_left_on():
    model = CAFormer(dict(TINY, base='s18'), drop_path_rate=0.5).eval()
    accelerate(model).train()
    image = torch.randn(4, 3, 64, 64)
    torch.manual_seed(0)
    expected = model(image)
    torch.manual_seed(0)
    with torch.no_grad():
        outs = model(image)
    assert all(torch.equal(out, other) for out, other in zip(outs, expected, strict=True))


class TestUPerHead:
    MAPS = tuple(
        torch.randn(2, c, -(-60 // s), -(-84 // s)) for c, s in ((8, 4), (16, 8), (24, 16), (32, 32))
    )

    @staticmethod
    def build(**arguments):
        pytest.importorskip('mmseg', reason='the head is its own')
        from mmseg.models.decode_heads import UPerHead

        defaults = dict(
            norm_cfg=dict(type='BN'), in_channels=[8, 16, 24, 32], in_index=[0, 1, 2, 3], channels=12
        )
        head = UPerHead(num_classes=5, dropout_ratio=0.1, **defaults | arguments).eval()
        generator = torch.Generator().manual_seed(0)
        for tensor in head.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1 - (tensor.ndim > 1) * 0.6)
        return head

    @pytest.mark.parametrize(
        'arguments',
        [{}, dict(align_corners=True), dict(norm_cfg=None), dict(pool_scales=(1, 2)), dict(act_cfg=None)],
    )
    def test_the_same(self, arguments, capsys):
        plain = self.build(**arguments)
        fast = accelerate(copy.deepcopy(plain))
        assert '1 UPerHead -> MergedUPerHead' in capsys.readouterr().out
        with torch.no_grad():
            out, expected = fast(self.MAPS), plain(self.MAPS)
            assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()
            for head in (fast, plain):
                head.fpn_bottleneck.conv.weight.mul_(2)
            out, expected = fast(self.MAPS), plain(self.MAPS)
            assert (out - expected).abs().max() <= 1e-5 * expected.abs().max()

    @pytest.mark.parametrize('case', ['training', 'gradients', 'autocast', 'a hook'])
    def test_where_it_does_not_apply_it_is_mmsegmentations(self, case):
        plain = self.build()
        fast = accelerate(copy.deepcopy(plain))
        outs = []
        for head in (fast, plain):
            head.train(case == 'training')
            if case == 'a hook':
                head.fpn_bottleneck.conv.register_forward_hook(lambda module, args, out: -out)
            torch.manual_seed(0)
            with (
                torch.set_grad_enabled(case == 'gradients'),
                torch.autocast('cpu', enabled=case == 'autocast'),
            ):
                outs.append(head(self.MAPS))
        assert torch.equal(*outs)

    def test_another_order_of_layers_is_left_alone(self, capsys):
        head = self.build()
        head.fpn_bottleneck.order = ('norm', 'conv', 'act')
        accelerate(head)
        assert capsys.readouterr().out == 'accelerate: nothing left to replace\n'


class TestRoIAlign:
    MAP = torch.randn(2, 6, 32, 40)
    ROIS = torch.tensor(
        [[0, 10.0, 20.0, 70.0, 90.0], [1, 3.3, 5.7, 155.2, 119.9], [0, -30.0, -20.0, 15.0, 10.0]]
    )

    @staticmethod
    def build(**arguments):
        ops = pytest.importorskip('mmcv.ops', reason='this MMCV has no operators')
        return nn.Sequential(ops.RoIAlign(7, 1 / 4, 0, **arguments)).eval()

    @pytest.mark.parametrize('arguments', [{}, dict(pool_mode='max'), dict(aligned=False)])
    def test_the_same(self, arguments, capsys):
        (plain,), (fast,) = self.build(**arguments), accelerate(self.build(**arguments))
        assert ('1 RoIAlign -> ChannelsLastRoIAlign' in capsys.readouterr().out) is not bool(arguments)
        with torch.no_grad():
            out, expected = fast(self.MAP, self.ROIS), plain(self.MAP, self.ROIS)
        assert torch.allclose(out, expected, atol=1e-4)

    def test_with_gradients_it_is_mmcvs(self):
        grads = []
        for (layer,) in (self.build(), accelerate(self.build())):
            x = self.MAP.clone().requires_grad_()
            grads.append(torch.autograd.grad(layer(x, self.ROIS).square().sum(), x)[0])
        assert torch.equal(*grads)


def test_a_whole_detector(capsys):
    """Pyramid, proposals, boxes and masks of Mask R-CNN, plain and accelerated."""
    pytest.importorskip('mmdet', reason='the detector is one of MMDetection')
    from mmdet.structures import DetDataSample
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope('mmdet')
    cfg = load_config(str(ROOT / 'configs/mask_rcnn_poolformer_s12_coco.py')).model
    cfg.backbone.update(init_cfg=None, arch=dict(base='s12', depths=(1, 1, 1, 1)))
    torch.manual_seed(0)
    plain = MODELS.build(cfg).eval()
    fast = accelerate(copy.deepcopy(plain))
    replaced = '4 MetaFormerBlock -> ChunkedBlock', '8 RoIAlign -> ChannelsLastRoIAlign'
    printed = capsys.readouterr().out
    assert all(text in printed for text in replaced), printed
    size = (256, 320)
    image = torch.randn(1, 3, *size)
    boxes = torch.tensor([[10.0, 20.0, 70.0, 90.0], [0.0, 0.0, 320.0, 256.0], [100.0, 50.0, 300.0, 120.0]])
    rois = torch.cat([torch.zeros(3, 1), boxes], 1)
    results = []
    with torch.no_grad():
        for model in (fast, plain):
            maps = model.extract_feat(image)
            boxed, masked = model.roi_head._bbox_forward(maps, rois), model.roi_head._mask_forward(maps, rois)
            results.append(
                [
                    *maps,
                    *model.rpn_head(maps)[0],
                    boxed['cls_score'],
                    boxed['bbox_pred'],
                    masked['mask_preds'],
                ]
            )
        for out, expected in zip(*results, strict=True):
            assert (out - expected).abs().max() <= 1e-4 * expected.abs().max()
        meta = dict(
            img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1, 1)
        )
        assert len(fast(image, [DetDataSample(metainfo=meta)], mode='predict')) == 1
