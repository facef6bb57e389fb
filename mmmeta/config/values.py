"""Check values where they enter a config: those of ``--cfg-options``, and those that every run reads."""

import logging
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import MODELS

from mmmeta.utils.errors import UsageError


class Range(NamedTuple):
    """What a number has to be.

    Attributes:
        kind (type): ``int``, or ``float`` for both.
        smallest (float): Smallest allowed value.
        largest (float): Largest allowed value. Defaults to infinity, for any that 64 bits can hold.
        others (tuple[float, ...]): Values that are allowed besides. Defaults to none.
        is_whole (bool): Whether a float must not have a fraction. Defaults to False.
    """

    kind: type[int] | type[float]
    smallest: float
    largest: float = math.inf
    others: tuple[float, ...] = ()
    is_whole: bool = False

    def __str__(self) -> str:
        what = 'an integer' if self.kind is int or self.is_whole else 'a finite number'
        if self.smallest > -math.inf:
            what += f' of at least {self.smallest}'
        if self.largest < math.inf:
            what += f' {"and " if self.smallest > -math.inf else "of "}at most {self.largest}'
        return what if not self.others else f'{what}, or {" or ".join(map(str, self.others))}'

    def has(self, value: object) -> bool:
        """Return whether a value is such a number."""
        if isinstance(value, bool) or not isinstance(value, (int, self.kind)):
            return False
        if value in self.others:
            return True
        limit = sys.maxsize if self.kind is int or self.is_whole else sys.float_info.max
        fits = max(self.smallest, -limit) <= value <= min(self.largest, limit)
        return fits and (not self.is_whole or value == int(value))


