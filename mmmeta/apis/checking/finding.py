"""What a check finds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

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


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The name of those that are there which is most like a misspelt one, whatever its case."""
    by_lower = {other.lower(): other for other in names}
    found = get_close_matches(name.lower(), by_lower, 1, cutoff)
    return by_lower[found[0]] if found else None


def shorten(values: Iterable[Any], limit: int = 5) -> str:
    """The first of several values, and how many there are."""
    values = [str(value) for value in values]
    more = f' and {len(values) - limit} more' if len(values) > limit else ''
    return ', '.join(values[:limit]) + more
