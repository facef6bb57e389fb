#!/usr/bin/env python
"""Run an exported network on images.

This file works alone: beside it needs NumPy, Pillow, and ONNX Runtime or OpenVINO. It is a module, and a
program::

    python run.py model.onnx images/ --out-dir predictions
"""

import argparse
import itertools
import json
import math
import os
import signal
import struct
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, cast

try:
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont, TiffImagePlugin
except ImportError as error:
    if __name__ != '__main__':
        raise
    sys.exit(f'error: {sys.executable} has no {error.name}: pip install numpy pillow onnxruntime')

# Of the description in a file; a runtime reads those up to its own.
VERSION = 2
KEY = 'mmmeta'
ENGINES = dict(onnxruntime=('.onnx',), openvino=('.xml', '.onnx'), torch=('.pt2',))
# Names of the inputs and axes of the outputs, by task; features have any names.
TASKS = dict(
    detection=dict(boxes=2, scores=1, labels=1, masks=3),
    segmentation=dict(labels=3, logits=4),
    classification=dict(probabilities=2),
    features={},
)
# Pixels of an image, as it is or resized: twice what Pillow warns of, and what it refuses.
MAX_PIXELS = 2 * 89_478_485
# Longest side that a description names, in pixels.
MAX_SIDE = 2**16
# What Pillow's decoders raise for damaged files.
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error)
# Pixels of the longer side of a picture, at least.
LEAST = 512
ENDINGS = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


class RuntimeProblem(Exception):
    """A user's mistake; its text says what to do."""


@dataclass(frozen=True)
class Fit:
    """Bilinear resizing that keeps the aspect ratio.

    Attributes:
        scale (list[float]): Width and height in either order: the largest that both sides of an image get;
            one may be infinite. Defaults to 32768 pixels, so that the shape of the file is the limit.
        multiple (int): What both sides are resized to multiples of afterwards. Defaults to 1.
    """

    scale: list[float] = field(default_factory=lambda: [2**15, 2**15])
    multiple: int = 1
    kind: Literal['fit'] = 'fit'


@dataclass(frozen=True)
class Stretch:
    """Bilinear resizing to a size, whatever the aspect ratio.

    Attributes:
        scale (list[int]): Width and height in pixels.
    """

    scale: list[int]
    kind: Literal['stretch'] = 'stretch'
    multiple: ClassVar[int] = 1


@dataclass(frozen=True)
class Crop:
    """Resizing of the shorter side, and the centre of what comes out.

    Attributes:
        short (int): Pixels of the shorter side.
        size (int): Pixels of both sides of the centre.
        interpolation (str): Pillow's filter in small letters; ``'opencv'`` for bilinear as OpenCV has it.
    """

    short: int
    size: int
    interpolation: str
    kind: Literal['crop'] = 'crop'
    multiple: ClassVar[int] = 1


Resize = Fit | Stretch | Crop
_RESIZES = dict(fit=Fit, stretch=Stretch, crop=Crop)


@dataclass(frozen=True)
class Description:
    """What an exported file says of its network; values also by name, ``description['shape']``.

    Attributes:
        task (str): One of :data:`TASKS`.
        version (int): Of these attributes: 1 where images are read as colours, so that older programs run it.
        method (str): Name of the class that was exported.
        shape (list[int]): Height and width of the images that it takes.
        dynamic (str): What may differ when it runs: ``'none'``, ``'batch'`` or ``'all'``.
        takes_batches (bool): Whether it takes several images of one size at once.
        precision (str): ``'f32'``, ``'bf16'`` or ``'int8'``.
        computed_in (str): What OpenVINO computes in where nothing else is said: ``'f32'`` or ``'bf16'``.
        normalized_inside (bool): Whether the file normalises images itself.
        mean (list[float]): Subtracted from the channels, in the order that ``is_bgr`` says.
        std (list[float]): What they are divided by.
        is_bgr (bool): Whether the network takes blue first.
        reads (str): How images are read: ``'color'`` as 8 bits of red, green and blue, ``'grayscale'`` as
            8 bits of one channel, ``'unchanged'`` with as many channels as ``mean``, as they are stored.
        in_range (list[float]): Values of images that become 0 and 255; none where they stay as they are.
        padding (list[float]): Values of the channels beside an image.
        clipped_to (str): Which size the network is told: that of the ``'content'``, or the ``'shape'``.
        divisor (int): Of height and width where these are dynamic.
        resize (Fit | Stretch | Crop): How an image is resized.
        classes (list[str]): Names of the classes, if they are known.
        palette (list[list[int]]): Their RGB colours, if they are known.
        mask_threshold (float): Smallest probability of a pixel of an object.
        checkpoint (dict): Name and SHA-256 of the weights.
        packages (dict[str, str]): Versions of what it was exported with.
        inputs (list[str]): Names of the inputs, in their order.
        outputs (list[str]): Names of the outputs, in their order.
    """

    task: str
    version: int = VERSION
    method: str = ''
    shape: list[int] = field(default_factory=list)
    dynamic: str = 'none'
    takes_batches: bool = False
    precision: str = 'f32'
    computed_in: str = 'f32'
    normalized_inside: bool = True
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    is_bgr: bool = False
    reads: str = 'color'
    in_range: list[float] = field(default_factory=list)
    padding: list[float] = field(default_factory=list)
    clipped_to: str = 'content'
    divisor: int = 1
    resize: Resize = field(default_factory=Fit)
    classes: list[str] = field(default_factory=list)
    palette: list[list[int]] = field(default_factory=list)
    mask_threshold: float = 0.5
    checkpoint: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    @classmethod
    def read(cls, text: str | None, path: Path) -> 'Description':
        """Check what a file says of its network.

        Args:
            text (str | None): JSON.
            path (Path): The file.

        Raises:
            RuntimeProblem: There is no description, it is of a later version, or it is damaged.
        """
        if not text:
            raise RuntimeProblem(
                f"'{path}' was not written by mmmeta: export a network with tools/deployment/export.py"
            )
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _damaged(path, f'it is not JSON ({error})') from error
        if not isinstance(content, dict):
            raise _damaged(path, f'it is {_shortened(content)}, not an object')
        version = content.get('version')
        if not _is_whole(version, 1):
            raise _damaged(path, f'version is {_shortened(version)}, not a positive number')
        if cast(int, version) > VERSION:
            raise RuntimeProblem(
                f"'{path}' has a description of version {_shortened(version)}, and this program reads those "
                f'up to {VERSION}: take the program that was written beside the file'
            )
        for name, (is_right, what) in _CHECKS.items():
            if name not in content:
                if name in _ADDED:
                    continue
                raise _damaged(path, f'{name} is missing')
            if not is_right(content[name]):
                raise _damaged(path, f'{name} is {_shortened(content[name])}, not {what}')
        resize = content['resize']
        kind = _RESIZES[resize['kind']]
        content['resize'] = kind(**_known(kind, resize))
        description = cls(**_known(cls, content))
        description._check_together(path)
        return description

    def write(self) -> str:
        """Return the JSON that :meth:`read` takes."""
        return json.dumps(asdict(self))

    def _check_together(self, path: Path) -> None:
        """Check what several values say."""
        outputs = [self.outputs]
        if self.task == 'detection':
            outputs = [['boxes', 'scores', 'labels'], [*TASKS['detection']]]
        elif self.task == 'segmentation' and self.outputs != ['logits']:
            outputs = [['labels']]
        elif self.task == 'classification':
            outputs = [['probabilities']]
        inputs = inputs_of(self.task, self.outputs)
        for name, given, allowed in (('inputs', self.inputs, [inputs]), ('outputs', self.outputs, outputs)):
            if given not in allowed:
                raise _damaged(path, f'{name} are {_shortened(given)} of a network for {self.task}')
        channels = dict(color=3, grayscale=1).get(self.reads, len(self.mean))
        for name, values in (('mean', self.mean), ('std', self.std), ('padding', self.padding)):
            if len(values) != channels:
                raise _damaged(path, f'{name} has {len(values)} numbers for {channels} channels')
        if self.is_bgr and channels != 3:
            raise _damaged(path, f'is_bgr is true with {channels} channels')
        multiple = self.resize.multiple
        if self.dynamic != 'all' and any(side % multiple for side in self.shape):
            raise _damaged(path, f'shape {self.shape} is not of multiples of {multiple}, as resize asks for')
        if self.takes_batches and (self.dynamic == 'none' or self.task == 'detection'):
            raise _damaged(path, f"takes_batches is true with dynamic='{self.dynamic}' and {self.task}")


