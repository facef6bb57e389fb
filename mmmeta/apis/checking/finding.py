"""What a check finds."""

from collections.abc import Iterator
from dataclasses import dataclass

from mmengine.config import Config, ConfigDict

# Parts of a model that have a class of their own, by the key that they are under.
PARTS = (
    *('backbone', 'neck', 'decode_head', 'auxiliary_head', 'rpn_head', 'bbox_head', 'mask_head', 'head'),
    *('panoptic_head', 'roi_head'),
)


@dataclass(frozen=True)
class Finding:
    """A mistake, or what is likely to be one.

    Attributes:
        key (str): The key of the config that it is about.
        text (str): One sentence: the value that is there, why it is wrong, and the value to write.
        is_warning (bool): Whether a run may be meant as it is. Defaults to False.
        is_fatal (bool): Whether no run can begin with it. Defaults to False.
    """

    key: str
    text: str
    is_warning: bool = False
    is_fatal: bool = False


def bare_model(cfg: Config) -> ConfigDict:
    """The config of the network, inside wrappers such as that of test-time augmentation."""
    model = cfg.model
    while 'backbone' not in model:
        inner = next((model[key] for key in ('module', 'detector') if isinstance(model.get(key), dict)), None)
        if inner is None:
            break
        model = inner
    return model


def bare_type(part: dict) -> str:
    """The type of a part without its scope."""
    return str(part.get('type')).rpartition('.')[2]


def scope_of(cfg: Config) -> str:
    """The scope that its types are looked up in."""
    return cfg.get('default_scope') or 'mmengine'


def preprocessor_of(cfg: Config) -> tuple[str, dict]:
    """The data preprocessor, in the model or beside it, and its key."""
    model = bare_model(cfg)
    if isinstance(model.get('data_preprocessor'), dict):
        return 'model.data_preprocessor', model['data_preprocessor']
    return 'data_preprocessor', cfg.get('data_preprocessor') or {}


def our_backbone(cfg: Config) -> dict | None:
    """The config of the backbone, if it is one of ours."""
    backbone = bare_model(cfg).get('backbone')
    ours = isinstance(backbone, dict) and str(backbone.get('type')).startswith('mmmeta.')
    return backbone if ours else None


def parts_of(model: dict, prefix: str = 'model') -> Iterator[tuple[str, dict]]:
    """The parts of a model, and of those inside a RoI head, with their keys; one for each of a list."""
    for name in PARTS:
        value = model.get(name)
        for i, part in enumerate(value if isinstance(value, (list, tuple)) else [value]):
            if isinstance(part, dict):
                key = f'{prefix}.{name}.{i}' if isinstance(value, (list, tuple)) else f'{prefix}.{name}'
                yield key, part
                if name == 'roi_head':
                    yield from parts_of(part, key)
