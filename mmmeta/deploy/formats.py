"""Files of exported networks: ONNX, OpenVINO's and PyTorch's."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmmeta.errors import UsageError

from .suppression import OPERATOR

# Ending and packages of each format.
SUFFIXES = dict(onnx='.onnx', openvino='.xml', pt2='.pt2')
PACKAGES = dict(onnx=('onnx', 'onnxscript'), openvino=('onnx', 'onnxscript', 'openvino'), pt2=())
# Under which name the description of a network stands in its file.
KEY = 'mmmeta'


def check_packages(names: tuple[str, ...]) -> None:
    """Check that packages are installed.

    Raises:
        UsageError: Some are not.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UsageError(f"export needs {' and '.join(missing)}: pip install 'mmmeta[deploy]'")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what exporters print and warn of, which nobody who exports can act on."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(logging.NOTSET)


def trace(
    network: nn.Module, inputs: tuple[Tensor, ...], dynamic_shapes: tuple | None
) -> torch.export.ExportedProgram:
    """Export a network with PyTorch."""
    with torch.no_grad(), quiet():
        return torch.export.export(network, inputs, strict=False, dynamic_shapes=dynamic_shapes)


def write_pt2(program: torch.export.ExportedProgram, path: Path, description: dict[str, Any]) -> None:
    """Write PyTorch's own format."""
    torch.export.save(program, path, extra_files={f'{KEY}.json': json.dumps(description)})


def write_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    names: dict[str, list[str]],
    description: dict[str, Any],
) -> None:
    """Write an ONNX file with the weights in it."""
    with quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=names['inputs'],
            output_names=names['outputs'],
            custom_translation_table={OPERATOR: _suppress_in_onnx()},
        )
        exported.model.metadata_props[KEY] = json.dumps(description)
        exported.save(path)


def _suppress_in_onnx() -> Any:
    """ONNX's own suppression, as :func:`~mmmeta.deploy.suppression.suppress` numbers boxes."""
    from onnxscript import opset18 as op

    def translate(boxes: Any, scores: Any, iou_threshold: float, count: int) -> Any:
        selected = op.NonMaxSuppression(
            boxes,
            op.Unsqueeze(scores, op.Constant(value_ints=[1])),
            op.Constant(value_ints=[count]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[-0.5]),
        )
        group = op.Gather(selected, op.Constant(value_int=0), axis=1)
        place = op.Gather(selected, op.Constant(value_int=2), axis=1)
        length = op.Gather(op.Shape(scores), op.Constant(value_int=1))
        flat = op.Add(op.Mul(group, length), place)
        kept = op.Gather(op.Reshape(scores, op.Constant(value_ints=[-1])), flat)
        # As many more as are asked for, so that there are always enough.
        flat = op.Concat(flat, op.Constant(value_ints=[-1] * count), axis=0)
        kept = op.Concat(kept, op.Constant(value_floats=[-1.0] * count), axis=0)
        _, order = op.TopK(kept, op.Constant(value_ints=[count]))
        return op.Gather(flat, order)

    return translate


def write_openvino(source: Path, path: Path, description: dict[str, Any]) -> None:
    """Write an ONNX file as OpenVINO's two files, ``.xml`` and ``.bin``."""
    import openvino

    with quiet():
        model = openvino.convert_model(source)
        model.set_rt_info(json.dumps(description), KEY)
        openvino.save_model(model, path, compress_to_fp16=False)
