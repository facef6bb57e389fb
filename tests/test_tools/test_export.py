"""ONNX files through the command line."""

import sys

import pytest
import torch
from conftest import Tools

from mmmeta.apis.export import build_exportable, compare_with_onnx, export_onnx
from mmmeta.errors import UsageError

pytest.importorskip('onnxscript', reason='export to ONNX needs onnxscript')
pytest.importorskip('onnxruntime', reason='the exported file is run with ONNX Runtime')
TINY = 'depths=(1,1,1,1),dims=(32,32,64,64)'


def export(*arguments):
    return Tools.finish(sys.executable, 'tools/deployment/export_onnx.py', *arguments)


def test_a_backbone_with_weights_at_any_size(tmp_path):
    model = f'caformer_s18,window=3,{TINY}'
    weights, path = tmp_path / 'weights.pth', tmp_path / 'model.onnx'
    backbone = build_exportable(model)
    torch.save(backbone.state_dict(), weights)
    result = export(model, path, '--checkpoint', weights, '--shape', 96, 128, '--dynamic', 'all')
    assert result.returncode == 0, result.stderr
    assert '3 x 96x128: ONNX Runtime differs by' in result.stdout
    assert '1 x 128x224: ONNX Runtime differs by' in result.stdout
    assert compare_with_onnx(backbone, path, torch.randn(1, 3, 160, 96)) < 1e-3
    assert sorted(p.name for p in tmp_path.iterdir()) == ['model.onnx', 'weights.pth']


def test_a_segmentor_for_any_batch(tmp_path):
    pytest.importorskip('mmseg', reason='a segmentor is exported')
    model = build_exportable('tests/data/tiny_upernet.py')
    export_onnx(model, tmp_path / 'model.onnx', (64, 64))
    assert compare_with_onnx(model, tmp_path / 'model.onnx', torch.randn(3, 3, 64, 64)) < 1e-3


class Unexportable(torch.nn.Module):
    def forward(self, image):
        return image * 2 if image.sum() > 0 else image


def test_what_cannot_be_exported(tmp_path):
    pytest.importorskip('mmdet', reason='a detector is refused')
    with pytest.raises(UsageError, match=r"'tests/data/tiny_mask_rcnn.py' is no segmentor"):
        build_exportable('tests/data/tiny_mask_rcnn.py')
    with pytest.raises(UsageError, match="cannot be exported with dynamic='all': .* choose none or batch"):
        export_onnx(Unexportable(), tmp_path / 'model.onnx', (64, 64), dynamic='all')
    assert not list(tmp_path.iterdir())
