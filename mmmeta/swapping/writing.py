"""The file that an expert would write by hand: the base, and what differs from it, with reasons."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmmeta.config.backbones import name_of_spec
from mmmeta.config.inspection import classes_of, datasets, scope_of
from mmmeta.config.literals import check_config_path, comment, is_argument, literal
from mmmeta.config.loading import load_config
from mmmeta.config.pure_python import is_pure_python
from mmmeta.utils.atomic import written_together
from mmmeta.utils.errors import UsageError, shorten
from mmmeta.utils.resources import base_path
from mmmeta.utils.targets import check_writable

from .recipe import bases_of
from .swap import Swapped, swap_with_reasons

WIDTH = 110
INDENT = ' ' * 4
# Set by loading, not by the file.
LOADED = ('work_dir',)


def write_swap(
    config: str,
    backbone: str,
    out: str | Path | None = None,
    train_size: tuple[int, int] | None = None,
    keep_optimizer: bool = False,
    force: bool = False,
) -> Path:
    """Write a config with another backbone, which inherits from the original.

    Args:
        config (str): A path, or ``mmdet::...``, ``mmseg::...``, ``mmpretrain::...``.
        backbone (str): As :func:`~mmmeta.apis.swap` takes it.
        out (str | Path | None): File to write. Defaults to None: ``<config>_<backbone>.py`` in the current
            folder.
        train_size (tuple[int, int] | None): As there.
        keep_optimizer (bool): As there.
        force (bool): Whether to write over a file that is there. Defaults to False.

    Returns:
        Path: The file.

    Raises:
        UsageError: As there, or the file exists.
    """
    name, stem = name_of_spec(backbone), Path(config.partition('::')[2] or config).stem
    out = check_config_path(out or f'{stem}_{name}.py')
    if out.suffix != '.py' or out.is_dir():
        raise UsageError(f"--out '{out}' is no name of a config: give a file that ends in .py")
    check_writable(out.parent, '--out')
    original = load_config(config)
    base_of(config, original, out)  # refuses what it cannot inherit from
    if out.resolve() in {Path(base).resolve() for base in (original.filename, *bases_of(original))}:
        raise UsageError(f"--out '{out}' is what it would inherit from: give another file")
    if out.exists() and not force:
        raise UsageError(f"'{out}' exists: give another --out, or --force to write over it")
    title = comment(f'{stem} with {backbone}.') + '\n'
    if original.work_dir != os.path.join('work_dirs', Path(original.filename).stem):
        # Not among the original's checkpoints.
        title += f'work_dir = {literal(f"{original.work_dir}_{name}", "work_dir")}\n'
    swapped = swap_with_reasons(original, backbone, train_size, keep_optimizer)
    with written_together({out: title + format_swap(config, original, swapped, out)}):
        return out


def format_swap(config: str, original: Config, swapped: Swapped, out: Path) -> str:
    """The text of a swapped config, which inherits from the original.

    Args:
        config (str): Name of the original, as a user gave it.
        original (Config): The original, as it was loaded.
        swapped (Swapped): With another backbone.
        out (Path): The file that is written.
    """
    return format_differences(
        base_of(config, original, out), plain(original), plain(swapped.cfg), swapped.reasons
    )


def base_of(config: str, original: Config, out: Path) -> str:
    """The base as MMEngine finds it from the file that is written.

    Args:
        config (str): Name of the base, as a user gave it.
        original (Config): The base, as it was loaded.
        out (Path): The file that is written.

    Raises:
        UsageError: It is of the pure Python style, from which a file in text cannot inherit.
    """
    if is_pure_python(original):
        raise UsageError(
            f"'{original.filename}' is a config of pure Python (its types are classes), from which the file "
            'cannot inherit: give one in text, as those are that OpenMMLab installs, or train it with '
            '--backbone'
        )
    package, _, name = config.partition('::')
    if not name or package == 'mmmeta':
        return base_path(Path(original.filename), out.parent)
    # Of folders with other letters, such as gn+ws, it wants the path.
    return config if re.fullmatch(r'\w+', name.partition('/')[0]) else original.filename


def plain(cfg: Config) -> dict[str, Any]:
    """The values of a config, without what loading adds."""

    def strip(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: strip(part) for key, part in value.items() if key != '_scope_'}
        if isinstance(value, (list, tuple)):
            return type(value)(strip(part) for part in value)
        return value

    return {key: value for key, value in strip(cfg.to_dict()).items() if key not in LOADED}


def format_differences(
    base: str, before: Mapping[str, Any], after: Mapping[str, Any], reasons: Mapping[tuple, str]
) -> str:
    """The text of a config that inherits from another one.

    Args:
        base (str): The other one, as ``_base_`` names it.
        before (Mapping): Its values.
        after (Mapping): The values of the config.
        reasons (Mapping[tuple, str]): Why a value differs, by the last keys of its path.
    """
    lines = [f'_base_ = {literal(base, "base")}']
    for key, value in sorted(after.items(), key=lambda item: item[0] != 'custom_imports'):
        if key in before and before[key] == value:
            continue
        if not is_argument(key):
            raise UsageError(f'the key {key!r} of the config is not a name in Python: rename it')
        changed = _override(before.get(key, _MISSING), value)
        lines += _format((key,), changed, reasons, '', f'{key} = ', '')
    return '\n'.join(lines) + '\n'


def describe_changes(before: Config, after: Config) -> tuple[list[str], list[str]]:
    """Describe what a swap changed, and what it left that belongs to the data of the original.

    Args:
        before (Config): The original, as it was loaded.
        after (Config): The swapped config, as it was loaded.

    Returns:
        tuple[list[str], list[str]]: Keys with another value; and the data, the classes and the schedule.
    """
    changed = list(_changed_keys((), plain(before), plain(after)))
    kept = []
    dataset = next(datasets(after.get('train_dataloader') or {}), None)
    if dataset is not None:
        place = dataset.get('data_root') or dataset.get('ann_file') or dataset.get('data_prefix')
        kept.append(f"the data of {dataset.type} in '{place}'")
        classes = classes_of(dataset, scope_of(after))
        if classes:
            kept.append(f'its {len(classes)} classes ({shorten(classes, 3)})')
    loop = after.get('train_cfg') or {}
    kept += [f'{key}={loop[key]}' for key in ('max_epochs', 'max_iters') if key in loop]
    return changed, kept


def _changed_keys(path: tuple, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Keys of what differs; of a part that is another one its own key alone."""
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key, _MISSING), after.get(key, _MISSING)
        both = isinstance(old, Mapping) and isinstance(new, Mapping)
        if both and old.get('type') == new.get('type'):
            yield from _changed_keys((*path, key), old, new)
        elif old != new:
            yield _name((*path, key))


