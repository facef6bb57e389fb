"""Read files of weights without running code in them, and write them."""

import os
import pickle
import pickletools
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from mmmeta.errors import UsageError

# Where torch.save's files begin: zip archives or, before 1.6 and of other tools, pickles.
ZIP, PICKLE = b'PK', b'\x80'
# Magic number, protocol version, system information, the object itself, and the keys of its storages.
LEGACY_PICKLES = 5
# Under these keys tools keep a state dict, in this order: of two, timm evaluates the averaged weights.
STATE_DICT_KEYS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')

_trusted: set[str] = set()


class DamagedFileError(UsageError):
    """A file that is cut off or holds something else; reading it again does not help."""


def trust(locations: Collection[str]) -> None:
    """Let code in these files run from now on, and in no others.

    Args:
        locations (Collection[str]): Paths and URLs, as they are named elsewhere.
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
        raise DamagedFileError(f"'{path}' is no checkpoint{_likeness(start)}: give a file of weights")
    damage = _damage(path, start)
    if damage:
        raise DamagedFileError(f"'{path}' is damaged or cut off ({damage}): get or write it again")
    try:
        return torch.load(path, map_location=map_location, weights_only=not trusted)
    except pickle.UnpicklingError as error:
        needs = re.search(r'GLOBAL ([\w.]+)', str(error))
        raise UsageError(
            f"'{path}' needs code to be read{f' ({needs[1]})' if needs else ''}, and that could be any code: "
            'if you trust where it comes from, say --trust-checkpoint'
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        if not re.search('PytorchStreamReader|unexpected EOF|corrupt|truncated|Ran out of input', str(error)):
            raise
        raise DamagedFileError(
            f"'{path}' is damaged or cut off ({str(error).splitlines()[0]}): get or write it again"
        ) from error


def _damage(path: str, start: bytes) -> str | None:
    """Why a file of PyTorch is not whole, as far as its frame tells; None if it is."""
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


def _likeness(start: bytes) -> str:
    """What the first bytes of a file look like."""
    if not start:
        return ', the file is empty'
    text = start.lstrip().lower()
    if text.startswith((b'<!doctype', b'<html', b'<?xml')):
        return ', it is a web page, as servers send instead of a file that they do not have'
    if text.startswith(b'version https://git-lfs'):
        return ', it is the pointer of Git LFS that stands for one'
    try:
        text.decode()
    except UnicodeDecodeError:
        return ''
    return ', it is a text'


def find_state_dict(checkpoint: Any, source: str) -> dict[str, Tensor]:
    """The state dict in what was read from a file.

    It is the checkpoint itself, or stands under one of ``STATE_DICT_KEYS``; a leading ``module.``, which
    distributed training leaves, is taken off every name.

    Args:
        checkpoint (Any): What a file held.
        source (str): Where it comes from, for the error.

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
        kind = f'a dict with the keys {first_few(checkpoint)}' if isinstance(checkpoint, dict) else 'no dict'
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


def first_few(names: Collection[Any], limit: int = 3) -> str:
    """The first few of some names, as words; dots stand for the others."""
    names = [str(name) for name in names]
    return ', '.join(names[:limit]) + (', ...' if len(names) > limit else '') if names else '(none)'


def write_state_dict(state_dict: dict[str, Tensor], path: str) -> None:
    """Write a state dict as safetensors or, if ``path`` ends otherwise, as PyTorch does.

    The file appears under its name when it is complete.

    Args:
        state_dict (dict[str, Tensor]): The tensors.
        path (str): Where to; ``.safetensors`` chooses that format.
    """
    state_dict = {name: tensor.detach().contiguous() for name, tensor in state_dict.items()}
    part = f'{path}.part'
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    try:
        if path.endswith('.safetensors'):
            from safetensors.torch import save_file

            save_file(state_dict, part)
        else:
            torch.save({'state_dict': state_dict}, part)
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.remove(part)
