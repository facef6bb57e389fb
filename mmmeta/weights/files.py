"""Read files of weights without executing code in them, and write them."""

import os
import pickle
import pickletools
import re
import struct
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from mmmeta.atomic import written
from mmmeta.errors import UsageError

# First bytes of torch.save's files: zip archives or, before 1.6 and of other tools, pickles.
ZIP, PICKLE = b'PK', b'\x80'
# Magic number, protocol version, system information, the object itself, and the keys of its storages.
LEGACY_PICKLES = 5
# Keys under which tools store a state dict, by priority: of two, timm evaluates the averaged weights, and
# what learns without labels its teacher's.
STATE_DICT_KEYS = ('state_dict_ema', 'model_ema', 'state_dict', 'model', 'teacher', 'student')

# Of command lines, which many write beside the weights: reading one sets its attributes and runs nothing.
safe_globals = getattr(torch.serialization, 'safe_globals', nullcontext)

_trusted: set[str] = set()


class DamagedFileError(UsageError):
    """A file that is truncated or of another format; reading it again does not help."""


def trust(locations: Collection[str]) -> None:
    """Allow these files, and no others, to execute code when they are read.

    Args:
        locations (Collection[str]): Paths and URLs, spelt as they are passed for reading.
    """
    _trusted.clear()
    _trusted.update(locations)


def is_trusted(location: str) -> bool:
    """Whether the code in a file may run."""
    return location in _trusted


def read_checkpoint(path: str, map_location: Any = None, trusted: bool = False) -> Any:
    """Read a local file of PyTorch or of safetensors.

    Args:
        path (str): The file.
        map_location (Any): As :func:`torch.load` takes it. Defaults to None.
        trusted (bool): Whether code in the file may run. Defaults to False.

    Returns:
        Any: What was saved, most often a dict.

    Raises:
        DamagedFileError: The file is cut off, or is none of these.
        UsageError: There is no such file, or it needs code to be read and is not trusted.
    """
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        raise UsageError(f"there is no checkpoint '{path}': give the path of a file")
    with open(path, 'rb') as file:
        start = file.read(512)
    if start[8:9] == b'{' and struct.unpack('<Q', start[:8])[0] < 1 << 32:
        return _read_safetensors(path, map_location)
    if not start.startswith((ZIP, PICKLE)):
        raise DamagedFileError(f"'{path}' is no checkpoint{_guess_format(start)}: give a file of weights")
    damage = _damage(path, start)
    if damage:
        raise DamagedFileError(f"'{path}' is damaged or cut off ({damage}): get or write it again")
    try:
        with safe_globals([Namespace]):
            return torch.load(path, map_location=map_location, weights_only=not trusted)
    except pickle.UnpicklingError as error:
        needs = re.search(r'GLOBAL ([\w.]+)', str(error))
        raise UsageError(
            f"'{path}' needs code to be read{f' ({needs[1]})' if needs else ''}, and that could be any code: "
            'if you trust its origin, pass --trust-checkpoint'
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        if not re.search('PytorchStreamReader|unexpected EOF|corrupt|truncated|Ran out of input', str(error)):
            raise
        raise DamagedFileError(
            f"'{path}' is damaged or cut off ({str(error).splitlines()[0]}): get or write it again"
        ) from error


def _damage(path: str, start: bytes) -> str | None:
    """Why a file of PyTorch is incomplete, judged by its structure; None if it is complete."""
    if start.startswith(ZIP):
        return None if zipfile.is_zipfile(path) else 'its end is missing'
    # A legacy file: pickles one after the other, and the bytes of the tensors behind them.
    try:
        with open(path, 'rb') as file:
            for _ in range(LEGACY_PICKLES):
                for _ in pickletools.genops(file):
                    pass
                if file.tell() == os.path.getsize(path):
                    return None  # a pickle of something else
    except (ValueError, IndexError, struct.error) as error:
        return str(error)
    return None


def _read_safetensors(path: str, map_location: Any) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UsageError(f"'{path}' is a file of safetensors: pip install safetensors") from error
    device = 'cpu' if map_location is None else str(torch.device(map_location))
    try:
        return load_file(path, device=device)
    except SafetensorError as error:
        raise DamagedFileError(f"'{path}' is damaged or cut off ({error}): get it again") from error


def _guess_format(start: bytes) -> str:
    """The kind of file that the first bytes suggest."""
    if not start:
        return ', the file is empty'
    text = start.lstrip().lower()
    if text.startswith((b'<!doctype', b'<html', b'<?xml')):
        return ', it is a web page, as servers send instead of a file that they do not have'
    if text.startswith(b'version https://git-lfs'):
        return ', it is a Git LFS pointer'
    try:
        text.decode()
    except UnicodeDecodeError:
        return ''
    return ', it is a text'


def find_state_dict(checkpoint: Any, source: str) -> dict[str, Tensor]:
    """The state dict in what was read from a file.

    It is the checkpoint itself, or stored under one of ``STATE_DICT_KEYS``; a leading ``module.``, which
    distributed training adds, is removed from every name.

    Args:
        checkpoint (Any): What a file held.
        source (str): Its origin, for the error.

    Raises:
        UsageError: There are no named tensors.
    """
    state_dict = checkpoint
    if isinstance(checkpoint, dict):
        state_dict = next(
            (checkpoint[key] for key in STATE_DICT_KEYS if isinstance(checkpoint.get(key), dict)), checkpoint
        )
    found = {}
    if isinstance(state_dict, dict):
        found = {
            name.removeprefix('module.'): tensor
            for name, tensor in state_dict.items()
            if isinstance(name, str) and isinstance(tensor, Tensor)
        }
    if not found:
        kind = (
            f'a dict with the keys {format_names(checkpoint)}' if isinstance(checkpoint, dict) else 'no dict'
        )
        raise UsageError(
            f"'{source}' holds no weights, it is {kind}: give a state dict, bare or under one of "
            f'{", ".join(STATE_DICT_KEYS)}'
        )
    if len(found) == len(state_dict) and hasattr(state_dict, '_metadata'):  # versions of the modules
        found = OrderedDict(found)
        found._metadata = state_dict._metadata
    return found


def check_finite(state_dict: Mapping[str, Tensor], source: str) -> None:
    """Check that all values are finite numbers.

    Raises:
        UsageError: One is not; its tensor is named.
    """
    for name, tensor in state_dict.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UsageError(
                f"'{source}' has values in {name} that are not finite numbers: get or train it again"
            )


def format_names(names: Collection[Any], limit: int = 3) -> str:
    """Format the first few names; an ellipsis replaces the others."""
    names = [str(name) for name in names]
    return ', '.join(names[:limit]) + (', ...' if len(names) > limit else '') if names else '(none)'


def write_state_dict(state_dict: dict[str, Tensor], path: str) -> None:
    """Write a state dict as safetensors or, if ``path`` ends otherwise, as PyTorch does.

    The file is written atomically.

    Args:
        state_dict (dict[str, Tensor]): The tensors.
        path (str): Target file; ``.safetensors`` selects that format.
    """
    state_dict = {name: tensor.detach().contiguous() for name, tensor in state_dict.items()}
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with written(path) as draft:
        if path.endswith('.safetensors'):
            from safetensors.torch import save_file

            save_file(state_dict, draft)
        else:
            torch.save({'state_dict': state_dict}, draft)
