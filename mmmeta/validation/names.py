"""Keys, types and arguments of a config that nothing has."""

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import (
    DATASETS,
    EVALUATOR,
    LOOPS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    Registry,
)
from mmengine.runner import Runner

from mmmeta.config.inspection import ALL_LOADERS, bare_model, parts_of, scope_of
from mmmeta.registry import MODELS as OUR_MODELS
from mmmeta.registry import MODULES as LAZY_NAMES
from mmmeta.utils.errors import nearest

from .finding import Finding

# Keys at the top of a config that MMEngine, its packages or our tools read.
KNOWN_KEYS = {
    *inspect.signature(Runner.__init__).parameters,
    *('default_scope', 'custom_imports', 'auto_scale_lr', 'runner_type', 'model_wrapper_cfg', 'compile'),
    *('tta_model', 'tta_pipeline', 'find_unused_parameters', 'vis_backends', 'strategy', 'console'),
}
# Those of MMEngine's predecessor, which nothing reads any more.
FORMER_KEYS = dict(
    lr_config='param_scheduler',
    optimizer_config='optim_wrapper',
    checkpoint_config='default_hooks.checkpoint',
    log_config='default_hooks.logger',
    evaluation='val_evaluator',
    total_epochs='train_cfg.max_epochs',
    runner='train_cfg',
    data='train_dataloader',
)
# Said of a type that resembles none.
MISSING = 'is a module missing in custom_imports, or a package that it needs?'
# Keys of its predecessor whose names people use for other things, and what is in those of the predecessor.
FORMER_PARTS = dict(data=('samples_per_gpu', 'workers_per_gpu'), runner=('max_epochs', 'max_iters'))


def formers_of(key: str) -> list[str]:
    """Keys of MMCV 1 in whose place a key stands."""
    return [former for former, now in FORMER_KEYS.items() if now == key]


def check_keys(cfg: Config) -> Iterator[Finding]:
    """Keys at the top that are likely to be misspelt, or of MMCV 1."""
    for key in cfg:
        if key in FORMER_KEYS:
            value = cfg.get(key)
            inside = [part for part in FORMER_PARTS.get(key, ()) if isinstance(value, dict) and part in value]
            now = cfg.get(FORMER_KEYS[key]) or {}
            if inside and value[inside[0]] != now.get(inside[0]):
                yield Finding(
                    f'{key}.{inside[0]}',
                    f'{key}.{inside[0]}={value[inside[0]]} is of MMCV 1, and nothing reads it: write '
                    f'{FORMER_KEYS[key]} in its place',
                )
            # Beside what took its place it is left over.
            elif key not in FORMER_PARTS and _lacks(cfg, FORMER_KEYS[key]):
                yield Finding(
                    key, f'{key} is of MMCV 1, and nothing reads it: write {FORMER_KEYS[key]} in its place'
                )
        elif key not in KNOWN_KEYS:
            meant = nearest(key, KNOWN_KEYS, 0.9)
            if meant is not None and key != f'{meant}s':  # a list of a user's own
                yield Finding(key, f'nothing reads {key}: it is written {meant}')


def _lacks(cfg: Config, key: str) -> bool:
    """Whether a config has nothing under a dotted key."""
    value = cfg
    for part in key.split('.'):
        value = value.get(part) if isinstance(value, dict) or value is cfg else None
    return value is None


def look_up(registry: Registry, name: str, scope: str) -> Any:
    """What is registered under a name, seen from a scope; None if nothing is."""
    with registry.switch_scope_and_registry(scope) as scoped:
        return scoped.get(name)


def _similar_type(name: str, scope: str) -> str | None:
    """The registered name that a misspelt one is likely to mean."""
    with MODELS.switch_scope_and_registry(scope) as scoped:
        scoped.import_from_location()
        theirs = list(scoped.module_dict)
    OUR_MODELS.import_from_location()
    bare = name.rpartition('.')[2]
    ours = nearest(bare, {*OUR_MODELS.module_dict, *LAZY_NAMES}, 0.8)
    if ours is not None:
        return f'mmmeta.{ours}'
    return nearest(bare, theirs)


def check_types(cfg: Config) -> Iterator[Finding]:
    """Parts of the model whose type is not registered, and arguments that their class does not take."""
    scope = cfg.get('default_scope')
    if scope is None:  # a part of a config
        return
    model = bare_model(cfg)
    for key, part in (('model', model), *parts_of(model)):
        name = part.get('type')
        if not isinstance(name, str):
            continue
        cls = look_up(MODELS, name, scope)
        if cls is None:
            meant = _similar_type(name, scope)
            hint = f"write '{meant}'" if meant else MISSING
            yield Finding(f'{key}.type', f"{key}.type='{name}' is not registered: {hint}", is_fatal=True)
        elif inspect.isclass(cls):  # a function stands for a model whose package is missing
            yield from check_arguments(key, part, cls)


