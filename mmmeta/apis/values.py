"""Check values where they enter a config: those of ``--cfg-options``, and those that every run reads."""

import logging
import math
import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

from mmengine.config import Config

from mmmeta.errors import UsageError


class Range(NamedTuple):
    """What a number has to be.

    Attributes:
        kind (type): ``int``, or ``float`` for both.
        smallest (float): The smallest one.
        largest (float): The largest one. Defaults to infinity.
        other (float | None): One that it may be as well. Defaults to None.
    """

    kind: type
    smallest: float
    largest: float = math.inf
    other: float | None = None

    def __str__(self) -> str:
        what = 'an integer' if self.kind is int else 'a finite number'
        if self.smallest > -math.inf:
            what += f' of at least {self.smallest}'
        if self.largest < math.inf:
            what += f' and at most {self.largest}'
        return what if self.other is None else f'{what}, or {self.other}'

    def has(self, value: Any) -> bool:
        """Whether a value is such a number."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return False
        fits = self.smallest <= value <= self.largest or value == self.other
        return fits and isinstance(value, (int, self.kind))


COUNT, POSITIVE, SHARE = Range(int, 0), Range(int, 1), Range(float, 0, 1)
AMOUNT, NUMBER = Range(float, 0), Range(float, -math.inf)
# Numbers at keys that every run reads, by patterns of the keys.
NUMBERS = {
    r'\w+_dataloader\.batch_size': POSITIVE,
    r'\w+_dataloader\.num_workers': COUNT,
    r'train_cfg\.max_(iters|epochs)': POSITIVE,
    r'train_cfg\.val_interval': Range(float, 1),  # of MMDetection's configs some have floats
    r'optim_wrapper\.optimizer\.(lr|weight_decay)': AMOUNT,
    r'optim_wrapper\.optimizer\.betas(\.\d+)*': SHARE,
    r'optim_wrapper\.accumulative_counts': POSITIVE,
    r'optim_wrapper\.clip_grad\.max_norm': AMOUNT,
    r'param_scheduler\.\d+\.(begin|end)': COUNT,
    r'param_scheduler\.\d+\.start_factor': SHARE,
    r'param_scheduler\.\d+\.(power|gamma|eta_min)': NUMBER,
    r'default_hooks\.(checkpoint|ema)\.(interval|max_keep_ckpts)': Range(int, 1, other=-1),
    r'default_hooks\.(logger|visualization)\.interval': POSITIVE,
    r'randomness\.seed': Range(int, 0, 2**32 - 1),
    r'model\.(\w+\.)*\w*head\.(\d+\.)?(num_classes|channels)': POSITIVE,
    r'model\.backbone\.drop_path_rate': SHARE,
    r'model\.\w*head\.(\d+\.)?dropout_ratio': Range(float, 0, 1, other=-1),  # HRNet's have -1
    r'(model\.)?data_preprocessor\.(mean|std)(\.\d+)*': NUMBER,
    r'(.+\.)?pipeline\.\d+\.(scale|crop_size)(\.\d+)*': Range(float, 1, other=-1),  # -1 keeps the ratio
}
# What else is there: a dict with the type of what is built, or a list of them ('built'); a name or a class.
KINDS = {
    r'load_from|work_dir|default_scope|(.+\.)?data_root': str,
    r'(.+\.)?data_prefix': (str, dict),
    r'resume|\w+_dataloader\.(drop_last|persistent_workers|pin_memory)': bool,
    r'(.+\.)?pipeline|custom_hooks': list,
    r'(train|val|test)_(dataloader|cfg)|default_hooks|env_cfg|randomness|auto_scale_lr|custom_imports': dict,
    r'optim_wrapper|model_wrapper_cfg|data_preprocessor|model\.(train|test)_cfg': dict,
    r'\w+_dataloader\.(sampler|batch_sampler)|optim_wrapper\.(paramwise_cfg|clip_grad)': dict,
    r'model|(train|val|test)_evaluator|visualizer|\w+_dataloader\.dataset|optim_wrapper\.optimizer': 'built',
    r'model\.(backbone|neck|\w*head|data_preprocessor)|(.+\.)?(pipeline\.\d+|init_cfg)': 'built',
    r'default_hooks\.\w+|param_scheduler|(param_scheduler|custom_hooks)\.\d+': 'built',
    r'(.+\.)?type': 'name',
}
RULES = [(re.compile(pattern), rule) for pattern, rule in (*NUMBERS.items(), *KINDS.items())]
# Where None does not stand for a default.
REQUIRED = re.compile(
    r'model(\.backbone)?|\w+_dataloader\.(batch_size|num_workers|dataset)|train_cfg\.max_\w+|(.+\.)?(type|pipeline)'
    r'|optim_wrapper\.(optimizer(\.\w+)?|accumulative_counts)|model\..+(num_classes|channels)'
)
# Last parts of keys under which words and numbers, or names and dicts, replace each other.
WORDS = ('loss_scale', 'padding', 'sync_bn', 'pretrained', 'arch', 'data_prefix', 'classes', 'norm_cfg')


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Replace values of a config by those of a command line.

    Args:
        cfg (Config): The config, in place.
        options (dict[str, Any]): Dotted keys and values.

    Raises:
        UsageError: A key does not fit, or a value is of another kind than what it replaces.
    """
    for key, value in options.items():
        if not all(key.split('.')):
            raise UsageError(
                f"--cfg-options '{key}={value}' has an empty part in its key: write KEY.KEY=VALUE"
            )
        if key.partition('.')[0] == 'custom_imports':
            raise UsageError(
                f'--cfg-options {key}: modules are imported when the file is read, write it there'
            )
        if key.rpartition('.')[2] not in WORDS and not _may_replace(_value_at(cfg, key), value):
            old = str(_value_at(cfg, key))
            raise UsageError(
                f'--cfg-options {key}={value}: give a value like that of the config, '
                f'{old if len(old) < 80 else old[:80] + " ..."}'
            )
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f'--cfg-options {" ".join(options)} does not fit the config: {error}') from error


