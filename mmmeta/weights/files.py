"""Read files of weights without executing code in them, and write them."""

import io
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

from mmmeta.utils.atomic import written
from mmmeta.utils.errors import UsageError

# First bytes of torch.save's files: zip archives or, before 1.6 and of other tools, pickles.
ZIP, PICKLE = b'PK', b'\x80'
# Magic number, protocol version, system information, the object itself, and the keys of its storages.
LEGACY_PICKLES = 5
# Keys under which tools store a state dict, by priority: of two, timm evaluates the averaged weights, and
# what learns without labels its teacher's.
STATE_DICT_KEYS = ('state_dict_ema', 'model_ema', 'state_dict', 'model', 'teacher', 'student')

# Counters of averaged weights, beside the ``module.*`` that they average: PyTorch's, and MMEngine's.
AVERAGE_COUNTERS = ('n_averaged', 'steps')
# What an unpickler raises that follows wrong instructions; RecursionError is a RuntimeError.
UNPICKLING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
# Containers within each other; checkpoints have 10.
MAX_DEPTH = 64
# Elements in all of tensors that are stored once and repeated, as buffers may be; they are stored in full.
MAX_REPEATED = 1 << 20

# Of command lines, which many write beside the weights: reading one sets its attributes and runs nothing.
safe_globals = getattr(torch.serialization, 'safe_globals', nullcontext)


class DamagedFileError(UsageError):
    """A file that is truncated or of another format; reading it again does not help."""


def read_checkpoint(path: str, trusted: bool = False) -> Any:
    """Read a local file of PyTorch or of safetensors into main memory.

    Args:
        path (str): The file.
        trusted (bool): Whether code in the file may run. Defaults to False.

    Returns:
        Any: What was saved, most often a dict; every tensor in it is dense and has its own data.

    Raises:
        DamagedFileError: The file is cut off, was changed, or is none of these.
        UsageError: There is no such file, or it needs code to be read and is not trusted.
    """
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        raise UsageError(f"there is no checkpoint '{path}': give the path of a file")
    with open(path, 'rb') as file:
        start = file.read(512)
    if start[8:9] == b'{' and struct.unpack('<Q', start[:8])[0] < 1 << 32:
        return _read_safetensors(path)
    if not start.startswith((ZIP, PICKLE)):
        raise DamagedFileError(f"'{path}' is not a checkpoint{_guess_format(start)}: give a file of weights")
    damage = _damage(path, start)
    if damage:
        raise DamagedFileError(f"'{path}' is damaged or cut off ({damage}): get or write it again")
    try:
        with safe_globals([Namespace]):
            content = torch.load(path, map_location='cpu', weights_only=not trusted)
    except pickle.UnpicklingError as error:
        needs = re.search(r'GLOBAL ([\w.]+)', str(error))
        raise UsageError(
            f"'{path}' needs code to be read{f' ({needs[1]})' if needs else ''}, and that could be any code: "
            'if you trust its origin, pass --trust-checkpoint'
        ) from error
    except UNPICKLING_ERRORS as error:
        if trusted:  # of code in the file
            raise
        reason = (str(error).splitlines() or [''])[0] or type(error).__name__
        raise DamagedFileError(
            f"'{path}' is damaged or cut off ({reason[:200]}): get or write it again"
        ) from error
    check_structure(content, path)
    return content


def check_structure(content: object, source: str) -> None:
    """Check that what was read can be walked through, and that its tensors are dense and have their data.

    Small tensors of repeated elements, as ``expand`` gives them, are replaced by dense ones in place.

    Args:
        content (object): What a file held: dicts, lists and tuples, and anything in them.
        source (str): Its origin, for the error.

    Raises:
        DamagedFileError: A tensor is sparse, quantized or without data, such as a number that is said to be
            repeated a million times; or containers are nested too deeply, or contain themselves.
    """
    heights: dict[int, int | None] = {}  # None while a container is being visited
    repeated = 0

    def visit(value: Any, where: str, depth: int) -> int:
        if isinstance(value, Tensor):
            if not (_is_dense(value) and _is_stored(value)):
                raise DamagedFileError(
                    f"'{source}' is not a usable checkpoint: the tensor {where or 'in it'} of shape "
                    f'{tuple(value.shape)} is not dense or has no data; get or write it again'
                )
            return 0
        if id(value) not in heights:
            heights[id(value)] = None
            pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
            if not isinstance(value, tuple):
                pairs = [(key, expand(value, key, part)) for key, part in pairs]
            inner = (
                visit(part, f'{where}[{str(key)[:100]!r}]', depth + 1) if depth < MAX_DEPTH else MAX_DEPTH
                for key, part in pairs
                if isinstance(part, (Tensor, dict, list, tuple))
            )
            heights[id(value)] = 1 + max(inner, default=0)
        height = heights[id(value)]
        if height is None or height > MAX_DEPTH:
            raise DamagedFileError(
                f"'{source}' is not a usable checkpoint: its containers are nested more than {MAX_DEPTH} "
                'deep, or contain themselves; get or write it again'
            )
        return height

    def expand(container: dict[Any, Any] | list[Any], key: Any, part: Any) -> Any:
        nonlocal repeated
        if isinstance(part, Tensor) and _is_dense(part) and not _is_stored(part):
            repeated += part.numel()
            if repeated <= MAX_REPEATED:
                part = container[key] = part.detach().contiguous()
        return part

    if isinstance(content, (Tensor, dict, list, tuple)):
        visit(content, '', 0)


def _is_dense(tensor: Tensor) -> bool:
    """Whether a tensor is an ordinary one."""
    return tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested)


