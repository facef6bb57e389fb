"""Export a network to a file that a runtime without PyTorch executes, and check that it computes the same."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from torch import Tensor, nn

from mmmeta.datasets.coco import draw_coco_scene
from mmmeta.errors import UsageError
from mmmeta.models import MetaFormer
from mmmeta.weights import MEAN, STD

from . import formats
from .comparing import Difference, compare
from .networks import Classification, Features, Normalized, Segmentation, normalization_of
from .pooling import MatrixAdaptiveAvgPool2d
from .quantizing import Calibration, quantize
from .runtime import VERSION, Network, RuntimeProblem

DYNAMIC = ('none', 'batch', 'all')
PRECISIONS = ('f32', 'bf16', 'int8')
# Which formats have which precision.
COMBINATIONS = dict(onnx=('f32', 'int8'), openvino=PRECISIONS, pt2=('f32',))
RUNTIME = Path(__file__).with_name('runtime.py')
RUN = 'run.py'
# Bytes for a pixel of the image that tracing, converting and checking take at least.
BYTES_PER_PIXEL = 1500


@dataclass
class Exported:
    """What was exported.

    Attributes:
        files (list[Path]): What was written; the first is the one to run.
        differences (list[Difference]): From PyTorch, for each image that was tried.
        quantized (str | None): What is left of the metric in eight bits.
    """

    files: list[Path]
    differences: list[Difference]
    quantized: str | None = None


def export(
    model: nn.Module,
    path: str | Path,
    format: str | None = None,
    shape: tuple[int, int] | None = None,
    dynamic: str = 'none',
    precision: str = 'f32',
    normalize: bool = True,
    labels: bool = True,
    images: Sequence[np.ndarray] = (),
    checkpoint: str | None = None,
    calibration: Calibration | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Export a detector, segmentor, classifier or backbone, and check the file against PyTorch.

    Args:
        model (nn.Module): What :func:`mmmeta.apis.build_model` returns, or a backbone, in eval mode on a
            CPU.
        path (str | Path): The file; ``run.py``, which runs it without this package, is written beside it.
        format (str | None): ``'onnx'``, ``'openvino'`` or ``'pt2'``. Defaults to None: that of the ending
            of ``path``, ``.onnx``, ``.xml`` or ``.pt2``.
        shape (tuple[int, int] | None): Height and width of the images it takes; smaller ones are padded.
            Defaults to None: what the config tests with, 224x224 for a backbone.
        dynamic (str): What may differ when it runs: ``'none'``, ``'batch'``, or ``'all'`` for height and
            width, too. Detectors take one image at a time. Defaults to ``'none'``.
        precision (str): ``'f32'``, ``'bf16'`` of OpenVINO, with which the file is executed, or ``'int8'``
            with the rest in float32 in ONNX files, in bfloat16 in OpenVINO's. Defaults to ``'f32'``.
        normalize (bool): Whether the file normalises images itself; else the runtime does. Defaults to True.
        labels (bool): Whether a segmentor ends in labels at the size of the image, else in logits at the
            size of its input. Defaults to True.
        images (Sequence[np.ndarray]): RGB images to check the file with. Defaults to none: a drawn one.
        checkpoint (str | None): Where the weights come from, for the description in the file. Defaults to
            None.
        calibration (Calibration | None): For ``'int8'``: images, and what may be lost. Defaults to None.
        progress (callable): Is told what is done next.

    Returns:
        Exported: Files and differences.

    Raises:
        UsageError: An argument does not fit, the network cannot be exported, or the file computes something
            else; no file is left then.
    """
    path = Path(path)
    format = _check_arguments(path, format, dynamic, precision)
    quantizes = precision == 'int8'
    formats.check_packages((*formats.PACKAGES[format], *(['nncf'] if quantizes else [])))
    if quantizes and (calibration is None or not calibration.images):
        raise UsageError('int8 is calibrated with images like those of the application: give some')
    if model.training or next(model.parameters()).device.type != 'cpu':
        raise UsageError('export takes a model in evaluation mode on a CPU: call model.cpu().eval() first')
    network, description = _describe(model, labels)
    description = _complete(description, model, shape, dynamic, format, precision, normalize, checkpoint)
    _check_room(description['shape'])
    _check_beside(path)
    network = Normalized(network, description).eval()
    images = list(images) or [_draw(description)]
    with _beside(path) as folder:
        draft = Path(folder) / path.name
        progress('tracing')
        with _replaced(network, _replacements(description)):
            program = _trace(network, description)
        progress(f'writing {format}')
        exact = dict(description, precision='f32', computed_in='f32') if quantizes else description
        around = _write(program, draft, format, exact)
        progress('comparing with PyTorch')
        batches = _with_sizes(images, description)
        with _running():
            differences = compare(model, Network(draft), batches)
        failed = [one for one in differences if not one.passed]
        if failed and precision != 'bf16':
            raise UsageError(f'the file computes something else than PyTorch: {failed[0]}; it is not kept')
        lost = None
        if quantizes:
            progress(f'calibrating with {len(calibration.images)} images')
            with _running():
                lost = _quantize(draft, description, calibration, around)
                differences = compare(model, Network(draft), batches)
        shutil.copyfile(RUNTIME, Path(folder) / RUN)
        written = sorted(Path(folder).iterdir(), key=lambda one: (one.name != path.name, one.name))
        for one in reversed(written):  # the one to run last, when the others are there
            os.replace(one, path.parent / one.name)
    return Exported([path.parent / one.name for one in written], differences, lost)