def inputs_of(task: str, outputs: Sequence[str]) -> list[str]:
    """Return the names of the inputs of a network, in their order.

    Args:
        task (str): One of :data:`TASKS`.
        outputs (Sequence[str]): Names of its outputs.
    """
    if task == 'detection':
        return ['image', 'size']
    labels = task == 'segmentation' and [*outputs] != ['logits']
    return ['image', 'size', 'original'] if labels else ['image']


def _known(kind: type, content: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a dataclass has no attribute for, such as what later programs write."""
    return {one.name: content[one.name] for one in fields(kind) if one.name in content}


def _is_whole(value: object, least: int, most: float = math.inf) -> bool:
    return type(value) is int and least <= value <= most


def _is_list(value: object, is_right: Callable[[Any], bool], length: int | None = None) -> bool:
    return isinstance(value, list) and length in (None, len(value)) and all(map(is_right, value))


def _is_number(value: object) -> bool:
    # Not isinstance, of which a Boolean is a number; NaN is not below.
    return type(value) in (int, float) and abs(cast(float, value)) < 2**64


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_resize(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    kind, methods = value.get('kind'), [one.name.lower() for one in Image.Resampling]
    if kind == 'stretch':
        return _is_list(value.get('scale'), lambda side: _is_whole(side, 1, MAX_SIDE), 2)
    if kind == 'fit':  # some give an infinite side
        scale = cast(list[float], value.get('scale'))
        sides = _is_list(scale, lambda side: type(side) in (int, float) and side >= 1, 2)
        return sides and min(scale) <= MAX_SIDE and _is_whole(value.get('multiple', 1), 1, MAX_SIDE)
    sides = _is_whole(value.get('short'), 1, MAX_SIDE) and _is_whole(value.get('size'), 1, MAX_SIDE)
    return kind == 'crop' and sides and value.get('interpolation') in (*methods, 'opencv')


def _is_palette(value: object) -> bool:
    return _is_list(value, lambda colour: _is_list(colour, lambda part: _is_whole(part, 0, 255), 3))


def _is_shape(value: object) -> bool:
    is_pair = _is_list(value, lambda side: _is_whole(side, 1, MAX_SIDE), 2)
    return is_pair and math.prod(cast(list[int], value)) <= MAX_PIXELS


def _choice(*values: str) -> tuple[Callable[[object], bool], str]:
    return lambda value: _is_text(value) and value in values, f'one of {", ".join(values)}'


_NUMBERS = (lambda value: _is_list(value, _is_number) and 0 < len(value) <= MAX_SIDE, 'a list of numbers')
_BOOL = (lambda value: isinstance(value, bool), 'true or false')
_TEXT = (_is_text, 'a text')
_TEXTS = (lambda value: _is_list(value, _is_text), 'a list of texts')
_NAMES = (
    lambda value: _is_list(value, _is_text) and 0 < len(value) == len(set(value)),
    'a list of different names',
)
_NOTES = (
    lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
    'an object of texts',
)
# What each value of a description has to be.
_CHECKS = dict(
    task=_choice(*TASKS),
    method=_TEXT,
    shape=(_is_shape, f'height and width of at most {MAX_PIXELS} pixels'),
    dynamic=_choice('none', 'batch', 'all'),
    takes_batches=_BOOL,
    precision=_TEXT,
    computed_in=_choice('f32', 'bf16'),
    normalized_inside=_BOOL,
    mean=_NUMBERS,
    std=(lambda value: _is_list(value, lambda x: _is_number(x) and x > 0), 'a list of positive numbers'),
    is_bgr=_BOOL,
    reads=_choice('color', 'grayscale', 'unchanged'),
    in_range=(
        lambda value: value == [] or (_is_list(value, _is_number, 2) and value[0] < value[1]),
        'nothing, or a lower and a higher number',
    ),
    padding=_NUMBERS,
    clipped_to=_choice('content', 'shape'),
    divisor=(lambda value: _is_whole(value, 1, MAX_SIDE), f'a number from 1 to {MAX_SIDE}'),
    resize=(_is_resize, 'fit or stretch with a scale, or crop with short, size and interpolation'),
    classes=_TEXTS,
    palette=(_is_palette, 'a list of RGB colours'),
    mask_threshold=(_is_number, 'a number'),
    checkpoint=_NOTES,
    packages=_NOTES,
    inputs=_NAMES,
    outputs=_NAMES,
)


# Values that descriptions of version 1 have not.
_ADDED = ('reads', 'in_range')


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'


def _damaged(path: Path, reason: str) -> RuntimeProblem:
    return RuntimeProblem(f"the description in '{path}' is damaged: {reason}; export the network again")


@dataclass
class Prediction:
    """What a network says of an image.

    Attributes:
        boxes (np.ndarray): Of objects, ``(N, 4)``: left, top, right, bottom in pixels of the image.
        scores (np.ndarray): Of objects, ``(N,)``, the best first; of a classifier the probability of each
            class.
        labels (np.ndarray): Numbers of the objects' classes, ``(N,)``; of a segmentor those of the pixels,
            ``(height, width)``.
        masks (np.ndarray | None): Of objects, ``(N, height, width)``, if the network gives some.
        outputs (dict[str, np.ndarray]): What the network gave, as it is.
    """

    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    masks: np.ndarray | None = None
    outputs: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Prepared:
    """An image as the network takes it.

    Attributes:
        image (np.ndarray): ``(3, H, W)``, float32.
        content (tuple[int, int]): Height and width of what the image was resized to.
        size (tuple[int, int]): Those that the network is told: without the padding, unless a pipeline pads.
        original (tuple[int, int]): Height and width of the image.
    """

    image: np.ndarray
    content: tuple[int, int]
    size: tuple[int, int]
    original: tuple[int, int]


class Network:
    """An exported network, which may serve several threads.

    Args:
        path (str | Path): Its file: ``.onnx``, ``.xml`` with its ``.bin`` beside it, or ``.pt2``, which takes
            PyTorch.
        engine (str | None): ``'onnxruntime'`` or ``'openvino'``. Defaults to None: that of the file, for
            ``.onnx`` the first of the two that is installed.
        threads (int): Threads. Defaults to 0: as the engine has it.
        providers (Sequence[str]): Execution providers of ONNX Runtime. Defaults to the CPU's.
        trusted (bool): Whether the file may execute code, which PyTorch does when it reads a ``.pt2``.
            Defaults to False: such files are refused.

    Attributes:
        description (Description): What the file says of the network: ``task``, ``classes``, ``shape`` and
            more.

    Raises:
        RuntimeProblem: The file cannot be run.
    """

    def __init__(
        self,
        path: str | Path,
        engine: str | None = None,
        threads: int = 0,
        providers: Sequence[str] = ('CPUExecutionProvider',),
        trusted: bool = False,
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise RuntimeProblem(f"there is no file '{path}': give the one that was exported")
        self.engine = engine or _engine_of(self.path)
        if self.path.suffix not in ENGINES.get(self.engine, ()):
            raise RuntimeProblem(
                f"engine '{self.engine}' does not run '{path}': take one of "
                f'{", ".join(name for name, suffixes in ENGINES.items() if self.path.suffix in suffixes)}'
            )
        if threads < 0:
            raise RuntimeProblem(f'threads={threads}: give a positive number, or 0 for as many as there are')
        if self.engine == 'torch' and not trusted:
            raise RuntimeProblem(
                f"PyTorch executes code that is in '{path}' when it reads it: if you trust who wrote the "
                'file, give --trust-file or trusted=True; else export to .onnx, which holds no code'
            )
        open_it = dict(onnxruntime=_open_onnxruntime, openvino=_open_openvino, torch=_open_torch)
        self._run, self.description = open_it[self.engine](self.path, threads, tuple(providers))

    def __repr__(self) -> str:
        description = self.description
        return (
            f'{description.method} ({description.task}, {description.precision}) of {self.path} in '
            f'{self.engine}'
        )

    def run(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs of the network by name, as arrays of their own.

        Args:
            inputs (np.ndarray): By name.

        Raises:
            RuntimeProblem: The network does not take these, or gives what its task does not.
        """
        description = self.description
        try:
            arrays = self._run(inputs)
        except Exception as error:  # of many kinds, which have no common base
            shapes = ', '.join(f'{name} of {"x".join(map(str, x.shape))}' for name, x in inputs.items())
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
            raise RuntimeProblem(
                f"'{self.path}', exported for {description.shape[0]}x{description.shape[1]} with "
                f"dynamic='{description.dynamic}', does not run with {shapes}: {reason}"
            ) from error
        outputs = dict(zip(description.outputs, arrays, strict=True))
        problem = _find_problem(outputs, inputs, description)
        if problem:
            raise RuntimeProblem(f"the network in '{self.path}' is damaged: it gives {problem}")
        return outputs

    def warm_up(self, times: int = 2) -> None:
        """Run it on an image of the size that it was exported for."""
        height, width = self.description.shape
        for _ in range(times):
            self.predict([np.zeros((height, width, len(self.description.mean)), np.uint8)])

    def read(self, image: np.ndarray | str | Path) -> np.ndarray:
        """Read an image as the network's own pipeline does.

        Args:
            image (np.ndarray | str | Path): A file, or an array of what is to be read, which is checked.

        Returns:
            np.ndarray: ``(height, width, channels)``, red first.

        Raises:
            RuntimeProblem: It cannot be read, or an array is of another type or shape.
        """
        reads, channels = self.description.reads, len(self.description.mean)
        if isinstance(image, (str, Path)):
            return (
                read_pixels(image, channels) if reads == 'unchanged' else read_image(image, reads == 'color')
            )
        types = READ if reads == 'unchanged' else ('uint8',)
        if image.ndim != 3 or image.shape[2] != channels or image.dtype not in types or not image.size:
            raise RuntimeProblem(
                f'an image of shape {tuple(image.shape)} and type {image.dtype}: give (height, width, '
                f'{channels}) of {" or ".join(types)}'
            )
        return image

    def prepare(self, image: np.ndarray) -> Prepared:
        """Resize, pad and, where the file does not do so itself, normalise an image.

        Args:
            image (np.ndarray): As :meth:`read` returns it.
        """
        description = self.description
        if description.reads == 'unchanged':
            image = rescale(image, description.in_range or None)
        resized = _resize(image, description)
        content = height, width = resized.shape[:2]
        shape = tuple(description.shape)
        if description.dynamic == 'all':
            shape = tuple(-(-side // description.divisor) * description.divisor for side in content)
            _check_pixels(shape, image)
        padded = np.empty((*shape, image.shape[2]), np.float32)
        padded[...] = np.asarray(description.padding, np.float32)
        padded[:height, :width] = resized
        ready = padded.transpose(2, 0, 1)
        if not description.normalized_inside:
            ready = normalize(ready, description)
        size = (shape[0], shape[1]) if description.clipped_to == 'shape' else content
        return Prepared(np.ascontiguousarray(ready), content, size, (image.shape[0], image.shape[1]))

    def inputs(self, batch: Sequence[Prepared]) -> dict[str, np.ndarray]:
        """What the network takes for images of one size, by name."""
        description = self.description
        inputs = dict(image=np.stack([one.image for one in batch]))
        if 'size' in description.inputs:
            kind = np.float32 if description.task == 'detection' else np.int64
            inputs['size'] = np.array(batch[0].size, kind)
        if 'original' in description.inputs:
            inputs['original'] = np.array(batch[0].original, np.int64)
        return inputs

    def predict(self, images: Sequence[np.ndarray | str | Path], batch_size: int = 1) -> list[Prediction]:
        """Predict.

        Args:
            images (Sequence): Files, or arrays ``(height, width, channels)``, red first, of uint8 unless the
                network reads images as they are stored.
            batch_size (int): Images of one size that are run at once, where the file allows it. Defaults
                to 1.

        Raises:
            RuntimeProblem: An image cannot be read, or the file does not take batches.
        """
        description = self.description
        if batch_size < 1 or (batch_size > 1 and not description.takes_batches):
            raise RuntimeProblem(
                f'batch_size={batch_size}: {self.path} takes one image at a time'
                if batch_size > 1
                else f'batch_size={batch_size}: give a positive number'
            )
        prepared = (self.prepare(self.read(image)) for image in images)
        predictions = []
        for batch in _batches(prepared, batch_size):
            outputs = self.run(**self.inputs(batch))
            for i, one in enumerate(batch):
                predictions.append(_read_outputs(outputs, i, one, description))
        return predictions


def load(
    path: str | Path,
    engine: str | None = None,
    threads: int = 0,
    providers: Sequence[str] = ('CPUExecutionProvider',),
    trusted: bool = False,
) -> Network:
    """Open an exported file; see :class:`Network` for the arguments and errors."""
    return Network(path, engine, threads, providers, trusted)


def _engine_of(path: Path) -> str:
    known = [name for name, suffixes in ENGINES.items() if path.suffix in suffixes]
    if not known:
        raise RuntimeProblem(f"'{path}' is no exported file: those end in .onnx, .xml or .pt2")
    installed = [name for name in known if find_spec(name)]
    if not installed:
        raise RuntimeProblem(
            f"'{path}' needs {' or '.join(known)}, which is not installed: pip install {known[0]}"
        )
    return installed[0]


def _import(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise RuntimeProblem(f'{name} is not installed: pip install {name}') from error


Run = Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]]
# Names of inputs or outputs and their numbers of axes, None where the file does not say it.
Axes = dict[str, int | None]


def _open_onnxruntime(path: Path, threads: int, providers: tuple[str, ...]) -> tuple[Run, Description]:
    engine = _import('onnxruntime')
    options = engine.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = engine.InferenceSession(path, options, providers=list(providers))
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
    except Exception as error:  # of many kinds, which have no common base
        raise _cannot_open(path, 'ONNX Runtime', engine.__version__, error) from error
    description = Description.read(text, path)
    _check_ends(
        path,
        description,
        {one.name: len(one.shape) or None for one in session.get_inputs()},
        {one.name: len(one.shape) or None for one in session.get_outputs()},
    )
    return lambda inputs: session.run(description.outputs, inputs), description


def _open_openvino(path: Path, threads: int, providers: tuple[str, ...]) -> tuple[Run, Description]:
    engine = _import('openvino')
    core = engine.Core()
    try:
        model = core.read_model(path)
        places = [place for place in ([KEY], ['framework', KEY]) if model.has_rt_info(place)]
        text = model.get_rt_info(places[0]).astype(str) if places else None
    except (RuntimeError, UnicodeError) as error:
        raise _cannot_open(path, 'OpenVINO', engine.__version__, error) from error
    description = Description.read(text, path)
    # Left alone, OpenVINO computes in bfloat16 wherever the processor can.
    options: dict[str, str | int] = dict(
        INFERENCE_PRECISION_HINT=description.computed_in, PERFORMANCE_HINT='LATENCY'
    )
    if threads:
        options['INFERENCE_NUM_THREADS'] = threads
    try:
        compiled = core.compile_model(model, 'CPU', options)
    except RuntimeError as error:
        raise _cannot_open(path, 'OpenVINO', engine.__version__, error) from error
    _check_ends(
        path,
        description,
        _axes_in_openvino(compiled.inputs, description.inputs),
        _axes_in_openvino(compiled.outputs, description.outputs),
    )
    idle: list[Any] = []  # infer requests: each computes for one thread at a time, and holds its results

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        results = request.infer(inputs)
        outputs = [results[name].copy() for name in description.outputs]
        idle.append(request)
        return outputs

    return run, description


def _axes_in_openvino(ports: Sequence[Any], names: Sequence[str]) -> Axes:
    """Return the axes of ports, each by that of its names which is in a description."""
    axes = {}
    for port in ports:
        rank = port.partial_shape.rank
        name = min(port.names & {*names} or port.names, default='')
        axes[name] = rank.get_length() if rank.is_static else None
    return axes


def _open_torch(path: Path, threads: int, providers: tuple[str, ...]) -> tuple[Run, Description]:
    torch = _import('torch')
    _import('torchvision')  # registers its operators
    if threads:
        torch.set_num_threads(threads)
    extra = {f'{KEY}.json': ''}
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f'the checksum of {damaged} is another')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of buffers that are only read
            program = torch.export.load(path, extra_files=extra)
            network = program.module()
    except Exception as error:  # of many kinds
        raise _cannot_open(path, 'PyTorch', torch.__version__, error) from error
    description = Description.read(extra[f'{KEY}.json'], path)
    signature = program.graph_signature
    for what, given, own in (
        ('inputs', signature.user_inputs, description.inputs),
        ('outputs', signature.user_outputs, description.outputs),
    ):
        if len(given) != len(own):
            raise _damaged(path, f'{what} are {_shortened(own)}, and the network has {len(given)}')

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            tensors = [torch.from_numpy(inputs[name]) for name in description.inputs]
            return [out.numpy() for out in network(*tensors)]

    return run, description


def _check_ends(path: Path, description: Description, inputs: Axes, outputs: Axes) -> None:
    """Check that a network has the inputs and outputs that its description names."""
    axes = TASKS[description.task]
    for what, given, own, expected in (
        ('inputs', inputs, description.inputs, dict(image=4, size=1, original=1)),
        ('outputs', outputs, description.outputs, axes or dict.fromkeys(description.outputs, 4)),
    ):
        if {*given} != {*own}:
            raise _damaged(path, f'{what} are {_shortened(own)}, and the network has {_shortened([*given])}')
        for name in own:
            if given[name] not in (None, expected[name]):
                raise _damaged(path, f'{name} of the network has {given[name]} axes, not {expected[name]}')


def _find_problem(
    outputs: dict[str, np.ndarray], inputs: dict[str, np.ndarray], description: Description
) -> str | None:
    """Return what is wrong with outputs, which nothing has checked in a damaged or hostile file."""
    axes, count = TASKS[description.task], len(inputs['image'])
    for name, value in outputs.items():
        expected = axes.get(name, 4)
        if value.ndim != expected:
            return f'{name} with {value.ndim} axes, not {expected}'
        if description.task != 'detection' and len(value) != count:
            return f'{name} of {len(value)} images, not {count}'
        kinds = 'iu' if name == 'labels' else 'f'
        if value.dtype.kind not in kinds:
            return f'{name} of type {value.dtype}'
    if description.task == 'segmentation' and 'labels' in outputs:
        labels, size = outputs['labels'], tuple(inputs['original'].tolist())
        if labels.shape[1:] != size:
            return f'labels of {labels.shape[1:]} pixels, not {size}'
        return f'label {labels.min()}' if labels.min() < 0 else None
    if description.task == 'classification':
        probabilities = outputs['probabilities']
        if description.classes and probabilities.shape[1] != len(description.classes):
            return f'{probabilities.shape[1]} probabilities for {len(description.classes)} classes'
        return None if np.isfinite(probabilities).all() else 'probabilities that are not finite'
    if description.task == 'detection':
        kept = outputs['labels'] >= 0
        lengths = {len(value) for value in outputs.values()}
        if len(lengths) != 1 or outputs['boxes'].shape[1] != 4:
            return 'boxes, scores and labels of different lengths'
        boxes, scores = outputs['boxes'][kept], outputs['scores'][kept]
        if not (np.abs(boxes) < MAX_PIXELS).all() or not np.isfinite(scores).all():
            return 'boxes or scores that are not finite'
    return None


def _cannot_open(path: Path, engine: str, version: str, error: Exception) -> RuntimeProblem:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return RuntimeProblem(f"{engine} {version} cannot open '{path}': {reason[-1][:300]}")


@dataclass(frozen=True)
class Stored:
    """How an image file stores its pixels, as its header says.

    Attributes:
        size (tuple[int, int]): Height and width, before EXIF turns it.
        channels (int): Channels of a pixel; 3 of a palette.
        dtype (str): Type of the values as NumPy names it, such as ``'uint16'``.
        has_alpha (bool): Whether the last channel is transparency.
        orientation (int): As EXIF numbers it; 1 is upright.
        readers (tuple[str, ...]): Packages that read exactly this, the first that is installed is taken.
    """

    size: tuple[int, int]
    channels: int
    dtype: str
    has_alpha: bool = False
    orientation: int = 1
    readers: tuple[str, ...] = ('PIL',)

    @property
    def is_ordinary(self) -> bool:
        """Whether nothing is lost where it is read as 8 bits of red, green and blue."""
        return self.dtype == 'uint8' and self.channels - self.has_alpha in (1, 3)

    def __str__(self) -> str:
        alpha = ', the last of them transparency' if self.has_alpha else ''
        return f'{self.channels} channel{"s" * (self.channels > 1)} of {self.dtype}{alpha}'


# Channels of Pillow's modes, and whether the last is transparency.
_MODES = {'1': (1, False), 'L': (1, False), 'LA': (2, True), 'RGBA': (4, True), 'RGBX': (4, False)}
# Types of its modes that have not 8 bits; those of 32 bits are labels, or have a range that nothing says.
_DEEP = {
    'I;16': 'uint16',
    'I;16B': 'uint16',
    'I;16L': 'uint16',
    'I;16N': 'uint16',
    'I': 'int32',
    'F': 'float32',
}
# Types that are read; a float32 holds all of their values.
READ = ('uint8', 'uint16', 'int16', 'float32')
# Tags of a TIFF file.
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT = (
    256,
    257,
    258,
    262,
    277,
    284,
    338,
    339,
)
_SUBFILE, _ORIENTATION = 254, 274


def stored_as(path: str | Path) -> Stored:
    """Read from a file's header how it stores its pixels; nothing is decoded.

    Args:
        path (str | Path): The file. Depth is known of PNG and TIFF; of other formats it is 8 bits.

    Raises:
        RuntimeProblem: There is no such file, it is damaged or not an image, has more than
            :data:`MAX_PIXELS`, or several pages.
    """
    with _named(path), open(path, 'rb') as file:
        start = file.read(32)
        file.seek(0)
        if start[:4] in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
            stored = _stored_in_tiff(file, path)
        else:
            stored = _stored_in(file, start)
        # As many values as an image of four channels may have.
        _check_pixels((*stored.size, max(stored.channels / 4, 1)), path)
    return stored


def _stored_in(file: BinaryIO, start: bytes) -> Stored:
    with Image.open(file) as image:
        channels, has_alpha = _MODES.get(image.mode, (1 if image.mode in _DEEP else 3, False))
        dtype, readers = _DEEP.get(image.mode, 'uint8'), ('PIL',)
        if image.format == 'PNG' and start[24] == 16:  # bits, of which Pillow keeps 8 in colours
            dtype = 'uint16'
            if start[25]:
                channels, has_alpha = {2: (3, False), 4: (2, True), 6: (4, True)}[start[25]]
                readers = ('cv2',)
        size = image.size[::-1]
        return Stored(size, channels, dtype, has_alpha, image.getexif().get(_ORIENTATION, 1), readers)


def _stored_in_tiff(file: BinaryIO, path: str | Path) -> Stored:
    # Pillow has no mode for several channels of 16 bits or for a fourth that is not transparency; OpenCV is
    # wrong about channels that are not colours, and about those stored one after the other.
    header = file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(header + (file.read(8) if header[2] == 43 else b''))
    pages: list[dict[int, Any]] = []
    seen: set[int] = set()
    while tags.next:
        if tags.next in seen:
            raise ValueError('a page follows itself')
        seen.add(tags.next)
        file.seek(tags.next)
        tags.load(file)
        if _WIDTH not in tags:
            raise ValueError('a page has no width')
        if not tags.get(_SUBFILE, 0) & 5:  # of smaller copies and masks
            pages.append(dict(tags))
    if len(pages) != 1:
        raise RuntimeProblem(
            f"'{path}' has {len(pages)} pages, and one is read: save them as channels of one, or as files"
        )
    (page,) = pages
    channels, kinds, bits = page.get(_SAMPLES, 1), {*page.get(_FORMAT, (1,))}, {*page.get(_BITS, (1,))}
    if len(bits) != 1 or len(kinds) != 1:
        raise RuntimeProblem(f"'{path}' has channels of several types: save it with one")
    (depth,), (kind,) = bits, kinds
    dtype = {2: 'int', 3: 'float'}.get(kind, 'uint') + str(max(depth, 8))
    photometric, extra = page.get(_PHOTOMETRIC, 1), page.get(_EXTRA, ())
    is_colour = photometric == 2 and channels in (3, 4)
    is_single = channels == 1 and (depth <= 8 or dtype in ('uint16', 'float32', 'int32'))
    readers: tuple[str, ...] = ('tifffile',)
    if photometric == 3 or (photometric, channels) in ((5, 4), (6, 3)):
        channels, readers = 3, ('PIL',)  # a palette, or the colours of printing and of JPEG
    elif is_single or (is_colour and depth == 8 and (channels == 3 or extra in ((1,), (2,)))):
        readers = ('PIL',)
    elif is_colour and page.get(_PLANAR, 1) == 1 and dtype in ('uint8', 'uint16', 'float32'):
        readers = ('cv2', 'tifffile')
    size = page[_HEIGHT], page[_WIDTH]
    return Stored(size, channels, dtype, extra[-1:] in ((1,), (2,)), page.get(_ORIENTATION, 1), readers)


def read_pixels(path: str | Path, channels: int | None = None) -> np.ndarray:
    """Read an image as it is stored, turned as its EXIF tag says.

    Args:
        path (str | Path): The file: PNG up to 16 bits, TIFF up to 16 bits and float32, and formats of 8 bits.
        channels (int | None): How many it has to have; transparency beyond that is left out. Defaults to
            None: all that are there.

    Returns:
        np.ndarray: ``(height, width, channels)``, red first, of a type in :data:`READ`.

    Raises:
        RuntimeProblem: There is no such file, it is damaged, of other channels or another type, has more than
            :data:`MAX_PIXELS`, or is read by a package that is not installed.
    """
    return _read_stored(path, stored_as(path), channels)


def _read_stored(path: str | Path, stored: Stored, channels: int | None) -> np.ndarray:
    if stored.dtype not in READ:
        raise RuntimeProblem(f"'{path}' has {stored}: save it as one of {', '.join(READ)}")
    if channels not in (None, stored.channels, stored.channels - stored.has_alpha):
        raise RuntimeProblem(
            f"'{path}' has {stored}, and {channels} are read: give images like those of training"
        )
    installed = [name for name in stored.readers if name == 'PIL' or find_spec(name)]
    if not installed:
        install = dict(cv2='opencv-python-headless', tifffile='tifffile imagecodecs')[stored.readers[-1]]
        raise RuntimeProblem(f"'{path}' has {stored}, which Pillow does not read: pip install {install}")
    with _named(path):
        pixels = dict(PIL=_read_pillow, cv2=_read_opencv, tifffile=_read_tifffile)[installed[0]](path)
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if pixels.shape[:2] != stored.size or pixels.dtype != stored.dtype:
            raise ValueError(f'{pixels.dtype} of {pixels.shape}')
        if pixels.shape[2] > stored.channels:  # OpenCV writes grey with transparency as four
            pixels = pixels[..., [*range(stored.channels - 1), -1]]
    pixels = pixels[..., :channels]
    if stored.orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if stored.orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if stored.orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _read_pillow(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        image.load()
        image.info.pop('transparency', None)  # of a palette, which Pillow would warn of
        if image.mode not in _DEEP:
            image = image.convert({'1': 'L'}.get(image.mode, image.mode if image.mode in _MODES else 'RGB'))
        pixels = np.asarray(image)
        # In the byte order of the machine; and of PNG's 16 bits older ones of Pillow make 32.
        return pixels.astype(np.uint16) if pixels.dtype.kind in 'ui' and pixels.itemsize > 1 else pixels


def _read_opencv(path: str | Path) -> np.ndarray:
    cv2 = _import('cv2')
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError('OpenCV cannot read it')
    return pixels[..., [2, 1, 0, 3][: pixels.shape[2]]] if pixels.ndim == 3 else pixels


def _read_tifffile(path: str | Path) -> np.ndarray:
    with _import('tifffile').TiffFile(path) as file:
        page = file.pages[0]
        try:
            pixels = page.asarray()
        except ValueError as error:
            if 'imagecodecs' not in str(error):
                raise
            codec = page.compression.name
            raise RuntimeProblem(f"'{path}' is compressed by {codec}: pip install imagecodecs") from error
        return np.moveaxis(pixels, page.axes.index('S'), -1) if 'S' in page.axes else pixels


def rescale(pixels: np.ndarray, in_range: Sequence[float] | None) -> np.ndarray:
    """Return pixels as networks that read images unchanged take them.

    Args:
        pixels (np.ndarray): As :func:`read_pixels` returns them.
        in_range (Sequence[float] | None): Values that become 0 and 255, beyond which they are clipped; None
            to leave them as they are.

    Returns:
        np.ndarray: uint8 of 8 bits or with a range, else float32.
    """
    if in_range is None:
        return pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)
    low, high = in_range
    scaled = (np.clip(pixels.astype(np.float32), low, high) - low) * np.float32(255 / (high - low))
    return np.rint(scaled).astype(np.uint8)


def to_picture(pixels: np.ndarray) -> np.ndarray:
    """Return pixels of any channels and type as a picture for people, RGB of 8 bits.

    Args:
        pixels (np.ndarray): ``(height, width, channels)``; the first three are shown, or one as grey. What is
            not of 8 bits is stretched between its 2nd and 98th percentile.
    """
    shown = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, 2)
    if shown.dtype == np.uint8:
        return shown
    low, high = np.percentile(shown, (2, 98))
    return rescale(shown, (low, max(high, low + 1e-6)))


