"""What a user calls from Python; the command lines below ``tools/`` call it too.

The names are imported when they are first used: most of them need MMEngine's runner, which takes seconds.
"""

from importlib import import_module
from typing import Any

_MODULES = dict(
    build_backbone='mmmeta.config.backbones',
    build_model='mmmeta.apis.inference',
    check='mmmeta.validation',
    evaluate='mmmeta.apis.run',
    forecast='mmmeta.analysis.forecasting',
    list_archs='mmmeta.apis.listing',
    list_models='mmmeta.apis.listing',
    load_config='mmmeta.apis.loading',
    new='mmmeta.scaffold',
    predict='mmmeta.apis.inference',
    swap='mmmeta.swapping',
    train='mmmeta.apis.run',
)
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_MODULES[name]), name)