def _beside(path: Path) -> tempfile.TemporaryDirectory:
    """A temporary folder beside a file."""
    folder = path.absolute().parent
    try:
        return tempfile.TemporaryDirectory(dir=folder, prefix='.part-')
    except OSError as error:
        raise UsageError(f"cannot write to '{folder}' ({error.strerror}): choose another folder") from error


def _replacements(about: dict[str, Any]) -> dict[type[nn.Module], type[nn.Module]]:
    """What computes the same in a form that exports better, by exact type."""
    replacements = {nn.AdaptiveAvgPool2d: MatrixAdaptiveAvgPool2d}
    if about['task'] == 'segmentation' and about['dynamic'] == 'none':  # the sizes of all maps are known
        from .uper_head import MergedUPerHead, UPerHead

        replacements[UPerHead] = MergedUPerHead
    return replacements


@contextlib.contextmanager
def _replaced(network: nn.Module, replacements: dict[type[nn.Module], type[nn.Module]]) -> Iterator[None]:
    """Let modules of a network be of other types while it is traced."""
    originals = {}
    for module in network.modules():
        if type(module) in replacements:
            originals[module] = type(module)
            module.__class__ = replacements[type(module)]
    try:
        yield
    finally:
        for module, kind in originals.items():
            module.__class__ = kind


@contextlib.contextmanager
def _running() -> Iterator[None]:
    """Say of a file that cannot be run that it is not kept."""
    try:
        yield
    except RuntimeProblem as error:
        raise UsageError(f'the file does not run, and is not kept: {error}') from error


def _quantize(draft: Path, description: dict[str, Any], calibration: Calibration, around: set[str]) -> str:
    """Put a file in eight bits in the place of one in float32."""
    folder = draft.parent / 'int8'
    folder.mkdir()
    lost = quantize(draft, folder / draft.name, description, calibration, around)
    for one in folder.iterdir():
        os.replace(one, draft.parent / one.name)
    folder.rmdir()
    return lost


