"""Files of exported networks: ONNX, OpenVINO's and PyTorch's."""

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import torch
from torch import Tensor, nn

from mmmeta.runtime.run import KEY, Description
from mmmeta.utils.errors import UsageError

from .suppression import OPERATOR

if TYPE_CHECKING:
    import openvino

# Ending and packages of each format.
SUFFIXES = dict(onnx='.onnx', openvino='.xml', pt2='.pt2')
PACKAGES = dict(onnx=('onnx', 'onnxscript'), openvino=('onnx', 'onnxscript', 'openvino'), pt2=())

# Elements of constants that are computed when a file is written.
FOLDED = 2**28
# Axes that may differ: of the image, and of the sizes together, which have none.
Shapes = tuple[dict[int, torch.export.Dim] | tuple[None, ...], ...]
# Who speaks while networks are traced and translated.
LOGGERS = ('torch', 'onnxscript', 'onnx_ir')


def check_packages(names: tuple[str, ...]) -> None:
    """Check that packages are installed.

    Raises:
        UsageError: Some are not.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UsageError(f"export needs {' and '.join(missing)}: pip install 'mmmetaformer[deploy]'")


@contextlib.contextmanager
def only_errors(*names: str) -> Iterator[None]:
    """Let loggers of these names say errors alone."""
    # Not logging.disable: MMEngine's logger would stay silent after it.
    loggers = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what exporters print and warn of, which nobody who exports can act on."""
    with (
        only_errors(*LOGGERS),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter('ignore')
        yield


def trace(
    network: nn.Module, inputs: tuple[Tensor, ...], dynamic_shapes: Shapes | None
) -> torch.export.ExportedProgram:
    """Export a network with PyTorch."""
    with torch.no_grad(), quiet():
        # Not strict: configs and registries of the packages are no code that its interpreter knows.
        return torch.export.export(network, inputs, strict=False, dynamic_shapes=dynamic_shapes)


def write_pt2(program: torch.export.ExportedProgram, path: Path, description: Description) -> None:
    """Write PyTorch's own format."""
    torch.export.save(program, path, extra_files={f'{KEY}.json': description.write()})


def write_onnx(program: torch.export.ExportedProgram, path: Path, description: Description) -> set[str]:
    """Write an ONNX file with the weights in it.

    Returns:
        set[str]: Names of the nodes outside of all parts of the model: what is written here around them.
    """
    from onnxscript.optimizer import fold_constants

    with quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=description.inputs,
            output_names=description.outputs,
            custom_translation_table={
                OPERATOR: _suppress_in_onnx(),
                torch.ops.aten.group_norm.default: _normalize_groups_in_onnx(),
            },
        )
        # Weights of linear maps, which get two axes for convolutions; the exporter folds small ones alone.
        limits = dict(input_size_limit=FOLDED, output_size_limit=FOLDED)
        fold_constants(exported.model, onnx_shape_inference=False, **limits)
        graph = exported.model.graph
        _remove_checks_of_softmax(graph)
        around = {node.name for node in graph if not _scopes(node)}
        for node in graph:  # traces with the paths of this machine
            node.metadata_props.clear()
        exported.model.metadata_props[KEY] = description.write()
        exported.save(path)
    return around


def _scopes(node: Any) -> list[str]:
    """The parts of the model that a node is in; the network around them is ``network``."""
    scopes = ast.literal_eval(node.metadata_props.get('pkg.torch.onnx.name_scopes', '[]'))
    return [scope for scope in scopes if scope.startswith('network.')]


def _remove_checks_of_softmax(graph: Any) -> None:
    """Remove what replaces NaN after the attention of windows, in which every query sees at least itself.

    Attention with a mask is translated so, which costs time in ONNX Runtime.
    """
    for node in list(graph):
        if node.op_type != 'Where':
            continue
        check, _, weights = (value.producer() if value is not None else None for value in node.inputs)
        if check is None or check.op_type != 'IsNaN' or weights is None or weights.op_type != 'Softmax':
            continue
        if check.inputs[0] is node.inputs[2] and any('.backbone' in scope for scope in _scopes(node)):
            node.outputs[0].replace_all_uses_with(node.inputs[2])
            graph.remove([node, check], safe=True)


def _normalize_groups_in_onnx() -> Any:
    """Group norm with its means taken along rows first.

    Both runtimes sum up a whole group, with one group millions of values, in a row: boxes of a detector with
    PoolFormer were off by 0.04 pixels, PyTorch's by 0.001.
    """
    from onnxscript import opset18 as op

    def constant(*values: int) -> Any:
        return op.Constant(value_ints=[*values])

    def mean(x: Any, groups: int) -> Any:
        # Reshaped in between: OpenVINO would make one sum of the two.
        of_rows = op.Reshape(op.ReduceMean(x, constant(3)), constant(0, groups, 1, -1))
        return op.ReduceMean(of_rows, constant(3))

    def translate(
        x: Any,
        groups: int,
        weight: Any = None,
        bias: Any = None,
        eps: float = 1e-5,
        cudnn_enabled: bool = True,
    ) -> Any:
        grouped = op.Reshape(x, constant(0, groups, -1, 0))
        centred = op.Sub(grouped, mean(grouped, groups))
        deviation = op.Sqrt(op.Add(mean(op.Mul(centred, centred), groups), op.Constant(value_float=eps)))
        out = op.Reshape(op.Div(centred, deviation), op.Shape(x))
        for combine, values in ((op.Mul, weight), (op.Add, bias)):
            if values is not None:
                out = combine(out, op.Unsqueeze(values, constant(1, 2)))
        return out

    return translate


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


def write_openvino(
    source: 'Path | openvino.Model', path: Path, description: Description, precise: set[str]
) -> None:
    """Write a network as OpenVINO's two files, ``.xml`` and ``.bin``.

    Args:
        source (Path | openvino.Model): An ONNX file, or a network of OpenVINO.
        path (Path): The ``.xml`` file.
        description (Description): Of the network.
        precise (set[str]): Names of nodes that are computed in float32 whatever the rest is.
    """
    import openvino

    with quiet():
        # Not openvino.convert_model, which reports to its maker over the network.
        model = openvino.Core().read_model(source) if isinstance(source, Path) else source
        model.set_rt_info(description.write(), KEY)
        openvino.save_model(model, path, compress_to_fp16=False)
    if precise:
        _pin(path, precise)


def _pin(path: Path, precise: set[str]) -> None:
    """Mark operations of a file, which Python's interface of OpenVINO cannot."""
    tree = ElementTree.parse(path)
    for layer in tree.getroot().iterfind('layers/layer'):
        if layer.get('name', '').partition('/')[0] not in precise:
            continue
        notes = layer.find('rt_info')
        if notes is None:
            notes = ElementTree.Element('rt_info')
            layer.insert(0 if layer.find('data') is None else 1, notes)
        ElementTree.SubElement(notes, 'attribute', name='precise', version='0')
    tree.write(path, xml_declaration=True)