def read_image(path: str | Path, in_colour: bool = True) -> np.ndarray:
    """Read an image of 8 bits as MMCV does, turned as its EXIF tag says.

    Args:
        path (str | Path): The file. Transparency is left out.
        in_colour (bool): Whether the image is read as colours, red first. Defaults to True; else as grey,
            which of colours is within a level of what MMCV has.

    Returns:
        np.ndarray: ``(height, width, channels)``, of three channels or one, uint8.

    Raises:
        RuntimeProblem: There is no such file, it is damaged or not an image, has more than 8 bits, channels
            beside red, green and blue, or more than :data:`MAX_PIXELS`.
    """
    stored = stored_as(path)
    if not stored.is_ordinary:
        raise RuntimeProblem(
            f"'{path}' has {stored}, and 8 bits of red, green and blue are read: save it as those, or train "
            'on images as they are stored (mmmeta.LoadUnchangedImage)'
        )
    pixels = _read_stored(path, stored, stored.channels - stored.has_alpha)
    if in_colour:
        return pixels.repeat(3, 2) if pixels.shape[2] == 1 else pixels
    return pixels if pixels.shape[2] == 1 else np.asarray(Image.fromarray(pixels).convert('L'))[..., None]


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Name the file in errors of reading it."""
    try:
        yield
    except FileNotFoundError as error:
        raise RuntimeProblem(f"there is no image '{path}'") from error
    except Image.DecompressionBombError as error:
        raise RuntimeProblem(f"'{path}' has more than {MAX_PIXELS} pixels: cut it into parts") from error
    except DAMAGE as error:
        raise RuntimeProblem(f"'{path}' is damaged or not an image: give another one") from error


def _check_pixels(size: Sequence[float], image: str | Path | np.ndarray) -> None:
    """Check that an image, as it is or resized, fits into memory.

    Args:
        size (Sequence[float]): Height and width.
        image (str | Path | np.ndarray): The file, or the array that would be resized.
    """
    if math.prod(size) <= MAX_PIXELS:
        return
    if isinstance(image, (str, Path)):
        raise RuntimeProblem(f"'{image}' has more than {MAX_PIXELS} pixels: cut it into parts")
    raise RuntimeProblem(
        f'an image of {image.shape[0]}x{image.shape[1]} would be resized to {size[0]}x{size[1]}, more than '
        f'{MAX_PIXELS} pixels: cut it into parts that are less elongated'
    )


def normalize(image: np.ndarray, description: Description) -> np.ndarray:
    """Normalise an image, ``(C, H, W)``, as in training, with blue first where the network wants that."""
    mean, std = (np.asarray(one, np.float32)[:, None, None] for one in (description.mean, description.std))
    return ((image[::-1] if description.is_bgr else image) - mean) / std


def _resize(image: np.ndarray, description: Description) -> np.ndarray:
    """Resize as the network's own pipeline does, and so that it fits into the file's shape."""
    how, (high, wide) = description.resize, description.shape
    height, width = image.shape[:2]
    if isinstance(how, Crop):
        return _crop(image, how, (high, wide))
    fixed = description.dynamic != 'all'
    size: Sequence[int]
    if isinstance(how, Stretch):
        size = (high, wide) if fixed else how.scale[::-1]
    elif description.task == 'features' and not fixed:
        size = height, width
    else:
        factor = min(max(how.scale) / max(height, width), min(how.scale) / min(height, width))
        if fixed:
            factor = min(factor, high / height, wide / width)
        size = tuple(max(int(side * factor + 0.5), 1) for side in (height, width))
    rounded = tuple(-(-side // how.multiple) * how.multiple for side in size)
    _check_pixels(rounded, image)
    return resize_bilinear(resize_bilinear(image, size), rounded)


def _crop(image: np.ndarray, how: Crop, shape: tuple[int, int]) -> np.ndarray:
    """Resize the short side with Pillow, and take the centre."""
    height, width = image.shape[:2]
    short = how.short
    if height < width:
        size = (int(short * width / height), short)
    else:
        size = (short, int(short * height / width))
    _check_pixels(size[::-1], image)
    if how.interpolation == 'opencv':
        resized = resize_bilinear(image, size[::-1])
    else:
        method = getattr(Image.Resampling, how.interpolation.upper())
        resized = np.asarray(
            Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).resize(size, method)
        )
        resized = resized.reshape(*resized.shape[:2], image.shape[2])
    top, left = (
        max(0, round((side - kept) / 2)) for side, kept in zip(resized.shape[:2], shape, strict=True)
    )
    return resized[top : top + shape[0], left : left + shape[1]]


def resize_bilinear(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize between the nearest four pixels, in the arithmetic of OpenCV's ``INTER_LINEAR``.

    Args:
        image (np.ndarray): ``(height, width, channels)``, uint8, for which it is fixed-point, or float32.
        size (Sequence[int]): Height and width.
    """
    if image.shape[:2] == tuple(size):
        return image
    if image.dtype != np.uint8:
        for axis in (1, 0):
            left, right = _weighted_neighbours(image, axis, size[axis])
            image = left + right
        return image
    if image.shape[2] not in (1, 3, 4) and image.shape[:2] == (2 * size[0], 2 * size[1]):
        # OpenCV has another rounding for halves of these.
        blocks = image.reshape(size[0], 2, size[1], 2, -1)
        return np.rint(blocks.sum((1, 3), dtype=np.int32) / 4).astype(np.uint8)
    left, right = _weighted_neighbours(image.astype(np.int32), 1, size[1])
    top, bottom = _weighted_neighbours((left + right) >> 4, 0, size[0])
    return (((top >> 16) + (bottom >> 16) + 2) >> 2).astype(np.uint8)


