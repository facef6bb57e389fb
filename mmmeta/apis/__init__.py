"""What a user calls from Python; the command lines below ``tools/`` call it too.

The names are imported when they are first used: most of them need MMEngine's runner, which takes seconds.
"""

from importlib import import_module
from typing import Any

_MODULES = dict(
    check='checking',
    build_backbone='backbones',
    build_model='inference',
    evaluate='run',
    forecast='forecasting',
    list_archs='listing',
    list_models='listing',
    new='creating',
    load_config='config',
    predict='inference',
    swap='swapping',
    train='run',
)
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f'{__name__}.{_MODULES[name]}'), name)