# A check refuses only what must fail, or would silently do nothing: a class of the user's may take anything.
COUNT, POSITIVE, SHARE = Range(int, 0), Range(int, 1), Range(float, 0, 1)
AMOUNT, NUMBER = Range(float, 0), Range(float, -math.inf)
SEQUENCE, PLAIN_OR_SEVERAL = (list, tuple), (str, os.PathLike, list, tuple, dict)
# What MMEngine's runner takes as ``randomness``.
RANDOMNESS = ('seed', 'diff_rank_seed', 'deterministic')
# Of MMSegmentation; the last one of its depth estimators.
SEGMENTATION_MODES = ('whole', 'slide', 'slide_flip')
# What is at keys that every run reads, by patterns of the keys: a number, or one of several types.
RULES: dict[str, Range | tuple[type, ...]] = {
    r'\w+_dataloader\.batch_size': POSITIVE,
    r'\w+_dataloader\.num_workers': COUNT,
    r'train_cfg\.max_(iters|epochs)': Range(float, 1, is_whole=True),
    r'\w+_evaluator\.iou_metrics': SEQUENCE,
    r'train_cfg\.val_interval': Range(float, 1, others=(math.inf,)),
    r'optim_wrapper\.optimizer\.(lr|weight_decay)': AMOUNT,
    r'optim_wrapper\.optimizer\.betas(\.\d+)*': SHARE,
    r'optim_wrapper\.accumulative_counts': POSITIVE,
    r'optim_wrapper\.clip_grad\.max_norm': Range(float, 0, others=(math.inf,)),
    r'param_scheduler\.\d+\.(begin|end)': Range(float, 0, others=(math.inf,)),
    r'param_scheduler\.\d+\.(power|gamma|eta_min)': NUMBER,
    r'default_hooks\.(checkpoint|ema)\.interval': Range(float, 1, others=(-1, math.inf)),
    r'default_hooks\.checkpoint\.max_keep_ckpts': Range(float, -1),
    r'default_hooks\.(logger|visualization)\.interval': POSITIVE,
    r'randomness\.seed': Range(int, 0, 2**32 - 1),
    r'model\.(\w+\.)*\w*head\.(\d+\.)?(num_classes|channels)(\.\d+)*': POSITIVE,
    r'model\.backbone\.drop_path_rate(\.\d+)*': SHARE,
    r'model\.\w*head\.(\d+\.)?dropout_ratio': Range(float, -math.inf, 1),  # HRNet's have -1
    r'(model\.)?data_preprocessor\.(mean|std)(\.\d+)*': NUMBER,
    r'model|visualizer|optim_wrapper\.optimizer': (dict,),
    r'load_from|work_dir': (str, os.PathLike),
    r'default_scope': (str,),
    r'\w+_dataloader\.(.+\.)?(data_root|data_prefix)': PLAIN_OR_SEVERAL,
    r'resume|\w+_dataloader\.(drop_last|persistent_workers|pin_memory)': (bool, int),
    r'\w+_dataloader\.(.+\.)?pipeline|\w+_(dataloader|evaluator)|param_scheduler': (dict, *SEQUENCE),
    r'custom_hooks': SEQUENCE,
    r'(train|val|test)_cfg|default_hooks|env_cfg|randomness|auto_scale_lr|custom_imports': (dict,),
    r'optim_wrapper|model_wrapper_cfg|(model\.)?data_preprocessor': (dict,),
    r'\w+_dataloader\.(sampler|batch_sampler)|optim_wrapper\.(paramwise_cfg|clip_grad)': (dict,),
    r'model\.((train|test)_cfg|(.+\.)?init_cfg)|\w+_dataloader\.dataset': (dict, *SEQUENCE),
    r'model\.(\w+\.)*\w*head\.(\d+\.)?in_channels|model\.data_preprocessor\.size': (int, dict, *SEQUENCE),
}
# Arguments of classes of MMEngine's and MMCV's, by their names; namesakes of other classes mean other things.
ARGUMENTS = {
    r'param_scheduler\.\d+\.start_factor': (r'Linear(LR|Momentum|ParamScheduler)', SHARE),
    r'\w+_dataloader\.(.+\.)?pipeline\.\d+\.(scale|crop_size)(\.\d+)*': (
        'Resize|RandomResize|RandomCrop',
        Range(float, sys.float_info.min, others=(-1, math.inf)),  # -1 and inf keep the ratio
    ),
}
# What MMEngine builds: a dict with a type, or a list of them.
BUILT = re.compile(
    r'model|visualizer|\w+_dataloader\.dataset|default_hooks\.\w+'
    r'|(param_scheduler|custom_hooks)\.\d+'
)
TYPE = re.compile(
    r'(model|\w+_(dataloader|evaluator|hooks|cfg)|\w+_?wrapper|param_scheduler|visualizer)\.(.+\.)?type'
)
# Where None does not stand for a default.
REQUIRED = re.compile(
    r'model(\.backbone)?|\w+_dataloader\.(batch_size|num_workers|dataset)|train_cfg\.max_\w+|\w+_dataloader\.(.+\.)?pipeline'
    r'|optim_wrapper\.(optimizer|accumulative_counts)'
)
WORDS = {str: 'a text', os.PathLike: 'a path', bool: 'True, False', list: 'a list', dict: 'a dict'}
WORDS |= {int: 'an integer'}


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
        if not _may_replace(_value_at(cfg, key), value):
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
    """Return the value under a dotted key, or None."""
    value: Any = cfg
    for part in key.split('.'):
        if isinstance(value, (list, tuple)) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, (dict, Config)) else None
    return value


def _may_replace(old: object, new: object) -> bool:
    """Return whether a value can stand for another: all but plain ones for what is built from dicts."""
    if new is None or isinstance(new, (dict, list, tuple)):
        return True
    if isinstance(old, dict):  # a name stands for an arch or a data_prefix
        return isinstance(new, str) and 'type' not in old
    return not (isinstance(old, (list, tuple)) and any(isinstance(part, dict) for part in old))