def _check_arguments(path: Path, format: str | None, dynamic: str, precision: str) -> str:
    """The format, once all arguments are known to fit each other."""
    by_suffix = {suffix: name for name, suffix in formats.SUFFIXES.items()}
    endings = ', '.join(f'{suffix} for {name}' for suffix, name in by_suffix.items())
    if path.suffix not in by_suffix:
        raise UsageError(f"'{path}' ends in none of the endings of exported files: {endings}")
    chosen = format or by_suffix[path.suffix]
    if formats.SUFFIXES.get(chosen) != path.suffix:
        raise UsageError(f"format '{chosen}' and '{path}' do not fit: {endings}")
    if dynamic not in DYNAMIC:
        raise UsageError(f"dynamic='{dynamic}': choose one of {', '.join(DYNAMIC)}")
    if precision not in COMBINATIONS[chosen]:
        known = '; '.join(f'{name}: {", ".join(kinds)}' for name, kinds in COMBINATIONS.items())
        raise UsageError(f"format '{chosen}' has no precision '{precision}': {known}")
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write to '{folder}': give a file in a folder that exists and is writable")
    return chosen


def _check_beside(path: Path) -> None:
    """Check that the runtime does not replace somebody's file."""
    beside = path.absolute().parent / RUN
    if beside.exists() and 'Run an exported network on images.' not in beside.read_text()[:300]:
        raise UsageError(f"'{beside}' is another program, and would be overwritten: choose another folder")


def _check_room(shape: Sequence[int]) -> None:
    """Check that memory is likely to be enough."""
    if not hasattr(os, 'sysconf'):  # not everywhere
        return
    there = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    needed = shape[0] * shape[1] * BYTES_PER_PIXEL
    if needed > there:
        raise UsageError(
            f'images of {shape[0]}x{shape[1]} need {needed / 2**30:.0f} GiB of memory at least, and '
            f'this machine has {there / 2**30:.0f} GiB: choose a smaller shape'
        )


def _describe(model: nn.Module, labels: bool) -> tuple[nn.Module, dict[str, Any]]:
    """The network to export, and what its kind knows of it."""
    if isinstance(model, MetaFormer):
        return Features(model), dict(task='features')
    scope = model.cfg.default_scope if hasattr(model, 'cfg') else ''
    if scope == 'mmdet':
        from .detection import wrap_detector

        return wrap_detector(model), dict(task='detection')
    if scope == 'mmseg':
        return Segmentation(model, labels), dict(task='segmentation')
    if scope == 'mmpretrain':
        return Classification(model), dict(task='classification')
    raise UsageError(
        f'{type(model).__name__} cannot be exported: give a backbone of this package, or what build_model '
        'returns for a config of mmdet, mmseg or mmpretrain'
    )


def _complete(
    about: dict[str, Any],
    model: nn.Module,
    shape: tuple[int, int] | None,
    dynamic: str,
    format: str,
    precision: str,
    normalize: bool,
    checkpoint: str | None,
) -> dict[str, Any]:
    """The description that stands in the file."""
    task = about['task']
    if task == 'detection' and dynamic == 'batch':
        raise UsageError("dynamic='batch': a detector takes one image at a time; choose none or all")
    preprocessor = getattr(model, 'data_preprocessor', None)
    mean, std, is_bgr = normalization_of(preprocessor) if preprocessor else ([*MEAN], [*STD], False)
    resize, padding = _read_pipeline(getattr(model, 'cfg', None))
    shape = _check_shape(model, shape or _default_shape(resize, model, task), task)
    # Beside the content lies what is zero once it is normalised, unless a pipeline pads by itself.
    clipped_to = 'content' if padding is None else 'shape'
    padding = padding or (mean[::-1] if is_bgr else mean)
    meta = getattr(model, 'dataset_meta', None) or {}
    test_cfg = model.cfg.model.get('test_cfg', {}) if task == 'detection' else {}
    return dict(
        about,
        version=VERSION,
        method=type(model).__name__,
        shape=list(shape),
        dynamic=dynamic,
        takes_batches=dynamic != 'none' and task != 'detection',
        precision=precision,
        computed_in='bf16' if precision != 'f32' and format == 'openvino' else 'f32',
        normalized_inside=normalize,
        mean=mean,
        std=std,
        is_bgr=is_bgr,
        padding=list(padding),
        clipped_to=clipped_to,
        divisor=max(getattr(preprocessor, 'pad_size_divisor', 1) or 1, 32 if task == 'features' else 1),
        resize=resize,
        classes=list(meta.get('classes') or []),
        palette=[list(colour) for colour in meta.get('palette') or []],
        mask_threshold=(test_cfg.get('rcnn') or {}).get('mask_thr_binary', 0.5),
        checkpoint=_identify(checkpoint),
        packages={name: version(name) for name in ('mmmeta', 'torch')},
    )