def _weighted_neighbours(pixels: np.ndarray, axis: int, target: int) -> list[np.ndarray]:
    """Return both neighbours of each position along an axis, times their weights, of integers in 1/2048."""
    source = pixels.shape[axis]
    place = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    low = np.floor(place)
    weight = place - low
    if axis == 1:  # outside of the centres OpenCV takes the nearest column, but weights rows all the same
        weight[(low < 0) | (low >= source - 1)] = 0
    low = low.astype(np.int64)
    shape = [-1 if i == axis else 1 for i in range(pixels.ndim)]
    weights = [part.reshape(shape) for part in (1 - weight, weight)]
    if pixels.dtype.kind == 'i':
        weights = [np.rint(part * np.float32(2048)).astype(np.int32) for part in weights]
    return [pixels.take((low + i).clip(0, source - 1), axis) * part for i, part in enumerate(weights)]


def _batches(prepared: Iterable[Prepared], size: int) -> Iterator[list[Prepared]]:
    """Yield images beside each other that may be run together, as they are prepared."""
    for _, alike in itertools.groupby(prepared, lambda one: (one.image.shape, one.size, one.original)):
        while batch := list(itertools.islice(alike, size)):
            yield batch


def _read_outputs(
    outputs: dict[str, np.ndarray], i: int, prepared: Prepared, description: Description
) -> Prediction:
    """The prediction for one image of a batch."""
    if description.task == 'detection':
        return _read_objects(outputs, prepared, description)
    own = {name: value[i] for name, value in outputs.items()}
    if description.task == 'classification':
        return Prediction(scores=own['probabilities'], outputs=own)
    if 'labels' in own:
        return Prediction(labels=own['labels'], outputs=own)
    return Prediction(outputs=own)