def check_values(cfg: Config) -> None:
    """Check the values of a config that every run reads.

    Raises:
        UsageError: One is of another kind, or out of its range.
    """
    for key, value in iter_items(cfg):
        if value is None and not REQUIRED.fullmatch(key) and not TYPE.fullmatch(key):
            continue
        pattern, rule = next(_rules(cfg, key), ('', ()))
        if isinstance(rule, Range):
            # The entries of a list are checked themselves.
            several = isinstance(value, (list, tuple)) and pattern.endswith('*')
            if not several and not rule.has(value):
                raise UsageError(f'{key}={value}: give {rule}')
        elif rule and not isinstance(value, rule):
            wanted = ' or '.join(WORDS[kind] for kind in rule if kind in WORDS)
            raise UsageError(f'{key}={value}: give {wanted}')
        if BUILT.fullmatch(key) and not isinstance(value, (list, tuple)):
            if not isinstance(value, dict):
                raise UsageError(f'{key}={value}: give a dict, with the type of what is built')
            if 'type' not in value:
                raise UsageError(f'{key} has no type: write the name of a class, {key}.type')
        if TYPE.fullmatch(key) and (not value or not (isinstance(value, str) or callable(value))):
            raise UsageError(f"{key}='{value}': give the name of a class")
    for name in ('data_preprocessor', 'model.data_preprocessor'):
        mean, std = (_value_at(cfg, f'{name}.{key}') for key in ('mean', 'std'))
        if isinstance(mean, (list, tuple)) and isinstance(std, (list, tuple)):
            lengths = {len(mean), len(std)}
            if len(lengths - {1}) > 1:
                raise UsageError(
                    f'{name} has {len(mean)} numbers as mean and {len(std)} as std: give as many'
                )
    test_cfg = _value_at(cfg, 'model.test_cfg')
    mode = test_cfg.get('mode', 'whole') if isinstance(test_cfg, dict) else 'whole'
    if cfg.get('default_scope') == 'mmseg' and mode not in SEGMENTATION_MODES:
        raise UsageError(f'model.test_cfg.mode={mode}: give one of {", ".join(SEGMENTATION_MODES)}')
    unknown = {*(cfg.get('randomness') or {})} - {*RANDOMNESS}
    if unknown:
        raise UsageError(f'randomness has no {min(unknown)}: give {", ".join(RANDOMNESS)}')
    level = cfg.get('log_level') or 'INFO'
    if not isinstance(getattr(logging, str(level), level), int):
        raise UsageError(f"log_level='{level}': give DEBUG, INFO, WARNING, ERROR or CRITICAL")
    _check_scope(cfg)


def _rules(cfg: Config, key: str) -> Iterator[tuple[str, Range | tuple[type, ...]]]:
    """Yield the patterns that a key matches, and what its value has to be."""
    yield from ((pattern, rule) for pattern, rule in RULES.items() if re.fullmatch(pattern, key))
    for pattern, (names, rule) in ARGUMENTS.items():
        if re.fullmatch(pattern, key):
            owner = _value_at(cfg, re.sub(r'\.\w+(\.\d+)*$', '', key))
            if re.fullmatch(names, str(owner.get('type')).rpartition('.')[2]):
                yield pattern, rule


def _check_scope(cfg: Config) -> None:
    """Check that the model can be looked up in the default scope.

    Raises:
        UsageError: It is neither a package nor the scope of a registry, and no name says another one.
    """
    scope, model = cfg.get('default_scope'), (cfg.get('model') or {}).get('type')
    if not scope or scope in MODELS.children:
        return
    try:
        there = find_spec(scope) is not None
    except (ImportError, ValueError):  # of a package that is not there; of __main__
        there = False
    if not there and isinstance(model, str) and '.' not in model and model not in MODELS.module_dict:
        raise UsageError(
            f"default_scope='{scope}': there is no package of that name, and no registry of that scope"
        )


def iter_items(value: Config | dict[str, Any] | Sequence[Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yield all values inside a config with their dotted keys; what it names of modules is imported."""
    for name, part in value.items() if isinstance(value, (dict, Config)) else enumerate(value):
        key = f'{prefix}{name}'
        yield key, part
        if isinstance(part, (dict, list, tuple)):
            yield from iter_items(part, f'{key}.')
