"""Export a network to a file that a runtime without PyTorch executes, and check that it computes the same."""

import contextlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mmmeta.datasets.coco import draw_coco_scene
from mmmeta.models import MetaFormer
from mmmeta.runtime import run
from mmmeta.runtime.run import VERSION, Crop, Description, Fit, Network, RuntimeProblem, inputs_of
from mmmeta.utils.errors import UsageError
from mmmeta.utils.processes import physical_memory
from mmmeta.version import __version__
from mmmeta.weights import MEAN, STD, sha256_of

from . import formats
from .comparing import Difference, compare, compare_images
from .linear_maps import ConvMlp, ConvSepConv
from .networks import Classification, Features, Normalized, Segmentation, normalization_of
from .pooling import MatrixAdaptiveAvgPool2d
from .preprocessing import Preprocessing, read_preprocessing
from .quantizing import Calibration, quantize

DYNAMIC = ('none', 'batch', 'all')
PRECISIONS = ('f32', 'bf16', 'int8')
# Which formats have which precision.
COMBINATIONS = dict(onnx=('f32', 'int8'), openvino=PRECISIONS, pt2=('f32',))
RUNTIME = Path(run.__file__)
RUN = 'run.py'
# Pixels of a side, at least, that a network for any size is traced with: two tiles of windows at stride 32.
TRACED_SIDE = 320
# Bytes for a pixel of the image that tracing, converting and checking take at least.
BYTES_PER_PIXEL = 1500


@dataclass
class Exported:
    """What was exported.

    Attributes:
        files (list[Path]): What was written; the first is the one to run.
        differences (list[Difference]): From PyTorch on the same input, for each batch that was tried.
        same_images (list[Difference]): From PyTorch with its own test pipeline, for each image.
        quantized (str | None): What is left of the metric in eight bits.
    """

    files: list[Path]
    differences: list[Difference]
    same_images: list[Difference]
    quantized: str | None = None


