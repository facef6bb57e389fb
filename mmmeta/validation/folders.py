"""Folders of classes against the names of classes, which MMPretrain joins by position."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from mmmeta.engine.hooks import inner_datasets
from mmmeta.utils.errors import shorten

from .finding import Finding

# Images whose labels are compared with their folders.
SAMPLE = 2000


def check_folders(loaded: Mapping[str, Any]) -> Iterator[Finding]:
    """Check that classifiers learn and test each folder under its own name; the first mistake.

    Args:
        loaded (Mapping[str, Any]): Data sets that are built, by the names of their loaders.
    """
    parts = [(name, part) for name, dataset in loaded.items() for part in _bare(dataset)]
    for name, part in parts:
        text = _misnamed(part)
        if text:
            yield Finding(f'{name}.dataset.metainfo', f'{name}: {text}')
            return
    # Set where labels are the positions of the sorted folders, and no list gives them.
    numbered = [(name, part.folder_to_idx) for name, part in parts if hasattr(part, 'folder_to_idx')]
    for (first, folders), (other, others) in pairwise(numbered):
        if folders != others:
            odd = sorted(folders.keys() ^ others.keys())
            yield Finding(
                f'{other}.dataset.data_prefix',
                f'the folder {shorten(odd)} is in one of {first} and {other} alone, and MMPretrain numbers '
                'classes by their sorted folders, so that one label would be two classes: give both all '
                'folders (empty ones count), or lists with labels (ann_file)',
            )
            return


def _bare(dataset: Any) -> list[Any]:
    """A data set, or those inside it."""
    return [bare for part in inner_datasets(dataset) for bare in _bare(part)] or [dataset]


def _plain(name: str) -> str:
    """A name without what differs between folders and classes that mean the same."""
    return name.strip().lower().replace('_', ' ').replace('-', ' ')


def _misnamed(dataset: Any) -> str | None:
    """What is wrong with a data set whose folders have names of classes, and other labels than these."""
    classes, root = getattr(dataset, 'metainfo', {}).get('classes'), getattr(dataset, 'img_prefix', None)
    if not isinstance(classes, Sequence) or isinstance(classes, str) or not isinstance(root, str):
        return None
    count = len(dataset)
    labels: dict[str, set[int]] = defaultdict(set)
    for i in range(0, count, max(count // SAMPLE, 1)):
        info = dataset.get_data_info(i)
        folder, slash, _ = str(info.get('img_path', '')).removeprefix(root).strip('/').partition('/')
        label = info.get('gt_label')
        if slash and isinstance(label, int) and 0 <= label < len(classes):
            labels[folder].add(label)
    places = defaultdict(set)
    for i, name in enumerate(classes):
        places[_plain(str(name))].add(i)
    for folder, found in labels.items():
        own = places.get(_plain(folder))
        if own and not own & found:
            label = min(found)
            source = f"'{dataset.ann_file}'" if dataset.ann_file else 'MMPretrain, by the sorted folders,'
            names = {label: folder for folder, found in labels.items() for label in found}
            order = [names.get(i, '?') for i in range(len(classes))]
            return (
                f"{source} gives images in the folder '{folder}' the label {label}, which metainfo.classes "
                f"calls '{classes[label]}', and they would be learnt under that name: write classes in the "
                f'order of the labels, {shorten(order, 20)}'
            )
    return None
