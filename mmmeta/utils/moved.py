"""Former paths of modules: public ones work for one release, others raise an error with the new path."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PUBLIC = {
    'mmmeta.analysis.wiring': 'mmmeta.config.wiring',
    'mmmeta.apis.cam': 'mmmeta.visualization.cam',
    'mmmeta.apis.checking': 'mmmeta.validation',
    'mmmeta.apis.creating': 'mmmeta.scaffold',
    'mmmeta.apis.forecasting': 'mmmeta.analysis.forecasting',
    'mmmeta.apis.swapping': 'mmmeta.swapping',
    'mmmeta.deploy.runtime': 'mmmeta.runtime.run',
    'mmmeta.errors': 'mmmeta.utils.errors',
}
PRIVATE = {
    'mmmeta.apis.backbones': 'mmmeta.config.backbones',
    'mmmeta.apis.browse': 'mmmeta.visualization.browsing',
    'mmmeta.apis.checks': 'mmmeta.config.data',
    'mmmeta.apis.cli': 'mmmeta.cli.arguments',
    'mmmeta.apis.config': 'mmmeta.config.loading',
    'mmmeta.apis.coverage': 'benchmarks.coverage',
    'mmmeta.apis.demo': 'mmmeta.cli.demo',
    'mmmeta.apis.gpu_parts': 'benchmarks.gpu_parts',
    'mmmeta.apis.launch': 'mmmeta.cli.launch',
    'mmmeta.apis.literals': 'mmmeta.config.literals',
    'mmmeta.apis.lock': 'mmmeta.engine.lock',
    'mmmeta.apis.metafiles': 'benchmarks.metafiles',
    'mmmeta.apis.pictures': 'mmmeta.visualization.pictures',
    'mmmeta.apis.reading': 'mmmeta.config.reading',
    'mmmeta.apis.samples': 'mmmeta.deploy.samples',
    'mmmeta.apis.values': 'mmmeta.config.values',
    'mmmeta.atomic': 'mmmeta.utils.atomic',
    'mmmeta.models.layers.kernels': 'mmmeta.models.ops.kernels',
    'mmmeta.models.layers.recompute': 'mmmeta.models.ops.recompute',
    'mmmeta.models.layers.windows': 'mmmeta.models.ops.windows',
    'mmmeta.resources': 'mmmeta.utils.resources',
    'mmmeta.stack': 'mmmeta.utils.stack',
}


class _Finder(MetaPathFinder, Loader):
    """Find former paths of modules; first, since folders of an older checkout may still be there."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in PUBLIC:
            return ModuleSpec(name, self, is_package=True)
        parent, _, child = name.rpartition('.')
        if name in PRIVATE or parent in PUBLIC:
            new = PRIVATE.get(name) or f'{PUBLIC[parent]}.{child}'
            raise ModuleNotFoundError(f"'{name}' has moved: import '{new}'", name=name)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = PUBLIC[spec.name]
        warnings.warn(
            f"'{spec.name}' has moved, and goes with the next release: import '{new}'",
            DeprecationWarning,
            stacklevel=2,
        )
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        moved = import_module(PUBLIC[module.__name__])
        module.__dict__.update(
            {name: value for name, value in vars(moved).items() if not name.startswith('__')}
        )
        if hasattr(moved, '__all__'):
            module.__dict__['__all__'] = moved.__all__


def install() -> None:
    """Let Python find former paths; more than once is as once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
