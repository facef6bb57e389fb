"""Checkpoints that load with ``weights_only=True``, and loading of foreign ones."""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mmmeta.errors import UsageError
from mmmeta.weights import (
    OURS,
    check_finite,
    differences,
    find_state_dict,
    format_differences,
    missing_output_norms,
    read_location,
    recognise,
    translate,
    trust,
)

TAG = '__mmmeta__'
PLAIN_TYPES = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    torch.Tensor,
    torch.Size,
    torch.dtype,
    Counter,
)


def to_plain(value: Any, where: str = 'checkpoint') -> Any:
    """Replace what ``torch.load(..., weights_only=True)`` refuses by dicts, lists, numbers and tensors.

    NumPy scalars become Python's; NumPy arrays and MMEngine's history buffers become tagged dicts that
    :func:`from_plain` restores without loss.

    Args:
        value (Any): A checkpoint or a part of it.
        where (str): Its name, for the error. Defaults to ``'checkpoint'``.

    Raises:
        TypeError: A part has no plain form.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, HistoryBuffer):
        log_history, count_history = value.data
        return {
            TAG: 'HistoryBuffer',
            'log_history': torch.from_numpy(np.array(log_history, dtype=np.float64)),
            'count_history': torch.from_numpy(np.array(count_history, dtype=np.float64)),
            'max_length': int(value.max_length),
        }
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biufc':
        return {TAG: 'ndarray', 'value': torch.from_numpy(value.copy())}
    if isinstance(value, torch.nn.Parameter):
        return value.data
    if isinstance(value, PLAIN_TYPES) and type(value).__module__ in ('builtins', 'torch', 'collections'):
        return value
    if isinstance(value, dict):
        items = ((to_plain(k, where), to_plain(v, f'{where}[{k!r}]')) for k, v in value.items())
        if not isinstance(value, OrderedDict):
            return dict(items)
        ordered = OrderedDict(items)
        if hasattr(value, '_metadata'):  # the versions of the modules in a state dict
            ordered._metadata = to_plain(value._metadata, where)
        return ordered
    if isinstance(value, (list, tuple)):
        items = [to_plain(v, f'{where}[{i}]') for i, v in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    raise TypeError(
        f'{where} is a {type(value).__module__}.{type(value).__qualname__}, which would need code to be '
        'unpickled: keep numbers, strings, tensors, arrays, lists and dicts of them in checkpoints'
    )


def from_plain(value: Any) -> Any:
    """Invert :func:`to_plain`; values without a tag are returned unchanged."""
    if isinstance(value, dict):
        tag = value.get(TAG)
        if tag == 'HistoryBuffer':
            log_history, count_history = (value[k].cpu().numpy() for k in ('log_history', 'count_history'))
            return HistoryBuffer(log_history, count_history, value['max_length'])
        if tag == 'ndarray':
            return value['value'].cpu().numpy()
        if any(isinstance(v, (dict, list, tuple)) for v in value.values()):
            for key, part in value.items():
                value[key] = from_plain(part)
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(from_plain(v) for v in value)
    return value


def _read_timm(location: str, map_location: Any = 'cpu') -> dict:
    """The state dict of a model of timm's, with our names if it is a MetaFormer."""
    state_dict = find_state_dict(read_location(location, map_location), location)
    if recognise(list(state_dict)) is not None:
        state_dict, _ = translate(state_dict, location)
    return {'state_dict': state_dict}


@contextmanager
def safe_loading(trusted: Collection[str] = ()) -> Iterator[None]:
    """Let MMEngine read checkpoints without running code in them, inside a ``with`` block.

    Every path, URL and ``timm://`` location that a config or a command line names is read with
    ``weights_only=True``, except for the ``trusted`` ones. See :func:`mmmeta.weights.fetch.fetch` for where
    downloads are cached.

    Args:
        trusted (Collection[str]): Paths, spelt as in the config, that may execute code. Defaults to ().
    """
    loaders = dict(CheckpointLoader._schemes)
    trust(trusted)
    CheckpointLoader.register_scheme(('', 'http://', 'https://'), loader=read_location, force=True)
    CheckpointLoader.register_scheme('timm://', loader=_read_timm, force=True)
    try:
        yield
    finally:
        CheckpointLoader._schemes = loaders
        trust(())


def convert_checkpoint(checkpoint: dict, source: str) -> None:
    """Convert a checkpoint to our own layout, in place.

    Args:
        checkpoint (dict): A checkpoint of ours, of another repository, or a bare state dict.
        source (str): Its origin, for the error.

    Raises:
        UsageError: It contains no tensors, or values that are not finite.
    """
    state_dict = find_state_dict(checkpoint, source)
    check_finite(state_dict, source)
    found = recognise(list(state_dict))
    # Another layout, or a backbone of ours by itself.
    if found is not None and (found[0] is not OURS or not found[1]):
        state_dict, layout = translate(state_dict, source)
        checkpoint.clear()
        print_log(f'{source}: {len(state_dict)} tensors in {layout} layout', logger='current')
    checkpoint['state_dict'] = state_dict


def check_complete(model: nn.Module, state_dict: Mapping[str, torch.Tensor], source: str) -> None:
    """Reject a state dict that does not match a model exactly.

    Args:
        model (nn.Module): The model, without wrappers.
        state_dict (Mapping[str, Tensor]): Tensors to load.
        source (str): Its origin, for the error.

    Raises:
        UsageError: Tensors are missing, unexpected or of another shape.
    """
    own = model.state_dict()
    problems = differences(own, state_dict)
    if problems:
        raise UsageError(
            f"'{source}' is not a checkpoint of this config's model: of {len(own)} tensors "
            f'{format_differences(problems)}. Give the config that it was trained with'
        )


def load_complete(model: nn.Module, location: str) -> None:
    """Load all tensors of a model, or none.

    Args:
        model (nn.Module): The model, without wrappers.
        location (str): Path, URL, ``timm://...`` or ``mmmeta://...``, in any layout.

    Raises:
        UsageError: The file cannot be fetched or read, or does not match the model exactly.
    """
    checkpoint = read_location(location)
    convert_checkpoint(checkpoint, location)
    check_complete(model, checkpoint['state_dict'], location)
    model.load_state_dict(checkpoint['state_dict'])


def check_backbone_complete(backbone: nn.Module, state_dict: Mapping[str, torch.Tensor], source: str) -> None:
    """Reject a state dict of a whole model whose backbone does not match, apart from its output norms.

    Args:
        backbone (nn.Module): The backbone.
        state_dict (Mapping[str, Tensor]): Tensors to load.
        source (str): Its origin, for the error.

    Raises:
        UsageError: Tensors are missing, unexpected or of another shape.
    """
    own, prefix = backbone.state_dict(), 'backbone.'
    given = {n.removeprefix(prefix): t for n, t in state_dict.items() if n.startswith(prefix)}
    new = missing_output_norms(own, given)
    problems = differences({name: tensor for name, tensor in own.items() if name not in new}, given)
    if problems:
        raise UsageError(
            f"'{source}' does not have the backbone of this config's model: of {len(own)} tensors "
            f'{format_differences(problems)}. Give weights of the same backbone, or change the config'
        )
