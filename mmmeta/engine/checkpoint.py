"""Checkpoints that load with ``weights_only=True``, and loading of foreign ones."""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mmmeta.utils.errors import UsageError
from mmmeta.utils.mmengine_private import replaced_loader
from mmmeta.weights import open_checkpoint

TAG = '__mmmeta__'
# Beginnings of locations; the first one of paths.
SCHEMES = ('', 'http://', 'https://', 'timm://', 'mmmeta://')
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
        pairs = ((to_plain(k, where), to_plain(v, f'{where}[{k!r}]')) for k, v in value.items())
        if not isinstance(value, OrderedDict):
            return dict(pairs)
        ordered = OrderedDict(pairs)
        if hasattr(value, '_metadata'):  # the versions of the modules in a state dict
            vars(ordered)['_metadata'] = to_plain(value._metadata, where)
        return ordered
    if isinstance(value, (list, tuple)):
        items = [to_plain(v, f'{where}[{i}]') for i, v in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    raise TypeError(
        f'{where} is a {type(value).__module__}.{type(value).__qualname__}, which would need code to be '
        'unpickled: keep numbers, strings, tensors, arrays, lists and dicts of them in checkpoints'
    )


def from_plain(value: Any) -> Any:
    """Invert :func:`to_plain`; values without a tag are returned unchanged.

    Raises:
        UsageError: A value with a tag is not one that :func:`to_plain` makes.
    """
    seen: dict[int, Any] = {}  # a part may be there more than once

    def restore(value: Any) -> Any:
        if not isinstance(value, dict) and type(value) not in (list, tuple):
            return value
        if id(value) not in seen:
            if isinstance(value, dict) and TAG in value:
                restored = _restore_tagged(value)
            elif isinstance(value, dict):
                restored = value
                for key, part in value.items():
                    value[key] = restore(part)
            else:
                restored = type(value)(restore(part) for part in value)
            seen[id(value)] = value, restored  # the value as well: its id stays its own
        return seen[id(value)][1]

    return restore(value)


def _restore_tagged(value: dict) -> HistoryBuffer | np.ndarray:
    tag = value[TAG]
    if tag == 'HistoryBuffer':
        logs, counts, length = (value.get(key) for key in ('log_history', 'count_history', 'max_length'))
        if (
            isinstance(logs, torch.Tensor)
            and isinstance(counts, torch.Tensor)
            and (logs.ndim == 1 and logs.shape == counts.shape and isinstance(length, int) and length > 0)
        ):
            return HistoryBuffer(logs.double().cpu().numpy(), counts.double().cpu().numpy(), length)
    if tag == 'ndarray' and isinstance(value.get('value'), torch.Tensor):
        return value['value'].cpu().numpy()
    raise UsageError(
        f'a value in the checkpoint is tagged as {str(tag)[:50]!r}, and is not one: get it again'
    )


@contextmanager
def safe_loading(trusted: Collection[str] = ()) -> Iterator[None]:
    """Let MMEngine read checkpoints without running code in them, inside a ``with`` block.

    Every path, URL, ``timm://`` and ``mmmeta://`` location that a config or a command line names is read with
    ``weights_only=True``, except for the ``trusted`` ones; so are ``torchvision://`` and ``open-mmlab://``,
    which stand for URLs. See :func:`mmmeta.weights.fetch.fetch` for where downloads are cached.

    Args:
        trusted (Collection[str]): Paths, spelt as in the config, that may execute code. Defaults to ().
    """

    def load_from_location(location: str, map_location: Any = None) -> Any:
        return open_checkpoint(location, location in trusted)

    with replaced_loader(load_from_location, SCHEMES):
        yield
