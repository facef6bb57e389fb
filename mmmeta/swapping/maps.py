"""Which maps of another backbone the neck or the heads read, and their channels everywhere."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import ConfigDict

from mmmeta.config.inspection import bare_type
from mmmeta.config.wiring import trace_backbone
from mmmeta.models import MetaFormer
from mmmeta.registry import MODELS
from mmmeta.utils.errors import UsageError

Maps = list[tuple[int, int]]  # channels and stride of each
HEADS = ('decode_head', 'auxiliary_head', 'rpn_head', 'roi_head', 'bbox_head', 'mask_head', 'panoptic_head')
# Necks that read the last map alone, whatever the backbone gives.
READ_LAST = ('CTResNetNeck',)
# Heads that read the first map as well, whatever their in_index is.
READS_FIRST = 'c1_in_channels'


def build_ours(config: dict) -> MetaFormer:
    """Build a backbone of ours without allocating it, which checks its arguments."""
    with torch.device('meta'):
        return MODELS.build({key: value for key, value in config.items() if key != 'init_cfg'})


def choose_stages(maps: Maps, dilated: bool, ours: MetaFormer, name: str) -> tuple[list[int], int | None]:
    """Choose the stage for each map of the original, and ``out_stride``.

    Args:
        maps (list[tuple[int, int]]): Channels and strides of the original's maps.
        dilated (bool): Whether its last stages are dilated.
        ours (MetaFormer): The backbone that takes its place.
        name (str): Type of the original, for the error.

    Raises:
        UsageError: No stage has such a stride.
    """
    strides = [stride for _, stride in maps]
    natural = list(ours.strides)
    wrong = next((stride for stride in strides if stride not in natural), None)
    if wrong is not None:
        raise UsageError(
            f"'{name}' gives a map of stride {wrong}, and the stages of {type(ours).__name__} have "
            f'{", ".join(map(str, natural))}: its head needs a backbone with such a stage'
        )
    last = len(natural) - 1
    if strides == sorted(set(strides)) and not dilated:
        return [natural.index(stride) for stride in strides], None
    if strides != sorted(strides):
        raise UsageError(f"'{name}' gives maps of strides {strides}, which are in no order of stages")
    finest = strides[-1]
    repeated = strides.count(finest)
    stages = [natural.index(stride) for stride in strides[:-repeated]]
    stages += range(last - repeated + 1, last + 1)
    if stages != sorted(set(stages)):
        raise UsageError(
            f"'{name}' gives {len(strides)} maps of strides {strides}, and {type(ours).__name__} has "
            f'{len(natural)} stages'
        )
    return stages, finest if finest < natural[-1] else None


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _like(value: Any, items: Sequence) -> Any:
    """The items in the kind of sequence that a value is."""
    return type(value)(items) if isinstance(value, (list, tuple)) else list(items)


def _indices(head: dict, count: int, is_head: bool = True) -> set[int]:
    """Maps that a head reads, counted from 0."""
    if 'in_index' in head:
        found = {index % count for index in _as_list(head['in_index'])}
    elif not is_head:
        found = set()
    elif isinstance(head.get('in_channels'), (list, tuple)):
        found = set(range(count))
    else:
        found = {count - 1}
    if head.get(READS_FIRST):
        found.add(0)
    for value in head.values():
        if isinstance(value, dict):
            found |= _indices(value, count, is_head=False)
    return found


def read_maps(model: ConfigDict, count: int, scope: str) -> list[int]:
    """Which maps of the original's backbone are read; parameters of others would get no gradient."""
    neck = model.get('neck')
    if neck:
        first = _as_list(neck)[0]
        start = count - 1 if bare_type(first) in READ_LAST else first.get('start_level') or 0
        return list(range(start, _end(first, count)))
    if scope != 'mmseg':
        return list(range(count))
    heads = [head for name in HEADS for head in _as_list(model.get(name))]
    nested = [head for head in heads if 'in_channels' not in head and 'in_index' not in head]
    plain = [head for head in heads if head not in nested]
    found = {i for head in plain for i in _indices(head, count)}
    found |= {i for head in nested for i in _indices(head, count, is_head=False)}
    return sorted(found)


