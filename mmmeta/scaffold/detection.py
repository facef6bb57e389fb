"""Look at images with objects."""

import json
from collections.abc import Iterable
from typing import Any

from mmmeta.utils.errors import UsageError, counted, nearest, shorten
from mmmeta.validation.objects import list_outside

from . import folders
from .boxes import read_objects, yaml_names
from .facts import PARTS, Facts, Options, Split, format_counts
from .parts import find_parts


def look_at_objects(options: Options) -> Facts:
    """Look at images and the objects in them.

    Raises:
        UsageError: Images or annotations are missing, or contradict each other.
    """
    assumed: list[str] = []
    if options.labels is None or not options.labels.exists():
        missing = (
            f": there is no file or folder '{options.labels}'" if options.labels else ' names their file'
        )
        raise UsageError(f'--annotations{missing}')
    said = folders.read_names(options.classes)
    given = [name for name, _ in said] if said else None
    parts = find_parts('det', options, assumed)
    described = parts['train'].description
    listed = yaml_names(described) if given is None and described else given
    contents: dict[str, dict[str, Any]] = {}
    splits: dict[str, Split] = {}
    for name, part in parts.items():
        files = part.list_files('--images')
        contents[name], kind, usable = read_objects(
            part.labels, part.images, files, listed, options.progress, assumed
        )
        shown = [image['file_name'] for image in contents[name]['images']]
        splits[name] = Split(part.images, shown, part.labels, is_written=not usable)
    if 'val' not in parts:
        whole, train = contents['train'], parts['train']
        # Of those that have objects: a validation without any measures nothing.
        with_objects = {part['image_id'] for part in whole['annotations']}
        order = sorted(image['file_name'] for image in whole['images'] if image['id'] in with_objects)
        held = set(folders.hold_out(order, options.val_fraction)[1])
        for name in ('val', 'train'):
            inside = [image for image in whole['images'] if (image['file_name'] in held) == (name == 'val')]
            contents[name] = _part_of(whole, inside)
            shown = [image['file_name'] for image in inside]
            splits[name] = Split(train.images, shown, train.labels, is_written=True)
    used = [_used_categories(content) for content in contents.values()]
    present = list(dict.fromkeys(name for part in used for name in part))
    names = given or _class_order(contents, present, assumed)
    folders.check_names(names, f"'{options.labels}'")
    known = {category['name'] for content in contents.values() for category in content['categories']}
    nowhere = [name for name in names if name not in known]
    if nowhere:
        meant = nearest(nowhere[0], known)
        hint = f"is it '{meant}'?" if meant else f'categories are {shorten(sorted(known), 8)}'
        raise UsageError(f"--classes: no category is called '{nowhere[0]}': {hint}")
    for name, content in contents.items():
        _complete_categories(content, names, splits[name])
    unknown = [name for name in present if name not in names]
    if unknown and options.classes is not None:
        assumed.append(f'objects of {shorten(unknown)} are left out, as --classes does not name them')
    masked = _check_outlines(contents.values(), options, assumed)
    sizes = [(i['height'], i['width']) for content in contents.values() for i in content['images']]
    counts = {name: len(contents[name]['images']) for name in PARTS if name in contents}
    summary = f'{format_counts(counts, sizes)}, with {_count_objects(contents.values())}'
    # MMDetection does not train on images without objects.
    learnt = {c['id'] for c in contents['train']['categories'] if c['name'] in names}
    count = len(
        {part['image_id'] for part in contents['train']['annotations'] if part['category_id'] in learnt}
    )
    if not count:
        raise UsageError(f'no image for training has an object of {shorten(names)}')
    unused = counts['train'] - count
    if unused:
        assumed.append(f'{counted(unused, "image")} for training without objects to learn are not trained on')
    return Facts(
        splits,
        classes=names,
        sizes=sizes,
        count=count,
        method='mask_rcnn' if masked else 'retinanet',
        beside={f'{k}.json': json.dumps(contents[k]) for k, split in splits.items() if split.is_written},
        found=[
            f'{summary} in the format of {kind}',
            f'{len(names)} classes: {shorten(names, 8)}',
        ],
        assumed=assumed,
    )


