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
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

try:
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
except ImportError as error:
    if __name__ != '__main__':
        raise
    sys.exit(f'error: {sys.executable} has no {error.name}: pip install numpy pillow onnxruntime')

# Of the description in a file; a runtime reads those up to its own.
VERSION = 1
KEY = 'mmmeta'
ENGINES = dict(onnxruntime=('.onnx',), openvino=('.xml', '.onnx'), torch=('.pt2',))
# Pixels of the longer side of a picture, at least.
LEAST = 512
ENDINGS = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


class RuntimeProblem(Exception):
    """A user's mistake; its text says what to do."""


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
    """An exported network.

    Args:
        path (str | Path): Its file: ``.onnx``, ``.xml`` with its ``.bin`` beside it, or ``.pt2``, which takes
            PyTorch.
        engine (str | None): ``'onnxruntime'`` or ``'openvino'``. Defaults to None: that of the file, for
            ``.onnx`` the first of the two that is installed.
        threads (int): Threads. Defaults to 0: as the engine has it.
        providers (Sequence[str]): Execution providers of ONNX Runtime. Defaults to the CPU's.

    Attributes:
        description (dict): What the file says of the network: ``task``, ``classes``, ``shape`` and more.

    Raises:
        RuntimeProblem: The file cannot be run.
    """

    def __init__(
        self,
        path: str | Path,
        engine: str | None = None,
        threads: int = 0,
        providers: Sequence[str] = ('CPUExecutionProvider',),
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
        open_it = dict(onnxruntime=_open_onnxruntime, openvino=_open_openvino, torch=_open_torch)
        self._run, text = open_it[self.engine](self.path, threads, tuple(providers))
        self.description = _read_description(text, self.path)

    def __repr__(self) -> str:
        about = self.description
        return f'{about["method"]} ({about["task"]}, {about["precision"]}) of {self.path} in {self.engine}'

    def run(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """What the network makes of its inputs, by their names."""
        try:
            outputs = self._run(inputs)
        except Exception as error:  # of many kinds, which have no common base
            about = self.description
            shapes = ', '.join(f'{name} of {"x".join(map(str, x.shape))}' for name, x in inputs.items())
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
            raise RuntimeProblem(
                f"'{self.path}', exported for {about['shape'][0]}x{about['shape'][1]} with "
                f"dynamic='{about['dynamic']}', does not run with {shapes}: {reason}"
            ) from error
        return dict(zip(self.description['outputs'], outputs, strict=True))

    def warm_up(self, times: int = 2) -> None:
        """Run it on an image of the size that it was exported for."""
        height, width = self.description['shape']
        for _ in range(times):
            self.predict([np.zeros((height, width, 3), np.uint8)])

    def prepare(self, image: np.ndarray) -> Prepared:
        """Resize, pad and, where the file does not do so itself, normalise an image.

        Args:
            image (np.ndarray): RGB, ``(height, width, 3)``, uint8.
        """
        about = self.description
        resized = _resize(image, about)
        content = height, width = resized.shape[:2]
        shape = tuple(about['shape'])
        if about['dynamic'] == 'all':
            shape = tuple(-(-side // about['divisor']) * about['divisor'] for side in content)
        padded = np.empty((*shape, 3), np.float32)
        padded[...] = np.asarray(about['padding'], np.float32)
        padded[:height, :width] = resized
        ready = padded.transpose(2, 0, 1)
        if not about['normalized_inside']:
            ready = normalize(ready, about)
        size = shape if about['clipped_to'] == 'shape' else content
        return Prepared(np.ascontiguousarray(ready), content, size, image.shape[:2])

    def inputs(self, batch: Sequence[Prepared]) -> dict[str, np.ndarray]:
        """What the network takes for images of one size, by name."""
        about = self.description
        inputs = dict(image=np.stack([one.image for one in batch]))
        if 'size' in about['inputs']:
            kind = np.float32 if about['task'] == 'detection' else np.int64
            inputs['size'] = np.array(batch[0].size, kind)
        if 'original' in about['inputs']:
            inputs['original'] = np.array(batch[0].original, np.int64)
        return inputs

    def predict(self, images: Sequence[np.ndarray | str | Path], batch_size: int = 1) -> list[Prediction]:
        """Predict.

        Args:
            images (Sequence): Files, or RGB arrays ``(height, width, 3)`` of uint8.
            batch_size (int): Images of one size that are run at once, where the file allows it. Defaults
                to 1.

        Raises:
            RuntimeProblem: An image cannot be read, or the file does not take batches.
        """
        about = self.description
        if batch_size < 1 or (batch_size > 1 and not about['takes_batches']):
            raise RuntimeProblem(
                f'batch_size={batch_size}: {self.path} takes one image at a time'
                if batch_size > 1
                else f'batch_size={batch_size}: give a positive number'
            )
        prepared = [self.prepare(_as_array(image)) for image in images]
        predictions = []
        for batch in _batches(prepared, batch_size):
            outputs = self.run(**self.inputs(batch))
            for i, one in enumerate(batch):
                predictions.append(_read_outputs(outputs, i, one, about))
        return predictions


def load(path: str | Path, engine: str | None = None, threads: int = 0, **options: Any) -> Network:
    """Open an exported file; see :class:`Network` for the arguments and errors."""
    return Network(path, engine, threads, **options)


def _engine_of(path: Path) -> str:
    from importlib.util import find_spec

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


def _open_onnxruntime(path: Path, threads: int, providers: tuple[str, ...]) -> tuple[Any, str | None]:
    engine = _import('onnxruntime')
    options = engine.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = engine.InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # of many kinds, which have no common base
        raise _cannot_open(path, 'ONNX Runtime', engine.__version__, error) from error
    return lambda inputs: session.run(None, inputs), session.get_modelmeta().custom_metadata_map.get(KEY)


def _open_openvino(path: Path, threads: int, providers: tuple[str, ...]) -> tuple[Any, str | None]:
    engine = _import('openvino')
    core = engine.Core()
    try:
        model = core.read_model(path)
        text = None
        for place in ([KEY], ['framework', KEY]):
            if model.has_rt_info(place):
                text = model.get_rt_info(place).astype(str)
                break
        # Left alone, OpenVINO computes in bfloat16 wherever the processor can.
        about = json.loads(text) if text else {}
        options = dict(INFERENCE_PRECISION_HINT=about.get('computed_in', 'f32'), PERFORMANCE_HINT='LATENCY')
        if threads:
            options['INFERENCE_NUM_THREADS'] = threads
        compiled = core.compile_model(model, 'CPU', options)
    except RuntimeError as error:
        raise _cannot_open(path, 'OpenVINO', engine.__version__, error) from error

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        outputs = compiled(inputs)
        return [outputs[i] for i in range(len(compiled.outputs))]

    return run, text


def _open_torch(path: Path, threads: int, providers: tuple[str, ...]) -> tuple[Any, str | None]:
    torch = _import('torch')
    _import('torchvision')  # registers its operators
    if threads:
        torch.set_num_threads(threads)
    extra = {f'{KEY}.json': ''}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of buffers that are only read
            network = torch.export.load(path, extra_files=extra).module()
    except Exception as error:  # of many kinds
        raise _cannot_open(path, 'PyTorch', torch.__version__, error) from error

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            return [out.numpy() for out in network(*map(torch.from_numpy, inputs.values()))]

    text = extra[f'{KEY}.json']
    return run, text.decode() if isinstance(text, bytes) else text


def _cannot_open(path: Path, engine: str, version: str, error: Exception) -> RuntimeProblem:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return RuntimeProblem(f"{engine} {version} cannot open '{path}': {reason[-1][:300]}")


def _read_description(text: str | None, path: Path) -> dict[str, Any]:
    if not text:
        raise RuntimeProblem(
            f"'{path}' was not written by mmmeta: export a network with tools/deployment/export.py"
        )
    description = json.loads(text)
    if description['version'] > VERSION:
        raise RuntimeProblem(
            f"'{path}' has a description of version {description['version']}, and this program reads those "
            f'up to {VERSION}: take the program that was written beside the file'
        )
    return description


def read_image(path: str | Path) -> np.ndarray:
    """An image as an RGB array, turned as its EXIF tag says."""
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
    except FileNotFoundError as error:
        raise RuntimeProblem(f"there is no image '{path}'") from error
    except (UnidentifiedImageError, OSError) as error:
        raise RuntimeProblem(f"'{path}' cannot be read as an image") from error


def _as_array(image: np.ndarray | str | Path) -> np.ndarray:
    if isinstance(image, (str, Path)):
        return read_image(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise RuntimeProblem(
            f'an image of shape {tuple(image.shape)} and type {image.dtype}: give (height, width, 3) of uint8'
        )
    return image


def normalize(image: np.ndarray, about: dict[str, Any]) -> np.ndarray:
    """An RGB image, ``(3, H, W)``, as the network was trained on it, blue first where it wants that."""
    mean, std = (np.asarray(about[key], np.float32)[:, None, None] for key in ('mean', 'std'))
    return ((image[::-1] if about['is_bgr'] else image) - mean) / std


def _resize(image: np.ndarray, about: dict[str, Any]) -> np.ndarray:
    """Resize as the network's own pipeline does, and so that it fits into the file's shape."""
    how, (high, wide) = about['resize'], about['shape']
    height, width = image.shape[:2]
    if how['kind'] == 'crop':
        return _crop(image, how, (high, wide))
    fixed = about['dynamic'] != 'all'
    if how['kind'] == 'stretch':
        return resize_bilinear(image, (high, wide) if fixed else tuple(how['scale'][::-1]))
    factor = min(max(how['scale']) / max(height, width), min(how['scale']) / min(height, width))
    if fixed:
        factor = min(factor, high / height, wide / width)
    size = [max(int(side * factor + 0.5), 1) for side in (height, width)]
    resized = resize_bilinear(image, tuple(size))
    multiple = how.get('multiple', 1)
    return resize_bilinear(resized, tuple(-(-side // multiple) * multiple for side in size))


def _crop(image: np.ndarray, how: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """Resize the short side with Pillow, and take the centre."""
    height, width = image.shape[:2]
    short = how['short']
    if height < width:
        size = (int(short * width / height), short)
    else:
        size = (short, int(short * height / width))
    method = getattr(Image.Resampling, how['interpolation'].upper())
    resized = np.asarray(Image.fromarray(image).resize(size, method))
    top, left = (
        max(0, round((side - kept) / 2)) for side, kept in zip(resized.shape[:2], shape, strict=True)
    )
    return resized[top : top + shape[0], left : left + shape[1]]


def resize_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize between the nearest four pixels, in the fixed-point arithmetic of OpenCV's ``INTER_LINEAR``.

    Args:
        image (np.ndarray): ``(height, width, channels)``, uint8.
        size (tuple[int, int]): Height and width.
    """
    if image.shape[:2] == tuple(size):
        return image
    left, right = _weighted_neighbours(image.astype(np.int32), 1, size[1])
    top, bottom = _weighted_neighbours((left + right) >> 4, 0, size[0])
    return (((top >> 16) + (bottom >> 16) + 2) >> 2).astype(np.uint8)


def _weighted_neighbours(pixels: np.ndarray, axis: int, target: int) -> list[np.ndarray]:
    """Return both neighbours of each position along an axis, times their weights in units of 1/2048."""
    source = pixels.shape[axis]
    place = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    low = np.floor(place)
    weight = place - low
    if axis == 1:  # outside of the centres OpenCV takes the nearest column, but weights rows all the same
        weight[(low < 0) | (low >= source - 1)] = 0
    low = low.astype(np.int64)
    shape = [-1 if i == axis else 1 for i in range(pixels.ndim)]
    weights = (
        np.rint(part * np.float32(2048)).astype(np.int32).reshape(shape) for part in (1 - weight, weight)
    )
    return [pixels.take((low + i).clip(0, source - 1), axis) * part for i, part in enumerate(weights)]


def _batches(prepared: Sequence[Prepared], size: int) -> Iterator[list[Prepared]]:
    """Images beside each other that may be run together."""
    for _, group in itertools.groupby(prepared, lambda one: (one.image.shape, one.size, one.original)):
        alike = list(group)
        yield from (alike[i : i + size] for i in range(0, len(alike), size))


def _read_outputs(
    outputs: dict[str, np.ndarray], i: int, prepared: Prepared, about: dict[str, Any]
) -> Prediction:
    """The prediction for one image of a batch."""
    if about['task'] == 'detection':
        return _read_objects(outputs, prepared, about)
    own = {name: value[i] for name, value in outputs.items()}
    if about['task'] == 'classification':
        return Prediction(scores=own['probabilities'], outputs=own)
    if 'labels' in own:
        return Prediction(labels=own['labels'], outputs=own)
    return Prediction(outputs=own)


def _read_objects(outputs: dict[str, np.ndarray], prepared: Prepared, about: dict[str, Any]) -> Prediction:
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
            paste_mask(mask, one, box, about['mask_threshold'])
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


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask as uncompressed RLE, COCO's format."""
    values = np.concatenate([[0], mask.ravel(order='F').astype(np.int8), [-1]])
    ends = np.flatnonzero(np.diff(values))
    return dict(size=list(mask.shape), counts=np.diff(ends, prepend=0).tolist())


def colour_of(label: int, about: dict[str, Any]) -> tuple[int, int, int]:
    """The colour of a class: that of its palette, or one of its own."""
    palette = about.get('palette') or []
    if label < len(palette):
        return tuple(palette[label])
    return tuple(np.random.default_rng(label).integers(40, 230, 3).tolist())


def name_of(label: int, about: dict[str, Any]) -> str:
    """The name of a class."""
    classes = about.get('classes') or []
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


def draw(image: np.ndarray, prediction: Prediction, about: dict[str, Any], score_thr: float) -> Image.Image:
    """Draw objects, or the labels of pixels, over an image, enlarged to :data:`LEAST` pixels.

    Args:
        image (np.ndarray): RGB.
        prediction (Prediction): Of that image.
        about (dict): The description of the network.
        score_thr (float): Smallest score of objects that are drawn.
    """
    scale = scale_of(*image.shape[:2])
    image = enlarge(image, scale)
    if about['task'] == 'segmentation':
        labels = enlarge(prediction.labels, scale)
        colours = np.array([colour_of(i, about) for i in range(int(labels.max()) + 1)])
        return Image.fromarray((0.5 * image + 0.5 * colours[labels]).astype(np.uint8))
    pixels = image.astype(np.float32)
    shown = [i for i in range(len(prediction.scores)) if prediction.scores[i] >= score_thr]
    for i in reversed(shown if prediction.masks is not None else []):
        chosen = enlarge(prediction.masks[i], scale)
        pixels[chosen] = 0.5 * pixels[chosen] + 0.5 * np.array(colour_of(int(prediction.labels[i]), about))
    picture = Image.fromarray(pixels.astype(np.uint8))
    on = ImageDraw.Draw(picture)
    size = max(min(image.shape[:2]) / 40, 10)
    font = ImageFont.load_default(size)
    for i in reversed(shown):
        left, top, right, bottom = (scale * float(value) for value in prediction.boxes[i])
        colour = colour_of(int(prediction.labels[i]), about)
        on.rectangle((left, top, right, bottom), outline=colour, width=max(round(size / 8), 1))
        text = f'{name_of(int(prediction.labels[i]), about)} {prediction.scores[i]:.2f}'
        place = left, max(top - 1.3 * size, 0)
        on.rectangle(on.textbbox(place, text, font), fill=colour)
        on.text(place, text, 'white' if sum(colour) < 380 else 'black', font)
    return picture


def as_json(prediction: Prediction, about: dict[str, Any], score_thr: float, top: int = 5) -> dict[str, Any]:
    """A prediction as values that JSON knows."""
    if about['task'] == 'classification':
        order = np.argsort(-prediction.scores, kind='stable')[:top]
        classes = [
            dict(label=int(i), name=name_of(i, about), score=float(prediction.scores[i])) for i in order
        ]
        return dict(classes=classes)
    if about['task'] == 'features' or 'logits' in about['outputs']:
        return dict(outputs={name: list(value.shape) for name, value in prediction.outputs.items()})
    if about['task'] == 'segmentation':
        labels, counts = np.unique(prediction.labels, return_counts=True)
        order = np.argsort(-counts, kind='stable')
        parts = [
            dict(label=int(labels[i]), name=name_of(int(labels[i]), about), share=counts[i] / counts.sum())
            for i in order
        ]
        return dict(segments=parts)
    objects = []
    for i, score in enumerate(prediction.scores):
        if score < score_thr:
            continue
        label = int(prediction.labels[i])
        box = [round(float(value), 2) for value in prediction.boxes[i]]
        one = dict(label=label, name=name_of(label, about), score=float(score), box=box)
        if prediction.masks is not None:
            one['mask'] = encode_mask(prediction.masks[i])
        objects.append(one)
    return dict(objects=objects)


def _save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, 'wb') as file:
        np.savez(file, **arrays)


def find_images(paths: Sequence[str]) -> list[Path]:
    """Images among files and folders.

    Raises:
        RuntimeProblem: There is none, or something is missing.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.suffix.lower() in ENDINGS)
            if not inside:
                raise RuntimeProblem(f"there is no image in '{path}': they end in {', '.join(ENDINGS)}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise RuntimeProblem(f"there is no image or folder '{path}'")
    return found


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
    parser.add_argument('--providers', nargs='+', default=['CPUExecutionProvider'], help='of ONNX Runtime')
    args = parser.parse_args(arguments)
    images = find_images(args.images)
    network = Network(args.file, args.engine, args.threads, args.providers)
    about = network.description
    print(network)
    folder = Path(args.out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RuntimeProblem(
            f"cannot write to '{folder}' ({error.strerror}): choose another --out-dir"
        ) from error
    names = [path.stem for path in images]
    start = time.monotonic()
    for number, path in enumerate(images, 1):
        name = path.stem if names.count(path.stem) == 1 else path.name
        image = read_image(path)
        prediction = network.predict([image])[0]
        found = dict(image=str(path), **as_json(prediction, about, args.score_thr, args.top))
        text = json.dumps(found, indent=1)
        _save(lambda draft, text=text: draft.write_text(text), folder / f'{name}.json')
        if 'outputs' in found:
            _save(partial(_save_arrays, arrays=prediction.outputs), folder / f'{name}.npz')
        elif about['task'] != 'classification':
            _save(draw(image, prediction, about, args.score_thr).save, folder / f'{name}.png')
        if 'segments' in found:
            labels = prediction.labels
            labels = labels.astype(np.uint8 if labels.max() < 256 else np.int32)
            _save(Image.fromarray(labels).save, folder / f'{name}_labels.png')
        _progress(number, len(images), start)
        if len(images) == 1 or not sys.stderr.isatty():
            print(f'{path} ({number} of {len(images)}): {_in_short(found)}')
    print(f'{len(images)} images in {time.monotonic() - start:.1f} s; results are in {folder}')


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
    try:
        main()
    except RuntimeProblem as problem:
        sys.exit(f'error: {problem}')
    except KeyboardInterrupt:
        sys.exit(130)