_MISSING = object()


def _override(before: Any, after: Any) -> Any:
    """What to write so that merging it into ``before`` gives ``after``."""
    if not isinstance(after, Mapping):
        return after
    if before is _MISSING:
        return dict(after)
    whole = dict(_delete_=True, **after)
    if not isinstance(before, Mapping) or any(key not in after for key in before):
        return whole
    if before.get('type') != after.get('type') and 'type' in before:
        return whole
    return {
        key: _override(before.get(key, _MISSING), value)
        for key, value in after.items()
        if key not in before or before[key] != value
    }


def _name(path: tuple) -> str:
    """The path of a value as a user writes it."""
    return '.'.join(str(key) for key in path if key is not None)


def _reason(path: tuple, reasons: Mapping[tuple, str]) -> str | None:
    return next((text for key, text in reasons.items() if path[-len(key) :] == key), None)


def _format(
    path: tuple, value: Any, reasons: Mapping[tuple, str], indent: str, head: str, tail: str
) -> list[str]:
    """Lines of a value, with the reason before it."""
    reason = _reason(path, reasons)
    lines = [f'{indent}{comment(reason)}'] if reason else []
    inner = _has_inner_reason(path, value, reasons)
    flat = f'{indent}{head}{literal(value, _name(path))}{tail}'
    if len(flat) <= WIDTH and not inner:
        return [*lines, flat]
    deeper = indent + INDENT
    if isinstance(value, Mapping):
        if all(map(is_argument, value)):
            lines.append(f'{indent}{head}dict(')
            for key, part in value.items():
                lines += _format((*path, key), part, reasons, deeper, f'{key}=', ',')
            return [*lines, f'{indent}){tail}']
        lines.append(f'{indent}{head}{{')
        for key, part in value.items():
            lines += _format((*path, key), part, reasons, deeper, f'{literal(key, _name(path))}: ', ',')
        return [*lines, f'{indent}}}{tail}']
    if isinstance(value, Sequence) and not isinstance(value, str):
        opening, closing = '[]' if isinstance(value, list) else '()'
        lines.append(f'{indent}{head}{opening}')
        if all(isinstance(part, (int, float, str)) for part in value):
            lines += _filled(value, deeper, _name(path))
        else:
            for part in value:
                lines += _format((*path, None), part, reasons, deeper, '', ',')
        return [*lines, f'{indent}{closing}{tail}']
    return [*lines, flat]


def _filled(values: Sequence, indent: str, what: str) -> list[str]:
    """Plain values, as many on a line as it takes."""
    lines = [indent]
    for value in values:
        text = f'{literal(value, what)},'
        if len(lines[-1]) + len(text) + 1 > WIDTH:
            lines.append(indent)
        lines[-1] += text if lines[-1] == indent else f' {text}'
    return lines


def _has_inner_reason(path: tuple, value: Any, reasons: Mapping[tuple, str]) -> bool:
    """Whether a value inside a dict has a reason."""
    return isinstance(value, Mapping) and any(
        _reason((*path, key), reasons) or _has_inner_reason((*path, key), part, reasons)
        for key, part in value.items()
    )
