"""Classes of heads, of the data, and of training against validation and test."""

import os
from collections.abc import Iterator

from mmengine.config import Config

from mmmeta.config.inspection import ALL_LOADERS, bare_model, class_metainfo, datasets, parts_of, scope_of
from mmmeta.utils.errors import shorten

from .finding import Finding


def _class_info(dataset: dict, scope: str) -> dict:
    """What a data set's config and its class say of the classes."""
    given = dict(dataset.get('metainfo') or {})
    if 'classes' in dataset:
        given.setdefault('classes', dataset['classes'])
    if 'classes' in given:  # those of things and stuff are of the class's own
        return given
    return {**class_metainfo(dataset, scope), **given}


def check_classes(cfg: Config) -> Iterator[Finding]:
    """Numbers of classes of all heads, and the order of classes from loader to loader."""
    scope, model = scope_of(cfg), bare_model(cfg)
    found: dict[str, tuple[str, ...]] = {}
    types: dict[str, str] = {}
    numbers: set[int] = set()
    for name in ALL_LOADERS:
        for dataset in datasets(cfg.get(name) or {}):
            info = _class_info(dataset, scope)
            classes = info.get('classes')
            if classes and not isinstance(classes, str):  # not those of a file
                found.setdefault(name, tuple(classes))
                types.setdefault(name, dataset.get('type'))
                # A panoptic model has heads for things, and others for all.
                numbers.update(len(info[key]) for key in ('thing_classes', 'stuff_classes') if key in info)
    first = next(iter(found), None)
    # Classes may be words, and a detector inside a tracker is trained on other data.
    if first is None or 'language_model' in model or 'detector' in cfg.model:
        return
    names = found[first]
    numbers.add(len(names))
    for other, classes in found.items():
        if classes == names or (scope == 'mmpretrain' and len(classes) == len(names)):
            continue
        if set(classes) == set(names):
            at = next(i for i, (a, b) in enumerate(zip(names, classes, strict=True)) if a != b)
            what = f"class {at} is '{names[at]}' in {first} and '{classes[at]}' in {other}"
        elif types[first] != types[other]:  # tested on other data on purpose
            continue
        else:
            odd = sorted(set(names) ^ set(classes))
            what = f'{shorten(odd)} is in one of {first} and {other} alone'
        yield Finding(f'{other}.dataset.metainfo', f'{what}: give both the same metainfo')
    for key, part in parts_of(model):
        number = part.get('num_classes')
        # A head of one class tells objects from none, as an RPN does.
        if not isinstance(number, int) or number in numbers or key.endswith('rpn_head'):
            continue
        if 'boundary_threshold' in part or part.get('class_agnostic'):
            continue
        if scope == 'mmseg' and part.get('out_channels') == 1 and len(names) == 2:
            continue
        yield Finding(
            f'{key}.num_classes',
            f'{key}.num_classes={number}, and {first} has {len(names)} classes ({shorten(names, 3)}): write '
            f'{key}.num_classes={len(names)}',
            is_warning=scope == 'mmpretrain' and number > len(names),
        )


def check_class_names(cfg: Config) -> Iterator[Finding]:
    """Names of classes as data sets want them: a tuple, under ``classes``, with a colour for each."""
    seen = []
    for name in ALL_LOADERS:
        for dataset in datasets(cfg.get(name) or {}):
            key, info = f'{name}.dataset.metainfo', dataset.get('metainfo')
            if not isinstance(info, dict) or (dataset.get('type'), info) in seen:
                continue
            seen.append((dataset.get('type'), info))
            for word in ('classes', 'palette'):
                given = next((k for k in info if k.lower() == word), word)
                if given != word:
                    yield Finding(f'{key}.{given}', f'nothing reads {key}.{given}: it is written {word}')
            own = class_metainfo(dataset, scope_of(cfg)).get('classes')
            classes, palette = info.get('classes', own), info.get('palette')
            if isinstance(classes, str) and not os.path.isfile(classes):
                yield Finding(
                    f'{key}.classes',
                    f'{key}.classes={classes!r} is one string, which is read as the name of a file: write '
                    f'({classes!r},)',
                    is_fatal=True,
                )
                continue
            odd = [one for one in classes or () if one not in (own or classes or ())]
            if odd and scope_of(cfg) == 'mmseg':
                yield Finding(
                    f'{key}.classes',
                    f'{key}.classes has {shorten(odd, 3)}, which {dataset.type} does not know: write '
                    f"{name}.dataset.type='BaseSegDataset' for data of your own",
                    is_fatal=True,
                )
            if odd or not isinstance(classes, (list, tuple)):
                continue
            if palette and len(palette) < len(classes):
                yield Finding(
                    f'{key}.palette',
                    f'{key}.palette has {len(palette)} colours, and there are {len(classes)} classes: give '
                    'one for each, or leave palette out',
                    is_warning=scope_of(cfg) != 'mmseg',
                    is_fatal=scope_of(cfg) == 'mmseg',
                )


