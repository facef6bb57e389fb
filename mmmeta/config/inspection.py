"""Look things up in configs: parts of models, data sets, loaders, weights."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS

TRAIN_LOADERS = ('train_dataloader', 'val_dataloader')
TEST_LOADERS = ('test_dataloader',)
ALL_LOADERS = (*TRAIN_LOADERS, *TEST_LOADERS)


def iter_dicts(value: object) -> Iterator[dict[str, Any]]:
    """Every dict inside a config value, the value itself included."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from iter_dicts(part)


def datasets(loader: ConfigDict | list[ConfigDict]) -> Iterator[ConfigDict]:
    """The configs of the data sets of data loaders, without wrappers such as ``RepeatDataset``."""
    for value in iter_dicts(loader.get('dataset', {}) if isinstance(loader, dict) else loader):
        if 'pipeline' in value and not isinstance(value.get('dataset'), dict):
            yield value


def dataset_class(dataset: dict[str, Any], scope: str) -> type | None:
    """The class of a data set's config, or None if it is not registered.

    Args:
        dataset (dict): The config.
        scope (str): The scope that its type is looked up in.
    """
    name = dataset.get('type')
    if not isinstance(name, str):
        return name
    with DATASETS.switch_scope_and_registry(scope) as registry:
        return registry.get(name)


def class_metainfo(dataset: dict[str, Any], scope: str) -> dict[str, Any]:
    """What the class of a data set's config says of its classes; nothing if it is not registered.

    Args:
        dataset (dict): The config.
        scope (str): The scope that its type is looked up in.
    """
    return getattr(dataset_class(dataset, scope), 'METAINFO', None) or {}


def classes_of(dataset: dict[str, Any], scope: str) -> tuple[str, ...]:
    """Names of the classes of a data set that is not built; none where they are in a file or unknown.

    Args:
        dataset (dict): The config.
        scope (str): The scope that its type is looked up in.
    """
    classes = {**class_metainfo(dataset, scope), **(dataset.get('metainfo') or {})}.get('classes') or ()
    return () if isinstance(classes, str) else tuple(classes)


def pretrained_checkpoints(cfg: Config) -> Iterator[str]:
    """The locations of the pretrained weights of the model's parts."""
    for value in iter_dicts(cfg.model):
        if value.get('type') == 'Pretrained' and isinstance(value.get('checkpoint'), str):
            yield value['checkpoint']


# Parts of a model that have a class of their own, by the key that they are under.
PARTS = (
    *('backbone', 'neck', 'decode_head', 'auxiliary_head', 'rpn_head', 'bbox_head', 'mask_head', 'head'),
    *('panoptic_head', 'roi_head'),
)


def bare_model(cfg: Config) -> ConfigDict:
    """The config of the network, inside wrappers such as that of test-time augmentation."""
    model = cfg.model
    while 'backbone' not in model:
        inner = next((model[key] for key in ('module', 'detector') if isinstance(model.get(key), dict)), None)
        if inner is None:
            break
        model = inner
    return model


def bare_type(part: dict[str, Any]) -> str:
    """The type of a part without its scope."""
    return str(part.get('type')).rpartition('.')[2]


def scope_of(cfg: Config) -> str:
    """The scope that its types are looked up in."""
    return cfg.get('default_scope') or 'mmengine'


def preprocessor_of(cfg: Config) -> tuple[str, dict[str, Any]]:
    """The data preprocessor, in the model or beside it, and its key."""
    model = bare_model(cfg)
    if isinstance(model.get('data_preprocessor'), dict):
        return 'model.data_preprocessor', model['data_preprocessor']
    return 'data_preprocessor', cfg.get('data_preprocessor') or {}


def pads_labels(preprocessor: dict[str, Any]) -> bool:
    """Whether a data preprocessor is MMSegmentation's, which pads images and their labels."""
    return str(preprocessor.get('type', 'SegDataPreProcessor')).endswith('SegDataPreProcessor')


def our_backbone(cfg: Config) -> dict[str, Any] | None:
    """The config of the backbone, if it is one of ours."""
    backbone = bare_model(cfg).get('backbone')
    ours = isinstance(backbone, dict) and str(backbone.get('type')).startswith('mmmeta.')
    return backbone if ours else None


def parts_of(model: dict[str, Any], prefix: str = 'model') -> Iterator[tuple[str, dict[str, Any]]]:
    """The parts of a model, and of those inside a RoI head, with their keys; one for each of a list."""
    for name in PARTS:
        value = model.get(name)
        for i, part in enumerate(value if isinstance(value, (list, tuple)) else [value]):
            if isinstance(part, dict):
                key = f'{prefix}.{name}.{i}' if isinstance(value, (list, tuple)) else f'{prefix}.{name}'
                yield key, part
                if name == 'roi_head':
                    yield from parts_of(part, key)
