"""Networks in eight bits by NNCF, in which the layers that eight bits cost most are left as they are."""

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmmeta.runtime.run import KEY, Description, Network, RuntimeProblem
from mmmeta.utils.errors import UsageError

from .comparing import agreement
from .formats import only_errors, write_openvino

# Least agreement with float32, by task: shares of objects, pixels and images, and of the size of features.
AGREEMENT = dict(detection=0.95, segmentation=0.97, classification=0.97, features=0.95)
# What stays in floating point, as OpenVINO and ONNX name it. Sums, products (the stream through the blocks,
# its scales, StarReLU) and norms have few large values among many small ones, which share one scale, and
# runtimes are no faster for any of these.
LEFT = (
    *('Add', 'AvgPool', 'Concat', 'Interpolate', 'Multiply', 'MVN', 'Slice', 'Softmax'),
    *('AveragePool', 'LayerNormalization', 'Mul', 'Resize'),
)
# Images by which layers are ranked; all of them decide whether enough is left as it is.
RANKED_BY = 4

Run = Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Calibration:
    """What eight bits are chosen with.

    Attributes:
        images (Sequence): Files or arrays like those that the network is to see.
        metric (callable | None): Gives the metric of a network, in points. Defaults to None: how far its
            predictions agree with those of float32, on ``images``.
        max_drop (float): Points that the metric may lose. Defaults to 1.0; without a metric
            :data:`AGREEMENT` holds.
    """

    images: Sequence[np.ndarray | str | Path]
    metric: Callable[[Network], float] | None = None
    max_drop: float = 1.0


def quantize(
    source: Path,
    path: Path,
    description: Description,
    calibration: Calibration,
    ignored: set[str],
) -> str:
    """Write a file in eight bits.

    Layers are ranked by what eight bits in them cost, and put back into floating point, the most expensive
    first, until the metric is within its bound.

    Args:
        source (Path): The file in float32, ``.onnx`` or ``.xml``.
        path (Path): The file to write, of the same format.
        description (Description): Its description; float32 takes the place of what it is computed in where
            OpenVINO has no kernels.
        calibration (Calibration): Images, and what may be lost.
        ignored (set[str]): Names of operations that stay in floating point.

    Returns:
        str: What the file loses.

    Raises:
        UsageError: The bound cannot be kept.
    """
    os.environ.setdefault('NNCF_CI', '1')  # or it reports to its maker over the network
    import nncf

    network = Network(source)
    inputs = [network.inputs([network.prepare(network.read(image))]) for image in calibration.images]
    expected = [network.run(**one) for one in inputs]
    judge = calibration.metric or (lambda one: _agree(one.run, inputs, expected, description.task)[0])
    start = judge(network)
    bound = start - calibration.max_drop if calibration.metric else AGREEMENT[description.task]
    what = 'points' if calibration.metric else f'agreement with float32 on {len(inputs)} images'
    way = 'give more images or a larger drop, or choose another precision; the file is not kept'
    # What bfloat16 takes is not there for eight bits, which are chosen while the rest is in float32.
    _write(_read(source), path, description, ignored)
    reduced = judge(Network(path))
    if reduced < bound:
        rest = dict(f32='float32', bf16='bfloat16')[description.computed_in]
        raise UsageError(
            f'{rest}, in which the rest is computed, keeps {reduced:.3f} {what} of {start:.3f} by itself, '
            f'and {bound:.3f} are asked for: {way}'
        )
    least = min(bound + max(start - reduced, 0), start)

    def validate(model: Any, numbers: Iterable[int]) -> tuple[float, list[float]]:
        numbers = list(numbers)
        run = _run_of(model)
        given, wanted = [inputs[i] for i in numbers], [expected[i] for i in numbers]
        mean, each = _agree(_with_run(network, run).run, given, wanted, description.task)
        if calibration.metric and len(numbers) == len(inputs):
            mean = calibration.metric(_with_run(network, run))
        return min(mean, least), each

    numbers = nncf.Dataset(list(range(len(inputs))), inputs.__getitem__)
    plain = _read(source)
    with only_errors('nncf'):  # and its bars
        model = nncf.quantize_with_accuracy_control(
            plain,
            numbers,
            nncf.Dataset(list(range(len(inputs)))),
            validate,
            max_drop=0.0,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(inputs),
            ignored_scope=nncf.IgnoredScope(names=_names(plain, ignored), types=[*LEFT], validate=False),
            advanced_quantization_parameters=_parameters(source),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=min(RANKED_BY, len(inputs)), num_ranking_workers=1
            ),
        )
    _write(model, path, description, ignored)
    try:
        written = Network(path)
    except RuntimeProblem:  # OpenVINO has no kernels of PoolFormer in eight bits and bfloat16
        _write(model, path, replace(description, computed_in='f32'), ignored)
        written = Network(path)
    found = judge(written)
    if found < bound:
        raise UsageError(
            f'int8 keeps {found:.3f} {what} of {start:.3f}, and {bound:.3f} are asked for: {way}'
        )
    return f'{found:.3f} {what}, float32 {start:.3f}'


def _parameters(source: Path) -> Any:
    """ONNX has no scales for each channel of activations, which NNCF gives to depthwise convolutions."""
    import nncf
    from nncf.quantization.advanced_parameters import QuantizationParameters

    if source.suffix != '.onnx':
        return None
    return nncf.AdvancedQuantizationParameters(
        activations_quantization_params=QuantizationParameters(per_channel=False)
    )


def _agree(
    run: Callable[..., dict[str, np.ndarray]],
    inputs: Sequence[dict[str, np.ndarray]],
    expected: Sequence[dict[str, np.ndarray]],
    task: str,
) -> tuple[float, list[float]]:
    """Mean agreement with what is expected, and that of each image."""
    each = [agreement(task, one, run(**given)) for given, one in zip(inputs, expected, strict=True)]
    return float(np.mean(each)), each


def _with_run(network: Network, run: Run) -> Network:
    """A network that is executed by something else."""
    other = copy.copy(network)
    other._run = run
    return other


def _read(source: Path) -> Any:
    """A file as NNCF takes it."""
    if source.suffix == '.onnx':
        import onnx

        return onnx.load(source)
    import openvino

    return openvino.Core().read_model(source)


def _run_of(model: Any) -> Run:
    """What executes a model that NNCF gives: compiled by OpenVINO, or in ONNX's format."""
    if hasattr(model, 'outputs'):
        return lambda inputs: [model(inputs)[i] for i in range(len(model.outputs))]
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    return lambda inputs: session.run(None, inputs)


def _names(model: Any, ignored: set[str]) -> list[str]:
    """Operations of a model that have the names of some of the ONNX file, or come of them."""
    if not hasattr(model, 'get_ops'):
        return sorted(ignored)
    operations = (one.get_friendly_name() for one in model.get_ops())
    return [name for name in operations if name.partition('/')[0] in ignored]


def _write(model: Any, path: Path, description: Description, ignored: set[str]) -> None:
    if path.suffix == '.xml':
        write_openvino(model, path, description, ignored)
        return
    import onnx

    onnx.helper.set_model_props(model, {KEY: description.write()})
    onnx.save(model, path)
