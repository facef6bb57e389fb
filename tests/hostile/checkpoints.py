"""Hostile and unlucky checkpoints, made from a good one."""

import copy
import io
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

# What reads checkpoints: a run that resumes, one that starts from weights, a test, and Python.
DOORS = ('resume', 'load_from', 'test', 'load')


@dataclass(frozen=True)
class Case:
    """A checkpoint that some doors have to refuse.

    Attributes:
        name (str): What is wrong with it.
        write (Callable[[Path], None]): Writes it.
        doors (tuple[str, ...]): Doors that refuse it; to the others what is wrong with it does not matter.
        message (str): A part of the sentence with which they refuse it.
    """

    name: str
    write: Callable[[Path], None]
    doors: tuple[str, ...]
    message: str


class _Code:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple:
        return os.system, (f'touch {self.victim}',)


def _saved(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def _rezipped(raw: bytes, change: Callable[[bytes], bytes], **options: Any) -> bytes:
    """An archive with another pickle, and check sums that are right."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as source, zipfile.ZipFile(stream, 'w', **options) as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, change(data) if name.endswith('data.pkl') else data)
    return stream.getvalue()


def _files(base: dict, victim: Path) -> Iterator[tuple[str, bytes, str]]:
    """Files that no door reads."""
    raw = _saved(base)
    changed = bytearray(raw)
    middle = raw.index(b'PK', len(raw) // 2) - 200  # inside of an entry's data
    changed[middle : middle + 64] = bytes(64) if any(raw[middle : middle + 64]) else b'\1' * 64
    yield 'zeroed bytes', bytes(changed), 'check sum'
    rng = random.Random(0)
    for i in range(6):
        yield f'cut off {i}', raw[: rng.randrange(1, len(raw))], 'damaged|is not a checkpoint'
        flipped = bytearray(raw)
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            entry = max(archive.infolist(), key=lambda one: one.file_size)
        flipped[entry.header_offset + 200 + rng.randrange(entry.file_size - 300)] ^= 0xFF
        yield f'flipped byte {i}', bytes(flipped), 'check sum|damaged'
    yield 'code', _saved({**base, 'x': _Code(victim)}), 'needs code to be read'
    legacy = _saved({**base, 'x': _Code(victim)}, _use_new_zipfile_serialization=False)
    yield 'code in a legacy file', legacy, 'needs code to be read|damaged'
    yield 'a raw pickle', pickle.dumps({'state_dict': _Code(victim)}, protocol=2), 'needs code|damaged'
    deep = b']' * 20000 + b'a' * 19999
    held = b'X\x04\x00\x00\x00HOLD'
    nested = _rezipped(_saved({**base, 'x': 'HOLD'}), lambda data: _replace(data, held, deep))
    yield 'deep nesting', nested, 'nested more than|damaged'
    yield 'compressed entries', _rezipped(raw, bytes, compression=zipfile.ZIP_DEFLATED), 'compressed'
    lying = _saved({'state_dict': {'weight': torch.zeros(777)}})
    more = struct.pack('<i', 2_000_000_000)
    yield 'a wrong size', _rezipped(lying, lambda d: d.replace(b'M\x09\x03', b'J' + more)), 'damaged'
    with zipfile.ZipFile(stream := io.BytesIO(), 'w') as archive:
        archive.writestr('word/document.xml', '<x/>')
    yield 'another zip', stream.getvalue(), 'damaged'
    yield 'a tensor', _saved(torch.zeros(3)), 'holds no weights|not a dict'
    yield 'a list', _saved([1, 2, 3]), 'holds no weights|not a dict'
    yield 'an empty dict', _saved({}), 'holds no weights|no meta'


def _replace(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


def _tensors(base: dict) -> Iterator[tuple[str, torch.Tensor, str]]:
    """Tensors that no door takes in the place of the first weight."""
    weight = next(iter(base['state_dict'].values()))
    yield 'NaN', torch.full_like(weight, float('nan')), 'not finite numbers'
    yield 'infinity', torch.full_like(weight, float('inf')), 'not finite numbers'
    yield 'no data', torch.empty(weight.shape, device='meta'), 'has no data'
    yield 'stride 0', torch.zeros(1).expand(50_000, 250_000), 'has no data'
    yield 'sparse', weight.to_sparse(), 'not dense|damaged|code'
    yield 'complex', weight.to(torch.complex64), 'of another type'
    yield 'integers', weight.long(), 'of another type'
    yield 'another shape', torch.zeros(weight.shape[0] + 1, *weight.shape[1:]), 'of another shape'


def _states(base: dict) -> Iterator[tuple[str, dict, str]]:
    """Checkpoints whose weights are good, and from which no run can resume."""

    def change(*path: Any, value: Any) -> dict:
        changed = copy.deepcopy(base)
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        return changed

    def without(key: str) -> dict:
        return {other: value for other, value in base.items() if other != key}

    for key in ('meta', 'optimizer', 'param_schedulers', 'message_hub'):
        yield f'no {key}', without(key), 'cannot resume'
        for value in (5, 'x', [1], {}, None):
            yield f'{key}={value!r}', change(key, value=value), 'cannot resume'
    yield 'a bare state dict', base['state_dict'], 'no meta'
    for value in (-5, 'abc', 10**30, True, None, 1.5):
        yield f'iter={value!r}', change('meta', 'iter', value=value), 'cannot resume'
    yield 'more iterations', change('meta', 'iter', value=10**9), 'the config trains 6'
    for key in ('seed', 'sampler_seed', 'epoch_length'):
        for value in (-1, 'abc', 1 << 60):
            yield f'{key}={value!r}', change('meta', key, value=value), key
    yield 'other classes', change('meta', 'dataset_meta', value={'classes': ('a', 'c')}), '1 c instead of b'
    yield 'more classes', change('meta', 'dataset_meta', value={'classes': 'abc'}), 'not a list'
    yield 'three classes', change('meta', 'dataset_meta', value={'classes': ['a', 'b', 'c']}), 'has 3 classes'
    yield 'another optimizer', change('meta', 'optimizer', value='SGD'), 'was trained with SGD'
    optimizer = base['optimizer']
    group = optimizer['param_groups'][0]
    yield 'no groups', change('optimizer', 'param_groups', value=[]), '0 groups of parameters'
    yield 'too many groups', change('optimizer', 'param_groups', value=[group] * 2), '2 groups of parameters'
    yield 'no states', change('optimizer', 'state', value={}), 'no state of an optimizer'
    for key, value in dict(lr=float('nan'), betas='x', eps=None, weight_decay=[1], params=[0, 0]).items():
        yield f'{key}={value!r}', change('optimizer', 'param_groups', 0, key, value=value), 'cannot resume'
    for value in ((0.9,), [0.9], [0.9, 0.9, 0.9]):
        yield f'betas={value}', change('optimizer', 'param_groups', 0, 'betas', value=value), 'betas'
    short = {key: value for key, value in group.items() if key != 'betas'}
    yield 'no betas', change('optimizer', 'param_groups', 0, value=short), 'differ in betas'
    moments = optimizer['state'][0]
    for key, value in dict(
        one=torch.zeros(1), nan=torch.full_like(moments['exp_avg'], float('nan')), none=None, number=0.0
    ).items():
        yield f'exp_avg {key}', change('optimizer', 'state', 0, 'exp_avg', value=value), 'cannot resume'
    yield 'step', change('optimizer', 'state', 0, 'step', value=torch.tensor(-1.0)), 'step of parameter 0'
    yield 'momentum', change('optimizer', 'state', 0, value={'momentum_buffer': moments['exp_avg']}), 'AdamW'
    yield 'state of none', change('optimizer', 'state', 99, value=moments), 'overlap'
    for key, value in dict(last_step='abc', base_values=[None]).items():
        yield f'schedule {key}', change('param_schedulers', 0, key, value=value), 'schedule 0'
    yield 'schedules of numbers', change('param_schedulers', value=[5]), 'schedule 0'
    for key in ('log_scalars', 'runtime_info', 'resumed_keys'):
        yield f'hub {key}', change('message_hub', key, value=5), 'message_hub'
    tagged = {'x': {'__mmmeta__': 'HistoryBuffer'}}
    yield 'a tag', change('message_hub', 'log_scalars', value=tagged), "tagged as 'HistoryBuffer'"
    yield 'a score', change('message_hub', 'runtime_info', 'best_score', value='x'), 'best_score'
    for value in (5, [], [{}], [5], {}):
        yield f'random_states={value!r}', change('random_states', value=value), 'random generators'
    beyond = change('random_states', 0, 'numpy', 'state', 'pos', value=10**6)
    yield 'a position beyond the words', beyond, 'random generators'
    for value in (5, [5], [{'x': torch.zeros(3)}], [{'layer.weight': torch.zeros(1)}]):
        yield f'gradients {value!r}'[:40], change('gradients', value=value), 'accumulated gradients'
    yield 'averages', change('ema_state_dict', value=base['state_dict']), 'no EMAHook'


def cases(base: dict, victim: Path) -> list[Case]:
    """All cases.

    Args:
        base (dict): A checkpoint, as :func:`torch.load` gives it, after four of six iterations with AdamW,
            one schedule, and the classes a and b.
        victim (Path): A file that code in checkpoints would write.
    """
    found = [
        Case(name, lambda path, raw=raw: path.write_bytes(raw) and None, DOORS, message)
        for name, raw, message in _files(base, victim)
    ]
    for name, tensor, message in _tensors(base):
        changed = copy.copy(base)
        changed['state_dict'] = copy.copy(base['state_dict'])
        changed['state_dict'][next(iter(base['state_dict']))] = tensor
        # A run may start from the weights of another head.
        doors = [door for door in DOORS if (door, name) != ('load_from', 'another shape')]
        found.append(Case(name, lambda path, c=changed: torch.save(c, path), tuple(doors), message))
    first, weight = next(iter(base['state_dict'].items()))
    for key, doors in dict(state_dict=('resume',), state_dict_ema=('load_from', 'test', 'load')).items():
        both = {**base, 'state_dict_ema': base['state_dict']}  # as in timm's files
        both[key] = {**base['state_dict'], first: torch.full_like(weight, float('nan'))}
        name = f'NaN in {key} of two'
        found.append(Case(name, lambda path, c=both: torch.save(c, path), doors, 'not finite numbers'))
    found += [
        Case(name, lambda path, content=content: torch.save(content, path), ('resume',), message)
        for name, content, message in _states(base)
    ]
    return found