def _part_of(content: dict[str, Any], images: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the content of a file with some of its images."""
    ids = {image['id'] for image in images}
    annotations = [part for part in content['annotations'] if part['image_id'] in ids]
    return dict(images=images, annotations=annotations, categories=content['categories'])


def _complete_categories(content: dict[str, Any], names: list[str], split: Split) -> None:
    """Give a file all categories, in the order of the classes: MMDetection joins them by position."""
    own = {category['name'] for category in content['categories']}
    number = max((category['id'] for category in content['categories']), default=0)
    for name in names:
        if name not in own:
            number += 1
            content['categories'] = [*content['categories'], dict(id=number, name=name)]
            split.is_written = True
    if [category['name'] for category in content['categories'] if category['name'] in names] != names:
        order = {name: i for i, name in enumerate(names)}
        content['categories'] = sorted(
            content['categories'], key=lambda category: order.get(category['name'], len(names))
        )
        split.is_written = True


def _count_objects(contents: Iterable[dict[str, Any]]) -> str:
    """How many objects are learnt, and how many annotations are not."""
    contents = list(contents)
    parts = [part for content in contents for part in content['annotations']]
    crowds = sum(bool(part['iscrowd']) for part in parts)
    empty = sum(not part['iscrowd'] and 0 in part['bbox'][2:] for part in parts)
    outside = sum(not part['iscrowd'] for content in contents for part in list_outside(content))
    others = (
        (crowds, 'crowds (iscrowd: 1)'),
        (empty, 'boxes without a size'),
        (outside, 'boxes outside of their images'),
    )
    said = [f'{number} {what}' for number, what in others if number]
    return ' and '.join([f'{len(parts) - crowds - empty - outside} objects', *said])


def _used_categories(content: dict[str, Any]) -> list[str]:
    """Names of the categories that objects have, by their identifiers."""
    used = {part['category_id'] for part in content['annotations']}
    categories = sorted(content['categories'], key=lambda category: category['id'])
    return [category['name'] for category in categories if category['id'] in used]


def _class_order(contents: dict[str, dict[str, Any]], present: list[str], assumed: list[str]) -> list[str]:
    """Names of the classes: the categories that have objects, as the file orders them."""
    ordered = sorted(contents['train']['categories'], key=lambda category: category['id'])
    listed = [category['name'] for category in ordered]
    empty = [name for name in listed if name not in present]
    if empty:
        assumed.append(
            f'{len(empty)} categories without objects, {shorten(empty)}, are left out of the classes '
            '(--classes)'
        )
    return [name for name in dict.fromkeys([*listed, *present]) if name in present]


def _check_outlines(contents: Iterable[dict[str, Any]], options: Options, assumed: list[str]) -> bool:
    """Whether all objects have outlines.

    Raises:
        UsageError: They have not, and the method needs them.
    """
    method = options.method
    objects = [part for content in contents for part in content['annotations'] if not part['iscrowd']]
    without = sum(not part.get('segmentation') for part in objects)
    if without and method in ('mask_rcnn', 'cascade_mask_rcnn'):
        what, remedy = f'--method {method}', 'choose retinanet'
        if options.inherits:
            what, remedy = 'the network of --config', 'take one that learns boxes alone'
        raise UsageError(
            f'{what} learns masks, and {without} of {len(objects)} objects have none (segmentation): {remedy}'
        )
    if method is None and 0 < without < len(objects):
        assumed.append(f'{without} of {len(objects)} objects have no mask: boxes alone (--method)')
    elif method is None and objects and not without:
        assumed.append('all objects have masks: boxes and masks are learnt (--method retinanet for boxes)')
    return bool(objects) and not without