def _end(neck: dict, count: int) -> int:
    """The first map that a neck leaves out."""
    last = neck.get('end_level')
    return last + 1 if isinstance(last, int) and 0 <= last < count else count


def rewire(part: dict, old: list[int], new: list[int], places: dict[int, int], last: bool = True) -> dict:
    """A part that reads maps, with the channels of the new ones.

    Args:
        part (dict): Its config.
        old (list[int]): Channels of the maps that it was given.
        new (list[int]): Channels of those that it is given.
        places (dict[int, int]): Where an old map is among the new ones.
        last (bool): Whether a part without ``in_index`` reads the last map. Defaults to True.

    Returns:
        dict: The part.
    """
    part = copy.deepcopy(part)
    value, index = part.get('in_channels'), part.get('in_index')
    if isinstance(index, (list, tuple)):
        chosen = [places[i % len(old)] for i in index]
        part['in_index'] = _like(index, chosen)
        if isinstance(value, (list, tuple)):
            part['in_channels'] = _like(value, [new[i] for i in chosen])
    elif isinstance(index, int):
        place = places[index % len(old)]
        part['in_index'] = place
        if isinstance(value, int):
            part['in_channels'] = new[place]
        elif isinstance(value, (list, tuple)):
            part['in_channels'] = _like(value, [new[place]])
    elif isinstance(value, (list, tuple)):
        kept = [old[i] for i in sorted(places)]
        if list(value) in (old, old[::-1]):
            ordered = new if list(value) == old else new[::-1]
            part['in_channels'] = _like(value, ordered)
        elif list(value) == kept[::-1]:
            part['in_channels'] = _like(value, new[::-1])
        elif len(value) == len(kept):
            part['in_channels'] = _like(value, new)
    elif isinstance(value, int) and last and value == old[-1]:
        part['in_channels'] = new[-1]
    if part.get(READS_FIRST):
        part[READS_FIRST] = new[places[0]]
    for key, inner in part.items():
        if isinstance(inner, dict):
            part[key] = rewire(inner, old, new, places, last=False)
    return part


def original_maps(backbone: dict, scope: str) -> Maps:
    """Channels and strides of the maps of a config's own backbone, found without computing."""
    size = 256
    # What changes no shape, and what has no form without computing, or would fetch weights.
    left_out = ('init_cfg', 'pretrained', 'dcn', 'stage_with_dcn', 'plugins', 'sac', 'stage_with_sac')
    plain = {key: value for key, value in backbone.items() if key not in left_out}
    if plain['type'].endswith('TIMMBackbone'):
        plain['pretrained'] = False
    shapes = trace_backbone(plain, scope, (size, size))
    return [(shape[1], round(size / shape[2])) for shape in shapes]