def _read_objects(outputs: dict[str, np.ndarray], prepared: Prepared, description: Description) -> Prediction:
    """Objects in pixels of the original image."""
    kept = outputs['labels'] >= 0
    (height, width), (high, wide) = prepared.original, prepared.content
    scale = np.array([wide / width, high / height] * 2, np.float32)
    boxes = outputs['boxes'][kept] / scale
    prediction = Prediction(boxes, outputs['scores'][kept], outputs['labels'][kept], outputs=outputs)
    if 'masks' in outputs:
        small = outputs['masks'][kept]
        masks = np.zeros((len(boxes), height, width), bool)
        for mask, one, box in zip(masks, small, boxes, strict=True):
            paste_mask(mask, one, box, description.mask_threshold)
        prediction.masks = masks
    return prediction


def paste_mask(canvas: np.ndarray, mask: np.ndarray, box: np.ndarray, threshold: float) -> None:
    """Draw the mask of a box into an image, between the nearest four values and zero outside.

    Args:
        canvas (np.ndarray): ``(height, width)``, boolean, all False; in place.
        mask (np.ndarray): Probabilities inside the box, ``(h, w)``.
        box (np.ndarray): Left, top, right, bottom in pixels.
        threshold (float): Smallest probability of what is the object.
    """
    left, top, right, bottom = (np.float32(value) for value in box)
    if right <= left or bottom <= top:
        return
    parts, weights = [], []
    for low, high, cells, pixels in (
        (top, bottom, mask.shape[0], canvas.shape[0]),
        (left, right, mask.shape[1], canvas.shape[1]),
    ):
        first = max(math.floor(low) - 1, 0)
        last = min(math.ceil(high) + 1, pixels)
        if last <= first:
            return
        parts.append(slice(first, last))
        centres = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
        place = (centres - low) / (high - low) * np.float32(cells) - np.float32(0.5)
        weights.append(np.maximum(1 - np.abs(place[:, None] - np.arange(cells, dtype=np.float32)), 0))
    canvas[tuple(parts)] = weights[0] @ mask @ weights[1].T >= threshold