def export(
    model: nn.Module,
    path: str | Path,
    format: str | None = None,
    shape: tuple[int, int] | None = None,
    dynamic: str | None = None,
    precision: str = 'f32',
    normalize: bool = True,
    labels: bool = True,
    images: Sequence[np.ndarray | str | Path] = (),
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
        shape (tuple[int, int] | None): Height and width of the images that it takes, or with
            ``dynamic='all'`` is traced with. Defaults to None: what the config tests with, 224x224 for a
            backbone.
        dynamic (str | None): What may differ between images: ``'none'``, so that smaller ones are padded to
            ``shape``; ``'batch'``, their number; ``'all'``, height and width, too. Detectors take one image
            at a time. Defaults to None: ``'all'`` for detectors and segmentors whose test pipeline keeps the
            aspect ratio, so that the file sees what PyTorch sees, else ``'none'``.
        precision (str): ``'f32'``, ``'bf16'`` of OpenVINO, with which the file is executed, or ``'int8'``
            with the rest in float32 in ONNX files, in bfloat16 in OpenVINO's. Defaults to ``'f32'``.
        normalize (bool): Whether the file normalises images itself; else the runtime does. Defaults to True.
        labels (bool): Whether a segmentor ends in labels at the size of the image, else in logits at the
            size of its input. Defaults to True.
        images (Sequence): Files of images, or RGB arrays, to compare the file with PyTorch on. Defaults to
            none: two drawn ones.
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
    if not quantizes:
        calibration = None
    elif calibration is None or not calibration.images:
        raise UsageError('int8 is calibrated with images like those of the application: give some')
    if model.training or next(model.parameters()).device.type != 'cpu':
        raise UsageError('export takes a model in evaluation mode on a CPU: call model.cpu().eval() first')
    network, task = _wrap(model, labels)
    description = _describe(
        model, task, network.names, shape, dynamic, format, precision, normalize, checkpoint
    )
    _check_room(description.shape)
    _check_beside(path)
    network = Normalized(network, description).eval()
    with _beside(path) as folder, tempfile.TemporaryDirectory() as drawn:
        if not images and description.reads == 'unchanged':
            raise UsageError(
                'the file is compared with PyTorch on images like those of the application, and this network '
                'reads them as they are stored: give some (--images)'
            )
        files = _as_files(images or _draw(description), Path(drawn))
        draft = Path(folder) / path.name
        progress('tracing')
        with _replaced(network, _replacements(description)):
            program = _trace(network, description)
        progress(f'writing {format}')
        exact = replace(description, precision='f32', computed_in='f32') if quantizes else description
        around = _write(program, draft, format, exact)
        progress('comparing with PyTorch')
        exported = _compare(model, draft, files)
        required = [*exported.differences, *([] if _pads(description) else exported.same_images)]
        failed = [difference for difference in required if not difference.passed]
        if failed and precision != 'bf16':
            raise UsageError(f'the file computes something else than PyTorch: {failed[0]}; it is not kept')
        if calibration is not None:
            progress(f'calibrating with {len(calibration.images)} images')
            with _running():
                exported.quantized = _quantize(draft, description, calibration, around)
            exported = replace(_compare(model, draft, files), quantized=exported.quantized)
        shutil.copyfile(RUNTIME, Path(folder) / RUN)
        written = sorted(Path(folder).iterdir(), key=lambda one: (one.name != path.name, one.name))
        for one in reversed(written):  # the one to run last, when the others are there
            os.replace(one, path.parent / one.name)
    exported.files = [path.parent / one.name for one in written]
    return exported


def _pads(description: Description) -> bool:
    """Whether a file pads or shrinks images of other aspect ratios, which PyTorch does not."""
    return isinstance(description.resize, Fit) and description.dynamic != 'all'


def _compare(model: nn.Module, draft: Path, files: Sequence[Path]) -> Exported:
    with _running():
        network = Network(draft, trusted=True)
        batches = _with_sizes([network.read(file) for file in files], network.description)
        differences = compare(model, network, batches)
        predicts = {'boxes', 'labels', 'probabilities'} & {*network.description.outputs}
        return Exported([], differences, compare_images(model, network, files) if predicts else [])


def _as_files(images: Sequence[np.ndarray | str | Path], folder: Path) -> list[Path]:
    """Write arrays as lossless files, which PyTorch and the runtime read alike."""
    files = []
    for number, image in enumerate(images):
        if isinstance(image, np.ndarray):
            path = folder / f'{number}.png'
            Image.fromarray(image).save(path)
            image = path
        files.append(Path(image))
    return files


def _beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder beside a file."""
    folder = path.absolute().parent
    try:
        return tempfile.TemporaryDirectory(dir=folder, prefix='.part-')
    except OSError as error:
        raise UsageError(f"cannot write to '{folder}' ({error.strerror}): choose another folder") from error


def _replacements(description: Description) -> dict[type[nn.Module], type[nn.Module]]:
    """What computes the same as its base class in a form that exports better, by the exact type of that."""
    forms: list[type[nn.Module]] = [MatrixAdaptiveAvgPool2d, ConvMlp, ConvSepConv]
    if description.task == 'segmentation':
        from .upsampling import SymbolicUpsample

        forms.append(SymbolicUpsample)
        if description.dynamic == 'none':  # the sizes of all maps are known
            from .uper_head import MergedUPerHead

            forms.append(MergedUPerHead)
    return {form.__bases__[0]: form for form in forms}


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


def _quantize(draft: Path, description: Description, calibration: Calibration, around: set[str]) -> str:
    """Put a file in eight bits in the place of one in float32."""
    folder = draft.parent / 'int8'
    folder.mkdir()
    lost = quantize(draft, folder / draft.name, description, calibration, around)
    for one in folder.iterdir():
        os.replace(one, draft.parent / one.name)
    folder.rmdir()
    return lost


def _check_arguments(path: Path, format: str | None, dynamic: str | None, precision: str) -> str:
    """The format, once all arguments are known to fit each other."""
    by_suffix = {suffix: name for name, suffix in formats.SUFFIXES.items()}
    endings = ', '.join(f'{suffix} for {name}' for suffix, name in by_suffix.items())
    if path.suffix not in by_suffix:
        raise UsageError(f"'{path}' ends in none of the endings of exported files: {endings}")
    chosen = format or by_suffix[path.suffix]
    if formats.SUFFIXES.get(chosen) != path.suffix:
        raise UsageError(f"format '{chosen}' and '{path}' do not fit: {endings}")
    if dynamic not in (None, *DYNAMIC):
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
    there = physical_memory()
    needed = shape[0] * shape[1] * BYTES_PER_PIXEL
    if there is not None and needed > there:
        raise UsageError(
            f'images of {shape[0]}x{shape[1]} need {needed / 2**30:.0f} GiB of memory at least, and '
            f'this machine has {there / 2**30:.0f} GiB: choose a smaller shape'
        )


def _wrap(model: nn.Module, labels: bool) -> tuple[nn.Module, str]:
    """The network to export, and its task."""
    if isinstance(model, MetaFormer):
        return Features(model), 'features'
    scope = model.cfg.default_scope if hasattr(model, 'cfg') else ''
    if scope == 'mmdet':
        from .detection import wrap_detector

        return wrap_detector(model), 'detection'
    if scope == 'mmseg':
        return Segmentation(model, labels), 'segmentation'
    if scope == 'mmpretrain':
        return Classification(model), 'classification'
    raise UsageError(
        f'{type(model).__name__} cannot be exported: give a backbone of this package, or what build_model '
        'returns for a config of mmdet, mmseg or mmpretrain'
    )


def _describe(
    model: nn.Module,
    task: str,
    outputs: Sequence[str],
    shape: tuple[int, int] | None,
    dynamic: str | None,
    format: str,
    precision: str,
    normalize: bool,
    checkpoint: str | None,
) -> Description:
    """The description that stands in the file."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    preprocessing = read_preprocessing(getattr(model, 'cfg', None), preprocessor)
    mean, std, is_bgr = [*MEAN], [*STD], False
    if preprocessor:
        mean, std, is_bgr = normalization_of(preprocessor, preprocessing)
    _check_channels(model, len(mean), task)
    dynamic = _choose_dynamic(dynamic, preprocessing, task)
    divisor = preprocessing.divisor if task == 'detection' else preprocessing.resize.multiple
    shape = _check_shape(shape or _default_shape(preprocessing, task), divisor)
    # Beside the content lies what is zero once it is normalised, unless a pipeline pads by itself.
    clipped_to = 'content' if preprocessing.padding is None else 'shape'
    padding = preprocessing.padding or (mean[::-1] if is_bgr else mean)
    meta = getattr(model, 'dataset_meta', None) or {}
    test_cfg = model.cfg.model.get('test_cfg', {}) if task == 'detection' else {}
    return Description(
        task,
        version=1 if preprocessing.reads == 'color' else VERSION,
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
        reads=preprocessing.reads,
        in_range=preprocessing.in_range,
        padding=list(padding),
        clipped_to=clipped_to,
        divisor=preprocessing.divisor,
        resize=preprocessing.resize,
        classes=list(meta.get('classes') or []),
        palette=[list(colour) for colour in meta.get('palette') or []],
        mask_threshold=(test_cfg.get('rcnn') or {}).get('mask_thr_binary', 0.5),
        checkpoint=_identify(checkpoint),
        packages=dict(mmmeta=__version__, torch=version('torch')),
        inputs=inputs_of(task, outputs),
        outputs=[*outputs],
    )


def _check_channels(model: nn.Module, channels: int, task: str) -> None:
    """Check that a network takes as many channels as its pipeline reads."""
    stem = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d)), None)
    if stem is not None and stem.in_channels != channels:
        remedy = 'export a config, which says how they are read' if task == 'features' else 'make them agree'
        raise UsageError(
            f'{type(model).__name__} takes images of {stem.in_channels} channels, and {channels} '
            f'are read: {remedy}'
        )