def _is_stored(tensor: Tensor) -> bool:
    """Whether each element of a dense tensor is stored."""
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _damage(path: str, start: bytes) -> str | None:
    """Why a file of PyTorch is incomplete or was changed, judged by its structure; None if it is whole."""
    if start.startswith(ZIP):
        return _zip_damage(path)
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


def _zip_damage(path: str) -> str | None:
    """Why a zip archive is not what was written; PyTorch's reader does not compare the check sums."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith('/constants.pkl') for name in names):
                return 'it is a program of TorchScript, not a file of weights'
            if len(set(names)) < len(names):
                return 'it has two entries of one name'
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                return 'its entries are compressed, which torch.save does not do'
            broken = archive.testzip()
            return broken and f'the check sum of {broken} is wrong'
    except zipfile.BadZipFile as error:
        return 'its end is missing' if 'not a zip file' in str(error) else str(error)
    # Of headers that are wrong, or say that an entry is encrypted.
    except (EOFError, LookupError, RuntimeError, ValueError, struct.error) as error:
        return str(error)


def _read_safetensors(path: str) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UsageError(f"'{path}' is a file of safetensors: pip install safetensors") from error
    try:
        return load_file(path)
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


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict) and len(value) > 0 and all(isinstance(one, Tensor) for one in value.values())
    )


def find_state_dict(checkpoint: object, source: str) -> dict[str, Tensor]:
    """The state dict in what was read from a file.

    It is the checkpoint itself, stored under one of ``STATE_DICT_KEYS``, or the only one in it. A leading
    ``module.``, which distributed training and averages of weights add, is removed from every name, and so is
    the counter of an average.

    Args:
        checkpoint (object): What a file held.
        source (str): Its origin, for the error.

    Raises:
        UsageError: There are no named tensors, or several state dicts.
    """
    state_dict = checkpoint
    if isinstance(checkpoint, dict):
        keys = [key for key in STATE_DICT_KEYS if isinstance(checkpoint.get(key), dict)][:1]
        if not keys and not any(isinstance(value, Tensor) for value in checkpoint.values()):
            keys = [key for key, value in checkpoint.items() if _is_state_dict(value)]
        if len(keys) > 1:
            raise UsageError(
                f"'{source}' holds {len(keys)} state dicts, under {format_names(keys)}: save the one that is "
                'meant by itself'
            )
        state_dict = checkpoint[keys[0]] if keys else checkpoint
    found = {}
    if isinstance(state_dict, dict):
        counters = {name for name in AVERAGE_COUNTERS if name in state_dict}
        if counters and all(str(name).startswith('module.') for name in {*state_dict} - counters):
            state_dict = {name: tensor for name, tensor in state_dict.items() if name not in counters}
        found = {
            name.removeprefix('module.'): tensor
            for name, tensor in state_dict.items()
            if isinstance(name, str) and isinstance(tensor, Tensor)
        }
        metadata = getattr(state_dict, '_metadata', None)
        if len(found) == len(state_dict) and is_metadata(metadata):
            found = OrderedDict(found)
            vars(found)['_metadata'] = metadata
    if not found:
        kind = (
            f'a dict with the keys {format_names(checkpoint)}' if isinstance(checkpoint, dict) else 'no dict'
        )
        raise UsageError(
            f"'{source}' holds no weights, it is {kind}: give a state dict, bare or under one of "
            f'{", ".join(STATE_DICT_KEYS)}'
        )
    return found


def is_metadata(metadata: object) -> bool:
    """Whether these are versions of modules, as state dicts have them."""
    return isinstance(metadata, dict) and all(
        isinstance(name, str)
        and isinstance(entry, dict)
        and isinstance(entry.get('version'), (int, type(None)))
        for name, entry in metadata.items()
    )


def check_finite(state_dict: Mapping[str, Tensor], source: str) -> None:
    """Check that all values are finite numbers.

    Raises:
        UsageError: One is not; its tensor is named.
    """
    for name, tensor in state_dict.items():
        if not is_finite(tensor):
            raise UsageError(
                f"'{source}' has values in {name} that are not finite numbers: get or train it again"
            )


def is_finite(tensor: Tensor) -> bool:
    """Whether all values of a tensor are finite numbers."""
    if tensor.is_floating_point() and tensor.element_size() == 1:
        tensor = tensor.float()  # PyTorch has no isfinite for types of eight bits
    return not (tensor.is_floating_point() or tensor.is_complex()) or bool(torch.isfinite(tensor).all())


def format_names(names: Collection[object], limit: int = 3) -> str:
    """Format the first few names; an ellipsis replaces the others."""
    texts = [str(name) for name in names]
    return ', '.join(texts[:limit]) + (', ...' if len(texts) > limit else '') if texts else '(none)'


def write_state_dict(state_dict: dict[str, Tensor], path: str) -> None:
    """Write a state dict as safetensors or, if ``path`` ends otherwise, as PyTorch does.

    The file is written atomically.

    Args:
        state_dict (dict[str, Tensor]): The tensors.
        path (str): Target file; ``.safetensors`` selects that format.
    """
    state_dict = {name: tensor.detach().contiguous() for name, tensor in state_dict.items()}
    if path.endswith('.safetensors'):
        from safetensors.torch import save

        content = save(state_dict)
    else:
        buffer = io.BytesIO()
        torch.save({'state_dict': state_dict}, buffer)
        content = buffer.getbuffer()
    with written(path) as draft:
        draft.write_bytes(content)  # unlike these packages', its errors say what is wrong with the disk