def wire_dense(model: ConfigDict, ours: MetaFormer, scope: str) -> tuple[list[int], int | None]:
    """Give the parts of a detector or a segmentor the channels of another backbone, in place.

    Args:
        model (ConfigDict): The model, still with its own backbone.
        ours (MetaFormer): The other backbone, built.
        scope (str): The model's scope.

    Returns:
        tuple[list[int], int | None]: ``out_indices`` and ``out_stride`` of the other backbone.

    Raises:
        UsageError: The stages do not fit.
    """
    backbone = model.backbone
    name = bare_type(backbone)
    maps = original_maps(backbone, scope)
    dilations = _as_list(backbone.get('dilations'))
    dilated = len(maps) == 1 and max(dilations, default=1) > 1
    stages, out_stride = choose_stages(maps, dilated, ours, name)
    heads = [head for key in HEADS for head in _as_list(model.get(key))]
    for head in [] if model.get('neck') else heads:
        # It is given several maps, and reads but the last, so that norms of others had no gradient.
        if bare_type(head) == 'EncHead' and not head.get('add_lateral'):
            head.update(in_channels=head['in_channels'][-1:], in_index=head['in_index'][-1:])
    read = read_maps(model, len(maps), scope)
    places = {old: new for new, old in enumerate(read)}
    old = [channels for channels, _ in maps]
    new = [ours.dims[stages[i]] for i in read]
    neck = model.get('neck')
    if neck:
        first = rewire(_as_list(neck)[0], old, new, places)
        if first.get('start_level'):
            first['start_level'] = 0
        if _end(first, len(maps)) < len(maps):
            first['end_level'] = -1
        given, takes = _behind(first, old, new)
        model.neck = [first, *neck[1:]] if isinstance(neck, (list, tuple)) else first
        if given == takes:
            return [stages[i] for i in read], out_stride
        old, new, places = given, takes, {i: i for i in range(len(given))}
    for key in HEADS:
        heads = model.get(key)
        if not heads:  # none, or taken out
            continue
        wired = [_rewire_head(head, old, new, places, scope) for head in _as_list(heads)]
        model[key] = _like(heads, wired) if isinstance(heads, (list, tuple)) else wired[0]
    if 'track_head' in model and not neck:
        model.track_head = rewire(model.track_head, old, new, places)
    return [stages[i] for i in read], out_stride


def _rewire_head(head: dict, old: list[int], new: list[int], places: dict[int, int], scope: str) -> dict:
    """A head, and the parts of a RoI head, which read one map where there is no neck."""
    head = rewire(head, old, new, places)
    if scope == 'mmdet' and len(new) == 1:
        for name in ('bbox_head', 'mask_head'):
            if isinstance(head.get(name), dict):
                head[name] = rewire(head[name], old, new, places)
        extractor = head.get('bbox_roi_extractor')
        if extractor and extractor.get('out_channels') == old[-1]:
            extractor['out_channels'] = new[-1]
    return head


def _behind(neck: dict, old: list[int], new: list[int]) -> tuple[list[int], list[int]]:
    """Channels behind a neck that hands on what it is given, before and now; equal behind all others."""
    name = bare_type(neck)
    if name == 'JPU':
        joined = neck.get('mid_channels', 512) * len(neck.get('dilations', (1, 2, 4, 8)))
        return [*old[:-1], joined], [*new[:-1], joined]
    if name == 'SSDNeck':
        before = list(neck['out_channels'])
        neck['out_channels'] = (*new, *before[len(new) :])
        return before, list(neck['out_channels'])
    return [], []


def wire_classifier(model: ConfigDict, ours: MetaFormer) -> list[int]:
    """Give a classifier, or what learns features without labels, the channels of another backbone, in place.

    Args:
        model (ConfigDict): The model.
        ours (MetaFormer): The other backbone, built.

    Returns:
        list[int]: ``out_indices`` of the other backbone.
    """
    stages, last = [len(ours.dims) - 1], ours.dims[-1]
    neck, head = model.get('neck'), model.get('head')
    necks = _as_list(neck)
    if necks and isinstance(necks[0].get('in_channels'), (list, tuple)):  # that of HRNet joins all stages
        stages = list(range(len(ours.dims)))
        necks[0].in_channels = _like(necks[0].in_channels, list(ours.dims))
        return stages
    for part in necks:
        if bare_type(part) == 'GlobalAveragePooling' and part.get('dim', 2) != 2:
            part.dim = 2  # maps, where the original gave tokens
    # What pools hands on the channels of the backbone.
    first = next((part for part in (*necks, head) if part and 'in_channels' in part), None)
    if first is not None:
        first.in_channels = last
    if not necks and head and head.get('type') != 'CSRAClsHead':
        model.neck = ConfigDict(type='GlobalAveragePooling')
    return stages
