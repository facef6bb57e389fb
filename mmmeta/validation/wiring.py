"""Maps and channels, from the backbone through the neck to every head."""

from collections.abc import Iterator

from mmengine.config import Config

from mmmeta.config.building import check_backbone
from mmmeta.config.inspection import bare_model, our_backbone, parts_of, scope_of
from mmmeta.config.wiring import Wiring, trace_wiring
from mmmeta.utils.errors import UsageError

from .finding import Finding


def _taken(part: dict, given: list[int]) -> list[int] | int | None:
    """What ``in_channels`` of a part should be for the maps that it is given; None if it cannot be said."""
    declared, index = part.get('in_channels'), part.get('in_index', -1)
    if isinstance(declared, int):
        return given[index] if isinstance(index, int) and -len(given) <= index < len(given) else None
    if not isinstance(declared, (list, tuple)):
        return None
    if isinstance(part.get('in_index'), (list, tuple)):
        return [given[i] for i in index] if max(index) < len(given) else None
    return given


def check_wiring(cfg: Config) -> Iterator[Finding]:
    """Values that our backbone does not take, and parts of the model that do not fit each other.

    Nothing is found of models that cannot be traced.
    """
    model = bare_model(cfg)
    # Others may fetch weights when they are built, or cannot be built without computing.
    if our_backbone(cfg) is None:
        return
    try:
        backbone = check_backbone(cfg)
    except UsageError as error:
        yield Finding('model.backbone', str(error), is_fatal=True)
        return
    try:
        wiring = trace_wiring(model, scope_of(cfg), backbone=backbone)
    except Exception:
        return
    seen = set()
    for place in (*wiring.failures, *(mismatch.part for mismatch in wiring.mismatches)):
        # A part that the config does not name comes with its model.
        if place not in seen and place.partition('.')[0] in model:
            seen.add(place)
            yield from _explain_part(model, place, wiring)


def _explain_part(model: dict, found: str, wiring: Wiring) -> Iterator[Finding]:
    """What does not fit of a part."""
    place = found
    name, _, i = place.partition('.')
    part = model[name][int(i)] if i else model[name]
    if isinstance(part, (list, tuple)):  # necks in a row, of which the first is given these maps
        place, part = f'{place}.0', part[0]
    key = f'model.{place}'
    given = [shape[1] for shape in wiring.shapes[found]]
    source = 'the neck' if name != 'neck' and model.get('neck') else 'the backbone'
    gives = f'{source} gives {len(given)} maps of {", ".join(map(str, given))} channels'
    declared, expected = part.get('in_channels'), _taken(part, given)
    indices = part.get('in_index')
    highest = max(indices, default=None) if isinstance(indices, (list, tuple)) else indices
    if isinstance(highest, int) and highest >= len(given):
        yield Finding(
            f'{key}.in_index',
            f'{key}.in_index={indices} has map {highest}, and {gives}, numbered from 0: choose others, or '
            'add stages to model.backbone.out_indices',
        )
    elif expected is not None and declared != expected and list(_as_list(declared)) != _as_list(expected):
        yield Finding(
            f'{key}.in_channels',
            f'{key}.in_channels={declared}, and {gives}: write {key}.in_channels={expected}',
        )
    else:
        # Others may be given what depends on the size of the image.
        direct = (part for part in wiring.mismatches if part.part == found and part.index is not None)
        mismatch = next(direct, None)
        if mismatch is None:
            return
        yield Finding(
            key,
            f'{key}.{mismatch.layer} takes {mismatch.takes} channels and is given {mismatch.given}; {gives}',
        )


def _as_list(value: list[int] | int | None) -> list[int | None]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def check_anchors(cfg: Config) -> Iterator[Finding]:
    """Strides of anchors or points against the maps of the neck."""
    model = bare_model(cfg)
    neck = model.get('neck')
    maps = neck.get('num_outs') if isinstance(neck, dict) else None
    for key, part in parts_of(model) if isinstance(maps, int) else ():
        for name in ('anchor_generator', 'prior_generator'):
            generator = part.get(name)
            strides = generator.get('strides') if isinstance(generator, dict) else None
            if isinstance(strides, (list, tuple)) and len(strides) != maps:
                yield Finding(
                    f'{key}.{name}.strides',
                    f'{key}.{name}.strides={list(strides)} are for {len(strides)} maps, and the neck gives '
                    f'{maps} (model.neck.num_outs): give a stride for each',
                )