def encode_mask(mask: np.ndarray) -> dict[str, list[int]]:
    """Encode a mask as uncompressed RLE, COCO's format for crowds.

    Args:
        mask (np.ndarray): Boolean, ``(H, W)``.

    Returns:
        dict: ``size``, (H, W), and ``counts``: lengths of runs down the columns, the first of zeros.
    """
    values = np.concatenate([[0], mask.ravel(order='F').astype(np.int8), [-1]])
    ends = np.flatnonzero(np.diff(values))
    return dict(size=list(mask.shape), counts=np.diff(ends, prepend=0).tolist())


def colour_of(label: int, description: Description) -> tuple[int, int, int]:
    """Return the colour of a class: that of its palette, or one of its own."""
    if label < len(description.palette):
        red, green, blue = description.palette[label]
    else:
        red, green, blue = np.random.default_rng(label).integers(40, 230, 3).tolist()
    return red, green, blue


def name_of(label: int, description: Description) -> str:
    """Return the name of a class."""
    classes = description.classes
    return classes[label] if label < len(classes) else f'class {label}'


def scale_of(height: int, width: int) -> int:
    """How many times a picture has to be enlarged to have :data:`LEAST` pixels on its longer side."""
    return -(-LEAST // max(height, width))


def enlarge(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Show each pixel as a square.

    Args:
        pixels (np.ndarray): ``(H, W)`` or ``(H, W, C)``.
        scale (int): Side of the squares in pixels.
    """
    return pixels.repeat(scale, 0).repeat(scale, 1)


def draw(
    image: np.ndarray, prediction: Prediction, description: Description, score_thr: float
) -> Image.Image:
    """Draw objects, or the labels of pixels, over an image, enlarged to :data:`LEAST` pixels.

    Args:
        image (np.ndarray): ``(height, width, channels)``, of any type; see :func:`to_picture`.
        prediction (Prediction): Of that image.
        description (Description): Of the network.
        score_thr (float): Smallest score of objects that are drawn.
    """
    scale = scale_of(*image.shape[:2])
    image = enlarge(to_picture(image), scale)
    if description.task == 'segmentation':
        labels, places = np.unique(prediction.labels, return_inverse=True)
        colours = np.array([colour_of(int(label), description) for label in labels], np.uint16)
        colours = colours[enlarge(places.reshape(prediction.labels.shape), scale)]
        return Image.fromarray(((image + colours) // 2).astype(np.uint8))
    pixels = image.astype(np.float32)
    shown = [i for i in range(len(prediction.scores)) if prediction.scores[i] >= score_thr]
    if prediction.masks is not None:
        for i in reversed(shown):
            chosen = enlarge(prediction.masks[i], scale)
            colour = np.array(colour_of(int(prediction.labels[i]), description))
            pixels[chosen] = 0.5 * pixels[chosen] + 0.5 * colour
    picture = Image.fromarray(pixels.astype(np.uint8))
    on = ImageDraw.Draw(picture)
    size = max(min(image.shape[:2]) / 40, 10)
    font = ImageFont.load_default(size)
    for i in reversed(shown):
        left, top, right, bottom = (scale * float(value) for value in prediction.boxes[i])
        colour = colour_of(int(prediction.labels[i]), description)
        on.rectangle((left, top, right, bottom), outline=colour, width=max(round(size / 8), 1))
        text = f'{name_of(int(prediction.labels[i]), description)} {prediction.scores[i]:.2f}'
        place = left, max(top - 1.3 * size, 0)
        on.rectangle(on.textbbox(place, text, font), fill=colour)
        on.text(place, text, 'white' if sum(colour) < 380 else 'black', font)
    return picture


def as_json(
    prediction: Prediction, description: Description, score_thr: float, top: int = 5
) -> dict[str, Any]:
    """A prediction as values that JSON knows."""
    if description.task == 'classification':
        order = np.argsort(-prediction.scores, kind='stable')[:top]
        classes = [
            dict(label=int(i), name=name_of(i, description), score=float(prediction.scores[i])) for i in order
        ]
        return dict(classes=classes)
    if description.task == 'features' or 'logits' in description.outputs:
        return dict(outputs={name: list(value.shape) for name, value in prediction.outputs.items()})
    if description.task == 'segmentation':
        labels, counts = np.unique(prediction.labels, return_counts=True)
        order = np.argsort(-counts, kind='stable')
        parts = [
            dict(
                label=int(labels[i]),
                name=name_of(int(labels[i]), description),
                share=counts[i] / counts.sum(),
            )
            for i in order
        ]
        return dict(segments=parts)
    objects = []
    for i, score in enumerate(prediction.scores):
        if score < score_thr:
            continue
        label = int(prediction.labels[i])
        box = [round(float(value), 2) for value in prediction.boxes[i]]
        one = dict(label=label, name=name_of(label, description), score=float(score), box=box)
        if prediction.masks is not None:
            one['mask'] = encode_mask(prediction.masks[i])
        objects.append(one)
    return dict(objects=objects)


def _save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, 'wb') as file:
        np.savez(file, **arrays)


def find_images(paths: Sequence[str]) -> list[Path]:
    """Find images among files and folders, each once.

    Raises:
        RuntimeProblem: There is none, or something is missing.
    """
    images = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.suffix.lower() in ENDINGS)
            if not inside:
                raise RuntimeProblem(f"there is no image in '{path}': they end in {', '.join(ENDINGS)}")
            images += inside
        elif path.exists():
            images.append(path)
        else:
            raise RuntimeProblem(f"there is no image or folder '{path}'")
    return list({path.resolve(): path for path in images}.values())


def name_results(images: Sequence[Path], folder: Path) -> list[str]:
    """Choose names of results, another one for each image.

    Args:
        images (Sequence[Path]): Different files.
        folder (Path): Where the results go.

    Returns:
        list[str]: Names of the images without their endings; with them where some would be the same; where
        these are the same, the paths from the folder that has all images.

    Raises:
        RuntimeProblem: The results would lie among the images, where they could replace some.
    """
    paths = [path.resolve() for path in images]
    top = os.path.commonpath([path.parent for path in paths])
    for names in (
        [path.stem for path in paths],
        [path.name for path in paths],
        [os.path.relpath(path, top) for path in paths],
    ):
        # Labels have a picture of their own, and file systems differ in whether they know capitals.
        taken = {name.casefold() for name in names} | {f'{name}_labels'.casefold() for name in names}
        if len(taken) == 2 * len(names):
            break
    among = {(folder / name).parent.resolve() for name in names} & {path.parent for path in paths}
    if among:
        raise RuntimeProblem(
            f"results in '{min(among)}' would lie among the images there, and could replace some: choose "
            'another --out-dir'
        )
    return names


def _save(write: Any, path: Path) -> None:
    """Write a file that appears when it is complete."""
    draft = path.with_name(f'.part-{path.name}')
    try:
        write(draft)
        os.replace(draft, path)
    except OSError as error:
        raise RuntimeProblem(f"cannot write '{path}' ({error.strerror}): choose another --out-dir") from error
    finally:
        draft.unlink(missing_ok=True)


def _progress(done: int, total: int, start: float) -> None:
    """A line that says how far it is, on a terminal."""
    if total > 1 and sys.stderr.isatty():
        filled = 30 * done // total
        rest = (time.monotonic() - start) / max(done, 1) * (total - done)
        bar = f'[{"#" * filled}{"." * (30 - filled)}] {done}/{total}, {rest:.0f} s left '
        print(f'\r{bar}', end='' if done < total else '\n', file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict, draw, and write what was found."""
    parser = argparse.ArgumentParser(description='Run an exported network on images.')
    parser.add_argument('file', metavar='FILE', help='what was exported: .onnx, .xml or .pt2')
    parser.add_argument('images', metavar='IMAGES', nargs='+', help='images, or folders of some')
    parser.add_argument(
        '--out-dir', default='predictions', help='for pictures and JSON (default: %(default)s)'
    )
    parser.add_argument('--engine', choices=list(ENGINES), help='default: that of the file')
    parser.add_argument('--threads', type=int, default=0, help='default: as many as the engine takes')
    parser.add_argument('--score-thr', type=float, default=0.3, help='of objects (default: %(default)s)')
    parser.add_argument('--top', type=int, default=5, help='number of classes (default: %(default)s)')
    parser.add_argument('--trust-file', action='store_true', help='run a .pt2 file, which may execute code')
    parser.add_argument('--providers', nargs='+', default=['CPUExecutionProvider'], help='of ONNX Runtime')
    args = parser.parse_args(arguments)
    if args.top < 1:
        raise RuntimeProblem(f'--top {args.top}: give a positive number')
    if not 0 <= args.score_thr <= 1:
        raise RuntimeProblem(f'--score-thr {args.score_thr}: give a score from 0 to 1')
    images = find_images(args.images)
    folder = Path(args.out_dir)
    names = name_results(images, folder)
    network = Network(args.file, args.engine, args.threads, args.providers, args.trust_file)
    description = network.description
    print(network)
    try:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RuntimeProblem(
            f"cannot write to '{folder}' ({error.strerror}): choose another --out-dir"
        ) from error
    start = time.monotonic()
    for number, (path, name) in enumerate(zip(images, names, strict=True), 1):
        image = network.read(path)
        prediction = network.predict([image])[0]
        found = dict(image=str(path), **as_json(prediction, description, args.score_thr, args.top))
        text = json.dumps(found, indent=1)
        _save(lambda draft, text=text: draft.write_text(text), folder / f'{name}.json')
        if 'outputs' in found:
            _save(partial(_save_arrays, arrays=prediction.outputs), folder / f'{name}.npz')
        elif description.task != 'classification':
            _save(draw(image, prediction, description, args.score_thr).save, folder / f'{name}.png')
        if 'segments' in found:
            labels = prediction.labels
            labels = labels.astype(np.uint8 if labels.max() < 256 else np.int32)
            _save(Image.fromarray(labels).save, folder / f'{name}_labels.png')
        _progress(number, len(images), start)
        if len(images) == 1 or not sys.stderr.isatty():
            print(f'{path} ({number} of {len(images)}): {_in_short(found)}')
    count = '1 image' if len(images) == 1 else f'{len(images)} images'
    print(f'{count} in {time.monotonic() - start:.1f} s; results are in {folder}')


def _in_short(found: dict[str, Any]) -> str:
    """What was found, in a line."""
    if 'objects' in found:
        names = [one['name'] for one in found['objects']]
        counts = {name: names.count(name) for name in dict.fromkeys(names)}
        return ', '.join(f'{count} {name}' for name, count in counts.items()) or 'no object'
    if 'outputs' in found:
        return ', '.join(f'{name} {"x".join(map(str, shape))}' for name, shape in found['outputs'].items())
    if 'segments' in found:
        return ', '.join(f'{one["name"]} {one["share"]:.0%}' for one in found['segments'][:5])
    return ', '.join(f'{one["name"]} {one["score"]:.2f}' for one in found['classes'])


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that drafts are removed
    warnings.simplefilter('ignore', Image.DecompressionBombWarning)
    cast(TextIOWrapper, sys.stdout).reconfigure(errors='backslashreplace')  # names of files are any bytes
    try:
        main()
    except RuntimeProblem as problem:
        sys.exit(f'error: {problem}')
    except KeyboardInterrupt:
        sys.exit(130)