def _default_shape(preprocessing: Preprocessing, task: str) -> tuple[int, int]:
    """Return height and width of what the config tests with."""
    resize = preprocessing.resize
    if task == 'features':
        return 224, 224
    if preprocessing.padded_size:
        return preprocessing.padded_size
    if isinstance(resize, Crop):
        return resize.size, resize.size
    scale, divisor = resize.scale, 32
    if task == 'segmentation':  # any aspect ratio is resized to a short side
        scale, divisor = [min(scale)] * 2, 1
    if math.isinf(max(scale)):
        raise UsageError(
            f'the test pipeline resizes to scale={tuple(resize.scale)}, a side without a limit: give the '
            'shape, height and width of the images that the file takes'
        )
    width, height = (math.ceil(side / divisor) * divisor for side in scale)
    return height, width


def _choose_dynamic(dynamic: str | None, preprocessing: Preprocessing, task: str) -> str:
    """Return what may differ between images, by default all that differs in PyTorch."""
    differs = preprocessing.keeps_ratio and task in ('detection', 'segmentation')
    dynamic = dynamic or ('all' if differs else 'none')
    if task == 'detection' and dynamic == 'batch':
        raise UsageError("dynamic='batch': a detector takes one image at a time; choose none or all")
    if dynamic == 'all' and preprocessing.padded_size:
        height, width = preprocessing.padded_size
        raise UsageError(f"dynamic='all': the test pipeline pads all images to {height}x{width}; choose none")
    return dynamic


