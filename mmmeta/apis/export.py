"""Write networks as ONNX files, and compare them in ONNX Runtime with PyTorch."""

import contextlib
import io
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmmeta.engine.checkpoint import load_complete
from mmmeta.errors import UsageError
from mmmeta.weights import load_backbone

from .backbones import build_backbone
from .config import load_config

DYNAMIC = ('none', 'batch', 'all')


class _Logits(nn.Module):
    """The network of a segmentor, from images to the logits of each class."""

    def __init__(self, segmentor: nn.Module) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, image: Tensor) -> Tensor:
        return self.segmentor(image, mode='tensor')


def build_exportable(name: str, checkpoint: str | None = None) -> nn.Module:
    """Build a network for export.

    Args:
        name (str): A config of a segmentor, or a backbone as
            :func:`~mmmeta.apis.backbones.build_backbone` takes it, such as ``caformer_s18,window=13``.
        checkpoint (str | None): Weights: for a config a checkpoint of its model, for a backbone those that
            :meth:`~mmmeta.models.MetaFormer.init_weights` reads. Defaults to None: random weights.

    Returns:
        nn.Module: In eval mode; maps images to a tuple of features, or to logits.

    Raises:
        UsageError: The model is unknown or not a segmentor, or the weights do not match it.
    """
    if not name.endswith('.py'):
        backbone = build_backbone(name)
        if checkpoint:
            load_backbone(backbone, checkpoint, archs=backbone.named_archs())
        return backbone
    cfg = load_config(name)
    if cfg.get('default_scope') != 'mmseg':
        raise UsageError(
            f"'{name}' is no segmentor: backbones and segmentors are exported here, detectors and their "
            'post-processing by MMDeploy'
        )
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmseg'):
        segmentor = MODELS.build(cfg.model).eval()
    if checkpoint:
        load_complete(segmentor, checkpoint)
    return _Logits(segmentor)


def export_onnx(model: nn.Module, path: str | Path, shape: tuple[int, int], dynamic: str = 'batch') -> None:
    """Export a network as a single ONNX file, weights included.

    Args:
        model (nn.Module): From :func:`build_exportable`.
        path (str | Path): The file, written atomically.
        shape (tuple[int, int]): Height and width of the image that it is traced with.
        dynamic (str): ``'none'``, ``'batch'`` or ``'all'``: which of batch, height and width may vary when
            it runs. Defaults to ``'batch'``.

    Raises:
        UsageError: A package is missing, or the network cannot be exported for all sizes.
    """
    missing = [package for package in ('onnx', 'onnxscript') if find_spec(package) is None]
    if missing:
        raise UsageError(f'export needs {" and ".join(missing)}: pip install {" ".join(missing)}')
    axes = dict(none=(), batch=(0,), all=(0, 2, 3))[dynamic]
    image = torch.randn(2, 3, *shape)
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.TemporaryDirectory(dir=folder) as work:
        written = os.path.join(work, 'model.onnx')
        try:
            with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
                torch.onnx.export(
                    model,
                    (image,),
                    written,
                    dynamo=True,
                    external_data=False,
                    input_names=['image'],
                    dynamic_shapes=(dict.fromkeys(axes, torch.export.Dim.DYNAMIC),) if axes else None,
                )
        except torch.onnx.OnnxExporterError as error:
            narrower = ' or '.join(DYNAMIC[: DYNAMIC.index(dynamic)]) or 'another network'
            raise UsageError(
                f"this network cannot be exported with dynamic='{dynamic}': some of it depends on values or "
                f'sizes; choose {narrower}'
            ) from error
        os.replace(written, path)


def compare_with_onnx(model: nn.Module, path: str | Path, image: Tensor) -> float:
    """Compare what ONNX Runtime and PyTorch compute.

    Args:
        model (nn.Module): The network.
        path (str | Path): Its ONNX file.
        image (Tensor): Images, ``(B, 3, H, W)``.

    Returns:
        float: The largest difference over the largest magnitude, of all outputs.

    Raises:
        UsageError: ONNX Runtime is not installed.
    """
    if find_spec('onnxruntime') is None:
        raise UsageError('comparing needs ONNX Runtime: pip install onnxruntime')
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    with torch.no_grad():
        expected = model(image)
    expected = [expected] if isinstance(expected, Tensor) else expected
    outs = session.run(None, {'image': image.numpy()})
    return max(
        ((torch.from_numpy(out) - reference).abs().max() / reference.abs().max()).item()
        for out, reference in zip(outs, expected, strict=True)
    )