def _value_at(cfg: Config, key: str) -> Any:
    """The value under a dotted key, or None."""
    value: Any = cfg._cfg_dict
    for part in key.split('.'):
        if isinstance(value, (list, tuple)) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def _may_replace(old: Any, new: Any) -> bool:
    """Whether a value can stand for another: numbers for numbers, and no words for lists of them."""
    if old is None or new is None:
        return True
    if isinstance(old, (int, float)):
        return not isinstance(new, (str, dict))
    if isinstance(old, dict):
        return isinstance(new, (dict, list, tuple))
    if isinstance(old, (list, tuple)):
        return not isinstance(new, str) or any(isinstance(part, str) for part in old)
    return True


def check_values(cfg: Config) -> None:
    """Check the values of a config that every run reads.

    Raises:
        UsageError: One is of another kind, or out of its range.
    """
    for key, value in iter_items(cfg._cfg_dict):
        pattern, rule = next(((p, r) for p, r in RULES if p.fullmatch(key)), (None, None))
        if isinstance(value, (list, tuple)) and pattern and pattern.pattern.endswith('*'):
            continue  # its entries are checked
        if rule is not None and (value is not None or REQUIRED.fullmatch(key)):
            _check(key, value, rule)
    scope = cfg.get('default_scope')
    level = cfg.get('log_level') or 'INFO'
    if not isinstance(getattr(logging, str(level), level), int):
        raise UsageError(f"log_level='{level}': give DEBUG, INFO, WARNING, ERROR or CRITICAL")
    if scope and find_spec(scope) is None:
        raise UsageError(f"default_scope='{scope}': there is no package of that name")


def _check(key: str, value: Any, rule: Any) -> None:
    """Check one value."""
    several = isinstance(value, (list, tuple))
    if isinstance(rule, Range):
        if not rule.has(value):
            raise UsageError(f'{key}={value}: give {rule}')
    elif rule == 'name':
        if not value or not (isinstance(value, str) or callable(value)):
            raise UsageError(f"{key}='{value}': give the name of a class")
    elif rule == 'built':
        for part in value if several else [value]:
            if not isinstance(part, dict):
                raise UsageError(f'{key}={value}: give a dict, with the type of what is built')
            if 'type' not in part:
                raise UsageError(f'{key} has no type: write the name of a class, {key}.type')
    elif not isinstance(value, (list, tuple) if rule is list else rule):
        words = {str: 'a text', bool: 'True or False', list: 'a list', dict: 'a dict'}
        wanted = words.get(rule, 'a text or a dict')
        raise UsageError(f'{key}={value}: give {wanted}')


def iter_items(value: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """All values inside a config with their dotted keys; what it names of modules is imported."""
    for name, part in value.items() if isinstance(value, dict) else enumerate(value):
        key = f'{prefix}{name}'
        yield key, part
        if isinstance(part, (dict, list, tuple)):
            yield from iter_items(part, f'{key}.')