def _check_shape(shape: Sequence[int], divisor: int) -> tuple[int, int]:
    """Check that a network can take images of a size."""
    if len(shape) != 2 or min(shape) < 32:
        raise UsageError(f'shape={tuple(shape)}: give height and width, both at least 32')
    if any(side % divisor for side in shape):
        fitting = ' '.join(str(-(-side // divisor) * divisor) for side in shape)
        raise UsageError(
            f'shape {shape[0]}x{shape[1]}: both have to be multiples of {divisor}, as in training; take '
            f'{fitting}'
        )
    return shape[0], shape[1]


def _identify(checkpoint: str | None) -> dict[str, str]:
    """Name of a checkpoint, and the hash of its content where it is a file."""
    if checkpoint is None or checkpoint == 'none':
        return dict(name='none')
    if not os.path.isfile(checkpoint):
        return dict(name=checkpoint)
    return dict(name=os.path.basename(checkpoint), sha256=sha256_of(checkpoint))


def _trace(network: nn.Module, description: Description) -> torch.export.ExportedProgram:
    """Trace a network."""
    inputs, shapes = _example(description)
    try:
        return formats.trace(network, inputs, shapes)
    except (RuntimeError, torch._dynamo.exc.UserError) as error:
        dynamic = description.dynamic
        narrower = ' or '.join(DYNAMIC[: DYNAMIC.index(dynamic)]) or 'another network'
        reason = str(error).strip().splitlines()[0][:200]
        raise UsageError(
            f"this network cannot be exported with dynamic='{dynamic}' ({reason}): choose {narrower}"
        ) from error


def _example(description: Description) -> tuple[tuple[Tensor, ...], formats.Shapes | None]:
    """Inputs to trace with, and which of their axes may differ."""
    height, width = description.shape
    if description.dynamic == 'all':
        # A number of windows or bins that is 1 would be traced as a constant.
        height, width = (max(side, TRACED_SIDE) for side in (height, width))
    batch = 2 if description.takes_batches else 1
    kind = torch.float32 if description.task == 'detection' else torch.int64
    known = dict(
        image=torch.rand(batch, len(description.mean), height, width) * 255,
        size=torch.tensor([height, width], dtype=kind),
        original=torch.tensor([height + 1, width + 1]),
    )
    inputs = tuple(known[name] for name in description.inputs)
    axes = (*((0,) if description.takes_batches else ()), *((2, 3) if description.dynamic == 'all' else ()))
    if not axes:
        return inputs, None
    shapes = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    others = (None,) * (len(inputs) - 1)  # the sizes, which one argument takes together
    return inputs, (shapes, others) if others else (shapes,)


def _write(
    program: torch.export.ExportedProgram, path: Path, format: str, description: Description
) -> set[str]:
    """Write a file of a format.

    Returns:
        set[str]: Names of operations that are to be computed in float32 whatever the rest is: coordinates of
        boxes, rounded to eight bits, are several pixels off.
    """
    if format == 'pt2':
        formats.write_pt2(program, path, description)
        return set()
    onnx = path.with_suffix('.onnx')
    try:
        around = formats.write_onnx(program, onnx, description)
    except torch.onnx.OnnxExporterError as error:
        reason = [line for line in str(error).splitlines() if line.startswith('<class')][:1]
        raise UsageError(
            f'{description.method} cannot be written as ONNX: {"".join(reason)[:200]}; choose format pt2'
        ) from error
    precise = around if description.task == 'detection' else set()
    if format == 'openvino':
        formats.write_openvino(
            onnx, path, description, precise if description.computed_in != 'f32' else set()
        )
        onnx.unlink()
    return precise


def _draw(description: Description) -> list[np.ndarray]:
    """Draw images to compare on, one in landscape and one in portrait format."""
    rng = np.random.default_rng(1)
    side = max(min(description.shape) * 4 // 5, 32)
    return [
        np.asarray(draw_coco_scene(rng, *size)[0]) for size in ((side, side * 4 // 3), (side * 3 // 2, side))
    ]


def _with_sizes(images: Sequence[np.ndarray], description: Description) -> list[list[np.ndarray]]:
    """Batches to check with: each image, of a dynamic file also other sizes and numbers."""
    batches = [[image] for image in images]
    if description.takes_batches:
        batches.append([images[0]] * 3)
    if description.dynamic == 'all':
        for change in ((64, 0), (-32, 96)):
            size = [max(side + more, 64) for side, more in zip(description.shape, change, strict=True)]
            times = [-(-side // own) for side, own in zip(size, images[0].shape[:2], strict=True)]
            batches.append([np.tile(images[0], (*times, 1))[: size[0], : size[1]]])
    return batches
