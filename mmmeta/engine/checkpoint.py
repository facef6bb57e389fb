"""Checkpoints that need no code to be read, and the reading of those that do."""

import os
import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Collection
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, get_local_rank
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mmmeta.errors import UsageError

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
    :func:`from_plain` turns back without loss.

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
    """Undo :func:`to_plain`; whatever has no tag is left as it is."""
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


def read_checkpoint(path: str, map_location: Any = None, trusted: bool = False) -> Any:
    """Read a local checkpoint.

    Args:
        path (str): The file.
        map_location (Any): As :func:`torch.load` takes it. Defaults to None.
        trusted (bool): Whether code in the file may run. Defaults to False.

    Raises:
        UsageError: There is no such file, it is damaged, or it needs code to be read and is not trusted.
    """
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        raise UsageError(f"there is no checkpoint '{path}': give the path of a file")
    with open(path, 'rb') as file:
        first = file.read(1)
    # Files of PyTorch are zip archives or, before 1.6, pickles.
    if first not in (b'P', b'\x80'):
        raise UsageError(f"'{path}' is no checkpoint of PyTorch: give a file that torch.save has written")
    try:
        return torch.load(path, map_location=map_location, weights_only=not trusted)
    except pickle.UnpicklingError as error:
        needs = re.search(r'GLOBAL ([\w.]+)', str(error))
        raise UsageError(
            f"'{path}' needs code to be read{f' ({needs[1]})' if needs else ''}, and that could be any code: "
            'if you trust where it comes from, say --trust-checkpoint'
        ) from error
    except (RuntimeError, EOFError) as error:
        raise UsageError(
            f"'{path}' is damaged or cut off ({str(error).splitlines()[0]}): get or write it again"
        ) from error


def use_safe_loading(trusted: Collection[str] = ()) -> None:
    """Let MMEngine read checkpoints without running code in them.

    Every path that a config or a command line names is read with ``weights_only=True``, but for the
    ``trusted`` ones. Files behind ``http(s)://`` are kept where :mod:`torch.hub` keeps them.

    Args:
        trusted (Collection[str]): Paths, as they are named elsewhere, whose code may run. Defaults to ().
    """

    def load_from_local(filename: str, map_location: Any = None) -> Any:
        return read_checkpoint(filename, map_location, filename in trusted)

    def load_from_http(filename: str, map_location: Any = None) -> Any:
        name = os.path.basename(urlparse(filename).path)
        path = os.path.join(torch.hub.get_dir(), 'checkpoints', name)
        if get_local_rank() == 0 and not os.path.isfile(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            torch.hub.download_url_to_file(filename, path)
        barrier()
        return read_checkpoint(path, map_location, filename in trusted)

    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_http, force=True)


def check_complete(model: nn.Module, state_dict: dict[str, torch.Tensor], source: str) -> None:
    """Refuse a state dict that is not exactly that of a model.

    Args:
        model (nn.Module): The model, without wrappers.
        state_dict (dict[str, Tensor]): What is about to be loaded; a leading ``module.`` does not count.
        source (str): Where it comes from, for the error.

    Raises:
        UsageError: Tensors are missing, unexpected or of another shape.
    """
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name.removeprefix('module.'): tuple(tensor.shape) for name, tensor in state_dict.items()}
    problems = {
        'missing': [name for name in own if name not in given],
        'unexpected': [name for name in given if name not in own],
        'of another shape': [
            f'{name} {given[name]} instead of {shape}'
            for name, shape in own.items()
            if name in given and given[name] != shape
        ],
    }
    told = [
        f'{len(names)} {kind} ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})'
        for kind, names in problems.items()
        if names
    ]
    if told:
        raise UsageError(
            f"'{source}' is not a checkpoint of this config's model: of {len(own)} tensors "
            f'{"; ".join(told)}. Give the config that it was trained with'
        )
