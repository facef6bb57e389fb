"""Keys, types and arguments of a config that nothing has."""

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import LOOPS, MODELS, Registry
from mmengine.runner import Runner

from mmmeta.errors import nearest
from mmmeta.registry import MODELS as OUR_MODELS
from mmmeta.registry import MODULES as LAZY_NAMES

from .finding import Finding, bare_model, parts_of, scope_of

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
)


def check_keys(cfg: Config) -> Iterator[Finding]:
    """Keys at the top that are likely to be misspelt, or of MMCV 1."""
    for key in cfg:
        if key in FORMER_KEYS:
            # Beside what took its place it is left over.
            if _lacks(cfg, FORMER_KEYS[key]):
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


def _look_up(registry: Registry, name: str, scope: str) -> Any:
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
        cls = _look_up(MODELS, name, scope)
        if cls is None:
            meant = _similar_type(name, scope)
            hint = f"write '{meant}'" if meant else 'is a module missing in custom_imports?'
            yield Finding(f'{key}.type', f"{key}.type='{name}' is not registered: {hint}", is_fatal=True)
        elif inspect.isclass(cls):  # a function stands for a model whose package is missing
            yield from _check_arguments(key, part, cls)


def check_loop(cfg: Config) -> Iterator[Finding]:
    """Arguments of ``train_cfg`` that its loop does not take."""
    loop = cfg.get('train_cfg')
    if not isinstance(loop, dict):
        return
    default = 'EpochBasedTrainLoop' if loop.get('by_epoch', True) else 'IterBasedTrainLoop'
    name = loop.get('type', default)
    cls = _look_up(LOOPS, name, scope_of(cfg)) if isinstance(name, str) else name
    if inspect.isclass(cls):
        # Which loop it is, for those that have no type; mmmeta.Runner takes both.
        given = {key: value for key, value in loop.items() if key != 'by_epoch'}
        yield from _check_arguments('train_cfg', given, cls)


def _check_arguments(key: str, given: dict, cls: type) -> Iterator[Finding]:
    """Arguments that a class does not take; nothing of classes that take any."""
    parameters = inspect.signature(cls.__init__).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    takes = [name for name in parameters if name != 'self']  # 'pretrained' has a check of its own
    for name in given:
        if name not in ('type', '_scope_', 'pretrained', *takes):
            meant = nearest(name, takes)
            hint = f'it is written {meant}' if meant else f'it takes {", ".join(takes)}'
            yield Finding(
                f'{key}.{name}',
                f'{cls.__name__} takes no argument {name!r} ({key}.{name}): {hint}',
                is_fatal=True,
            )


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
            )