def check_loop(cfg: Config) -> Iterator[Finding]:
    """Arguments of ``train_cfg`` that its loop does not take."""
    loop = cfg.get('train_cfg')
    if not isinstance(loop, dict):
        return
    default = 'EpochBasedTrainLoop' if loop.get('by_epoch', True) else 'IterBasedTrainLoop'
    name = loop.get('type', default)
    cls = look_up(LOOPS, name, scope_of(cfg)) if isinstance(name, str) else name
    if inspect.isclass(cls):
        # Which loop it is, for those that have no type; mmmeta.Runner takes both.
        given = {key: value for key, value in loop.items() if key != 'by_epoch'}
        yield from check_arguments('train_cfg', given, cls)


def check_arguments(key: str, given: dict, cls: type, bases: bool = False) -> Iterator[Finding]:
    """Arguments that a class does not take; nothing of classes that take any.

    Args:
        key (str): Key of the arguments.
        given (dict): The arguments.
        cls (type): The class.
        bases (bool): Whether a class that takes any hands them to its bases. Defaults to False.
    """
    takes = dict.fromkeys(_arguments_of(cls, bases) or ())
    for name in given if takes else ():
        if name not in ('type', '_scope_', 'pretrained', *takes):  # 'pretrained' has a check of its own
            meant = nearest(name, takes)
            hint = f'it is written {meant}' if meant else f'it takes {", ".join(takes)}'
            yield Finding(
                f'{key}.{name}',
                f'{cls.__name__} takes no argument {name!r} ({key}.{name}): {hint}',
                is_fatal=True,
            )


def _arguments_of(cls: type, bases: bool) -> list[str] | None:
    """Arguments of a class; None if it takes any."""
    found = []
    for part in cls.__mro__ if bases else (cls,):
        if '__init__' in vars(part) or not bases:
            # One of a class, which the type of the variable does not say.
            parameters = inspect.signature(part.__init__).parameters  # type: ignore[misc]
            kinds = {parameter.kind for parameter in parameters.values()}
            found += [name for name in parameters if name not in ('self', 'args', 'kwargs')]
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                return found
    return None


def explain_missing_type(registry: Registry, key: str, name: str, scope: str, cutoff: float = 0.8) -> str:
    """One sentence for a type that is not registered, with what it is likely to mean.

    Args:
        registry (Registry): Where it is looked up.
        key (str): Key of the part whose type it is.
        name (str): The type.
        scope (str): The scope that it is looked up in.
        cutoff (float): How much another has to resemble it. Defaults to 0.8.
    """
    with registry.switch_scope_and_registry(scope) as scoped:
        scoped.import_from_location()
        meant = nearest(name.rpartition('.')[2], {*scoped.module_dict, *registry.module_dict}, cutoff)
    return f"{key}.type='{name}' is not registered: " + (f"write '{meant}'" if meant else MISSING)


def check_types_elsewhere(cfg: Config) -> Iterator[Finding]:
    """Types of data sets, metrics, optimisers and schedulers that are not registered, and their arguments."""
    scope = cfg.get('default_scope')
    if scope is None:
        return
    for registry, key, parts in (
        *(
            (DATASETS, f'{name}.dataset', cfg[name].get('dataset'))
            for name in ALL_LOADERS
            if isinstance(cfg.get(name), dict)
        ),
        *((METRICS, key, cfg.get(key)) for key in ('val_evaluator', 'test_evaluator')),
        (OPTIMIZERS, 'optim_wrapper.optimizer', (cfg.get('optim_wrapper') or {}).get('optimizer')),
        (PARAM_SCHEDULERS, 'param_scheduler', cfg.get('param_scheduler')),
    ):
        several = isinstance(parts, (list, tuple))
        for i, part in enumerate(parts if several else [parts]):
            yield from _check_part(registry, f'{key}.{i}' if several else key, part, scope)


def _check_part(registry: Registry, key: str, part: Any, scope: str) -> Iterator[Finding]:
    name = part.get('type') if isinstance(part, dict) else None
    if not isinstance(name, str):
        return
    cls = look_up(registry, name, scope)
    if cls is None and registry is METRICS:  # what evaluates may be of either kind
        cls = look_up(EVALUATOR, name, scope)
    if cls is None:
        text = explain_missing_type(registry, key, name, scope)
        yield Finding(f'{key}.type', text, is_fatal=True)
    elif registry is DATASETS and inspect.isclass(cls):
        yield from check_arguments(key, part, cls, bases=True)
        if isinstance(part.get('dataset'), dict):  # inside a wrapper
            yield from _check_part(registry, f'{key}.dataset', part['dataset'], scope)


def check_pretrained(cfg: Config) -> Iterator[Finding]:
    """Weights of another backbone, which a base names beside ours."""
    model = bare_model(cfg)
    backbone = model.get('backbone') or {}
    if not str(backbone.get('type')).startswith('mmmeta.'):
        return
    for key, where, remedy in (
        ('model.pretrained', model, 'model=dict(pretrained=None)'),
        ('model.backbone.pretrained', backbone, 'backbone=dict(_delete_=True, ...)'),
    ):
        if where.get('pretrained') or (where is backbone and 'pretrained' in where):
            value = where['pretrained']
            yield Finding(
                key,
                f'{key}={value!r} of the base is for another backbone than {backbone["type"]}: write '
                f'{remedy}',
                is_fatal=where is backbone,  # which takes no such argument
            )
