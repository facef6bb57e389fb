"""Classes of heads, of the data, and of training against validation and test."""

from collections.abc import Iterator

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmmeta.errors import shorten

from ..config import TEST_LOADERS, datasets
from .finding import Finding, bare_model, parts_of

LOADERS = tuple(dict.fromkeys(('train_dataloader', 'val_dataloader', *TEST_LOADERS)))


def classes_of(dataset: dict, scope: str) -> tuple[str, ...] | None:
    """The classes of a data set's config, or None where only its files have them."""
    given = {key.lower(): value for key, value in (dataset.get('metainfo') or {}).items()}
    names = given.get('classes', dataset.get('classes'))
    if names is None:
        with DATASETS.switch_scope_and_registry(scope) as registry:
            cls = registry.get(dataset['type']) if isinstance(dataset['type'], str) else dataset['type']
        names = (getattr(cls, 'METAINFO', None) or {}).get('classes')
    if isinstance(names, str):  # a file, or one class
        return None
    return tuple(names) if names else None


def check_classes(cfg: Config) -> Iterator[Finding]:
    """Numbers of classes of all heads, and the order of classes from loader to loader."""
    scope = cfg.get('default_scope', 'mmengine')
    found: dict[str, tuple[str, ...]] = {}
    for name in LOADERS:
        for dataset in datasets(cfg.get(name) or {}):
            classes = classes_of(dataset, scope)
            if classes is not None:
                found.setdefault(name, classes)
    first = next(iter(found), None)
    if first is None:
        return
    names = found[first]
    for other, classes in found.items():
        if classes == names or (scope == 'mmpretrain' and len(classes) == len(names)):
            continue
        if set(classes) == set(names):
            at = next(i for i, (a, b) in enumerate(zip(names, classes, strict=True)) if a != b)
            what = f"class {at} is '{names[at]}' in {first} and '{classes[at]}' in {other}"
        else:
            odd = sorted(set(names) ^ set(classes))
            what = f'{shorten(odd)} is in one of {first} and {other} alone'
        yield Finding(f'{other}.dataset.metainfo', f'{what}: give both the same metainfo')
    for key, part in parts_of(bare_model(cfg)):
        number = part.get('num_classes')
        # A head of one class tells objects from none, as an RPN does.
        if not isinstance(number, int) or number == len(names) or key.endswith('rpn_head'):
            continue
        if scope == 'mmseg' and part.get('out_channels') == 1 and len(names) == 2:
            continue
        yield Finding(
            f'{key}.num_classes',
            f'{key}.num_classes={number}, and {first} has {len(names)} classes ({shorten(names, 3)}): write '
            f'{key}.num_classes={len(names)}',
        )
