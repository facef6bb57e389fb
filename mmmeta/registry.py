"""Child registries of MMEngine with the scope ``mmmeta``.

Any OpenMMLab config reaches what is registered here by prefix, ``type='mmmeta.CAFormer'``, whichever
``default_scope`` it has, once ``custom_imports = dict(imports=['mmmeta'])`` has run. The modules behind
``locations`` are imported at the first look-up, which keeps ``import mmmeta`` cheap.
"""

from importlib import import_module

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry, build_runner_from_cfg

# Modules that need MMCV, MMDetection, MMPretrain or MMSegmentation, or that stand above those that look them
# up, and the names that each registers; imported on first access.
LAZY = {
    'mmmeta.models.heads.classifier': ('MetaFormerLinearHead', 'MetaFormerMlpHead'),
    'mmmeta.evaluation.robustness': ('CorruptionError', 'ImageNetC', 'ImageNetSubset', 'SubsetAccuracy'),
    'mmmeta.evaluation.class_accuracy': ('ClassAccuracy',),
    'mmmeta.evaluation.confusion_matrix': ('ConfusionMatrix',),
    'mmmeta.datasets.transforms': ('LoadMappedLabels',),
    'mmmeta.deploy.exported_model': ('ExportedModel',),
    'mmmeta.validation.starting': ('CheckLabelsHook',),
}
MODULES = {name: module for module, names in LAZY.items() for name in names}


class _LazyRegistry(Registry):
    """A registry that imports the modules of ``LAZY`` on first access."""

    def get(self, key: str) -> type | None:
        """Return the class registered under a name."""
        module = MODULES.get(key.rpartition('.')[2])
        if module is not None:
            import_module(module)
        return super().get(key)


MODELS = _LazyRegistry('model', parent=MMENGINE_MODELS, scope='mmmeta', locations=['mmmeta.models'])
HOOKS = _LazyRegistry('hook', parent=MMENGINE_HOOKS, scope='mmmeta', locations=['mmmeta.engine'])
RUNNERS = Registry(
    'runner', build_runner_from_cfg, parent=MMENGINE_RUNNERS, scope='mmmeta', locations=['mmmeta.engine']
)
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, scope='mmmeta', locations=['mmmeta.engine'])
DATA_SAMPLERS = Registry(
    'data sampler', parent=MMENGINE_DATA_SAMPLERS, scope='mmmeta', locations=['mmmeta.engine']
)
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope='mmmeta', locations=['mmmeta.engine']
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope='mmmeta',
    locations=['mmmeta.engine'],
)
DATASETS = _LazyRegistry('dataset', parent=MMENGINE_DATASETS, scope='mmmeta')
METRICS = _LazyRegistry('metric', parent=MMENGINE_METRICS, scope='mmmeta')
TRANSFORMS = _LazyRegistry('transform', parent=MMENGINE_TRANSFORMS, scope='mmmeta')
