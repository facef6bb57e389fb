"""Configs of MMEngine's pure Python style, whose types are classes, as all others have them: by name."""

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry

from .inspection import iter_dicts

ROOT = 'mmengine'


def with_names(cfg: Config) -> Config:
    """Replace the classes of a config by the names that they are registered under.

    So that what looks up names finds these too. What the config imports is left out at its top, and
    ``default_scope`` is that of the model's class unless it is set. A class that is not registered stays.

    Args:
        cfg (Config): The config.

    Returns:
        Config: The same one if all types are names.
    """
    values = [value for _, value in cfg.items()]
    if not any(callable(value.get('type')) for value in iter_dicts(values)):
        return cfg
    names = dict(_registered())
    model = cfg.get('model') or {}
    scope = cfg.get('default_scope') or (names.get(model.get('type')) or (None,))[0]

    def convert(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(map(convert, value))
        if not isinstance(value, dict):
            return value
        converted = {key: convert(inner) for key, inner in value.items()}
        if value.get('type') in names:
            of, name = names[value['type']]
            converted['type'] = name if of in (ROOT, scope) else f'{of}.{name}'
        return converted

    content = {
        key: value
        for key, value in cfg.items()
        if not (inspect.isclass(value) or inspect.isroutine(value) or isinstance(value, ModuleType))
    }
    if scope not in (None, ROOT):
        content['default_scope'] = scope
    named = Config(convert(content), cfg_text=cfg.text, filename=cfg.filename)
    vars(named)['_is_pure_python'] = True
    return named


def is_pure_python(cfg: Config) -> bool:
    """Return whether a config is of the pure Python style, from which one in text cannot inherit."""
    return '_is_pure_python' in vars(cfg)


def _registered() -> Iterator[tuple[object, tuple[str, str]]]:
    """Classes and functions, each with the scope and the name that it is registered under."""
    for root in vars(mmengine.registry).values():
        for registry in (root, *root.children.values()) if isinstance(root, Registry) else ():
            for name, registered in registry.module_dict.items():
                yield registered, (registry.scope, name)