def check_losses(cfg: Config) -> Iterator[Finding]:
    """Outputs of a segmentor's heads against their losses: one output, and weights of the classes."""
    if scope_of(cfg) != 'mmseg':
        return
    for key, part in parts_of(bare_model(cfg)):
        classes, losses = part.get('num_classes'), part.get('loss_decode')
        if not isinstance(classes, int) or 'channels' not in part:  # of decoders with queries
            continue
        for loss in losses if isinstance(losses, (list, tuple)) else [losses or {}]:
            outputs = part.get('out_channels') or classes
            if outputs == 1 and loss.get('type') == 'CrossEntropyLoss' and not loss.get('use_sigmoid'):
                yield Finding(
                    f'{key}.loss_decode.use_sigmoid',
                    f'{key} has one output, whose softmax is always 1, so that its loss is 0: write '
                    f'{key}.loss_decode.use_sigmoid=True with num_classes=2 and out_channels=1, or '
                    'num_classes=2 alone',
                )
            weights = loss.get('class_weight')
            if isinstance(weights, (list, tuple)) and len(weights) != outputs:
                yield Finding(
                    f'{key}.loss_decode.class_weight',
                    f'{key}.loss_decode.class_weight has {len(weights)} values, and the head has {outputs} '
                    'outputs: give one for each',
                )


def check_queries(cfg: Config) -> Iterator[Finding]:
    """Heads with queries: things and stuff against the data, and a weight for each class and for none."""
    model, scope = bare_model(cfg), scope_of(cfg)
    dataset = next(datasets(cfg.get('train_dataloader') or {}), None)
    info = _class_info(dataset, scope) if dataset else {}
    for name in ('panoptic_head', 'panoptic_fusion_head', 'decode_head', 'bbox_head'):
        part = model.get(name)
        if not isinstance(part, dict):
            continue
        things, stuff = part.get('num_things_classes'), part.get('num_stuff_classes')
        classes = info.get('classes')
        if isinstance(things, int) and isinstance(stuff, int) and classes and not isinstance(classes, str):
            panoptic = 'stuff_classes' in info
            expected = len(info['thing_classes']) if panoptic else len(classes)
            rest = len(info['stuff_classes']) if panoptic else 0
            for word, given, right in (('things', things, expected), ('stuff', stuff, rest)):
                if given != right:
                    key = f'model.{name}.num_{word}_classes'
                    yield Finding(
                        key,
                        f'{key}={given}, and the data set of train_dataloader has {right} ({word}): write '
                        f'{key}={right}',
                    )
        outputs = part.get('num_classes')
        if not outputs and isinstance(things, int) and isinstance(stuff, int):
            outputs = things + stuff
        weights = (part.get('loss_cls') or {}).get('class_weight')
        if outputs and isinstance(weights, (list, tuple)) and len(weights) != outputs + 1:
            yield Finding(
                f'model.{name}.loss_cls.class_weight',
                f'model.{name}.loss_cls.class_weight has {len(weights)} values, and {outputs} classes and '
                f'"none" need {outputs + 1}: write [1.0] * {outputs} + [0.1]',
            )