def _read_pipeline(cfg: ConfigDict | None) -> tuple[dict[str, Any], list[float] | None]:
    """How the test pipeline resizes, and what it pads with, if not with zeros after normalising."""
    padding = None
    if cfg is None:
        return dict(kind='fit', scale=[2**15, 2**15]), padding
    steps = cfg.get('test_pipeline') or cfg.test_dataloader.dataset.pipeline
    found: dict[str, Any] = {}
    short = crop = None
    for step in steps:
        kind = step['type'].rpartition('.')[2]
        if kind == 'Resize' and 'scale' in step:
            scale = step['scale']
            scale = [scale, scale] if isinstance(scale, int) else list(scale)
            found = dict(kind='fit' if step.get('keep_ratio') else 'stretch', scale=scale)
        elif (
            kind == 'ResizeEdge' and step.get('backend') == 'pillow' and step.get('edge', 'short') == 'short'
        ):
            short = step
        elif kind == 'CenterCrop':
            crop = step['crop_size']
        elif kind == 'Pad' and step.get('size'):
            value = step.get('pad_val', 0)
            value = value.get('img', 0) if isinstance(value, dict) else value
            padding = [float(value)] * 3 if isinstance(value, (int, float)) else [*map(float, value)][::-1]
    if short and crop:
        interpolation = short.get('interpolation', 'bilinear')
        found = dict(kind='crop', short=short['scale'], size=crop, interpolation=interpolation)
    if not found:
        raise UsageError(
            'the test pipeline has no step that resizes as the runtime can: Resize, or ResizeEdge of the '
            'short side by pillow and CenterCrop'
        )
    return found, padding


def _default_shape(resize: dict[str, Any], model: nn.Module, task: str) -> tuple[int, int]:
    """Height and width of what the config tests with."""
    if task == 'features':
        return 224, 224
    if resize['kind'] == 'crop':
        return resize['size'], resize['size']
    if task == 'segmentation':  # any aspect ratio is resized to a short side
        return min(resize['scale']), min(resize['scale'])
    width, height = (-(-side // 32) * 32 for side in resize['scale'])
    return height, width


def _check_shape(model: nn.Module, shape: Sequence[int], task: str) -> tuple[int, int]:
    """Check that a network can take images of a size."""
    if len(shape) != 2 or min(shape) < 32:
        raise UsageError(f'shape={tuple(shape)}: give height and width, both at least 32')
    divisor = getattr(getattr(model, 'data_preprocessor', None), 'pad_size_divisor', None) or 1
    if task == 'detection' and any(side % divisor for side in shape):
        fitting = ' '.join(str(-(-side // divisor) * divisor) for side in shape)
        raise UsageError(
            f'shape {shape[0]}x{shape[1]}: both have to be multiples of {divisor}, as in training; take '
            f'{fitting}'
        )
    return tuple(shape)


def _identify(checkpoint: str | None) -> dict[str, str]:
    """Name of a checkpoint, and the hash of its content where it is a file."""
    if checkpoint is None or checkpoint == 'none':
        return dict(name='none')
    if not os.path.isfile(checkpoint):
        return dict(name=checkpoint)
    with open(checkpoint, 'rb') as file:
        return dict(name=os.path.basename(checkpoint), sha256=hashlib.file_digest(file, 'sha256').hexdigest())


def _trace(network: nn.Module, about: dict[str, Any]) -> torch.export.ExportedProgram:
    """Trace a network, and note the names of what goes in and out in its description."""
    inputs, shapes = _example(network, about)
    about['inputs'] = list(inputs)
    about['outputs'] = list(network.names)
    try:
        return formats.trace(network, tuple(inputs.values()), shapes)
    except (RuntimeError, torch._dynamo.exc.UserError) as error:
        narrower = ' or '.join(DYNAMIC[: DYNAMIC.index(about['dynamic'])]) or 'another network'
        reason = str(error).strip().splitlines()[0][:200]
        raise UsageError(
            f"this network cannot be exported with dynamic='{about['dynamic']}' ({reason}): choose {narrower}"
        ) from error


def _example(network: nn.Module, about: dict[str, Any]) -> tuple[dict[str, Tensor], tuple | None]:
    """Inputs to trace with, by name, and which of their axes may differ."""
    height, width = about['shape']
    batch = 2 if about['takes_batches'] else 1
    inputs = dict(image=torch.rand(batch, 3, height, width) * 255)
    if about['task'] == 'detection':
        inputs['size'] = torch.tensor([height, width], dtype=torch.float32)
    elif 'labels' in network.names:
        inputs['size'] = torch.tensor([height, width])
        inputs['original'] = torch.tensor([height + 1, width + 1])
    axes = dict(none=(), batch=(0,), all=(0, 2, 3) if about['takes_batches'] else (2, 3))[about['dynamic']]
    shapes = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    if not axes:
        return inputs, None
    others = (None,) * (len(inputs) - 1)  # the sizes, which one argument takes together
    return inputs, (shapes, others) if others else (shapes,)


def _write(program: torch.export.ExportedProgram, path: Path, format: str, about: dict[str, Any]) -> set[str]:
    """Write a file of a format.

    Returns:
        set[str]: Names of operations that are to be computed in float32 whatever the rest is: coordinates of
        boxes, rounded to eight bits, are several pixels off.
    """
    if format == 'pt2':
        formats.write_pt2(program, path, about)
        return set()
    names = dict(inputs=about['inputs'], outputs=about['outputs'])
    onnx = path.with_suffix('.onnx')
    try:
        around = formats.write_onnx(program, onnx, names, about)
    except torch.onnx.OnnxExporterError as error:
        reason = [line for line in str(error).splitlines() if line.startswith('<class')][:1]
        raise UsageError(
            f'{about["method"]} cannot be written as ONNX: {"".join(reason)[:200]}; choose format pt2'
        ) from error
    precise = around if about['task'] == 'detection' else set()
    if format == 'openvino':
        formats.write_openvino(onnx, path, about, precise if about['computed_in'] != 'f32' else set())
        onnx.unlink()
    return precise


def _draw(about: dict[str, Any]) -> np.ndarray:
    """An image to check with, of another aspect ratio than the file has."""
    height, width = (max(side * 4 // 5, 32) for side in about['shape'])
    image, _ = draw_coco_scene(np.random.default_rng(1), height, width * 9 // 10)
    return np.asarray(image)


def _with_sizes(images: Sequence[np.ndarray], about: dict[str, Any]) -> list[list[np.ndarray]]:
    """Batches to check with: each image, of a dynamic file also other sizes and numbers."""
    batches = [[image] for image in images]
    if about['takes_batches']:
        batches.append([images[0]] * 3)
    if about['dynamic'] == 'all':
        rng = np.random.default_rng(2)
        for change in ((64, 0), (-32, 96)):
            height, width = (max(side + more, 64) for side, more in zip(about['shape'], change, strict=True))
            batches.append([np.asarray(draw_coco_scene(rng, height, width)[0])])
    return batches
