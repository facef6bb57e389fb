"""Generated data of the kind that a config wants: boxes, masks, panoptic and semantic maps, classes."""

import json
import pickle
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from PIL import Image

from mmmeta.config.inspection import ALL_LOADERS, bare_model, bare_type, iter_dicts, scope_of
from mmmeta.datasets import generate_ade20k, generate_coco, generate_imagenet
from mmmeta.datasets.ade20k import LABELS
from mmmeta.datasets.coco import OBJECT_NAMES
from mmmeta.swapping.recipe import scale_sizes, training_size

# Of training images, in pixels: objects want more of them than labels.
SIZES = dict(mmdet=(128, 128), mmseg=(64, 64))
# Heads whose deformable convolutions want three pixels on the coarsest map, of stride 128.
LARGE, DEFORMING = (384, 384), {'DDODHead', 'VFNetHead', 'RepPointsHead', 'FoveaHead'}
IMAGES = 18
MAP_LABELS = len(LABELS)
# Names of the objects that are drawn.
DRAWN = tuple(OBJECT_NAMES.values())
# Numbers of boxes, of which images of a few pixels need few.
PROPOSALS = {'num', 'max_per_img', 'nms_pre'}
KINDS_OF_VIDEO = ('YouTubeVISDataset', 'MOTChallengeDataset', 'ReIDDataset', 'TrackImgSampler')


def generate_all(root: Path, count: int = IMAGES, size: int = 128) -> None:
    """Generate the data sets, once.

    Args:
        root (Path): Folder for them.
        count (int): Images for training, and as many for validation. Defaults to 18.
        size (int): Short side of images of objects and labels, in pixels. Defaults to 128.
    """
    if (root / 'complete').exists():
        return
    for generate, side in ((generate_ade20k, size), (generate_coco, size), (generate_imagenet, 64)):
        generate(root, count, count, side, progress=lambda text: None)
    _write_maps(root / 'ADEChallengeData2016')
    _write_panoptic(root / 'coco')
    _write_boxes(root / 'coco')
    _write_classes(root)
    (root / 'complete').touch()


def _write_maps(folder: Path) -> None:
    """Maps of few labels beside ADE20K's, for any number of classes; what is no class is 255."""
    dense = np.full(256, 255, np.uint8)
    dense[list(LABELS.values())] = range(MAP_LABELS)
    for split in ('training', 'validation'):
        for path in sorted((folder / 'annotations' / split).glob('*.png')):
            labels = dense[np.asarray(Image.open(path))]
            for classes in (1, 2, MAP_LABELS):
                target = folder / f'labels_{classes}' / split / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.where(labels == 255, labels, labels % classes)).save(target)


def _write_panoptic(folder: Path) -> None:
    """Panoptic maps and semantic maps of COCO's format: the objects, and two grounds."""
    from pycocotools.coco import COCO

    grounds = [dict(id=i, name=name, isthing=0) for i, name in ((92, 'banner'), (193, 'grass-merged'))]
    for split in ('train2017', 'val2017'):
        source = folder / 'annotations' / f'instances_{split}.json'
        content = json.loads(source.read_text())
        coco = COCO(str(source))
        categories = [dict(one, isthing=1) for one in content['categories']] + grounds
        panoptic, semantic = folder / 'annotations' / f'panoptic_{split}', folder / 'stuffthingmaps' / split
        panoptic.mkdir(parents=True, exist_ok=True)
        semantic.mkdir(parents=True, exist_ok=True)
        annotations = []
        for image in content['images']:
            height, width = image['height'], image['width']
            ids = np.ones((height, width), np.int64)
            ids[height // 2 :] = 2
            segments = {1: (92, 0), 2: (193, 0)}
            labels = np.where(ids == 1, 91, 92).astype(np.uint8)
            for i, annotation in enumerate(coco.imgToAnns[image['id']], 3):
                mask = coco.annToMask(annotation).astype(bool)
                ids[mask] = i
                labels[mask] = annotation['category_id'] % 80
                segments[i] = annotation['category_id'], annotation['iscrowd']
            colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
            name = Path(image['file_name']).with_suffix('.png').name
            Image.fromarray(colours).save(panoptic / name)
            Image.fromarray(labels).save(semantic / name)
            described = []
            for i, (category, crowd) in segments.items():
                rows, columns = np.where(ids == i)
                if len(rows):
                    box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                    area = dict(area=len(rows), bbox=[int(value) for value in box], iscrowd=crowd)
                    described.append(dict(area, id=i, category_id=category))
            annotations.append(dict(image_id=image['id'], file_name=name, segments_info=described))
        content = dict(images=content['images'], annotations=annotations, categories=categories)
        (folder / 'annotations' / f'panoptic_{split}.json').write_text(json.dumps(content))


def _write_boxes(folder: Path) -> None:
    """Annotations of images with two objects or more, as CrowdDet wants them, and boxes as proposals."""
    rng = np.random.default_rng(0)
    for split in ('train2017', 'val2017'):
        content = json.loads((folder / 'annotations' / f'instances_{split}.json').read_text())
        boxes: dict[int, list] = {image['id']: [] for image in content['images']}
        for annotation in content['annotations']:
            x, y, width, height = annotation['bbox']
            boxes[annotation['image_id']].append([x, y, x + width, y + height])
        single = Counter(one['image_id'] for one in content['annotations'] if not one['iscrowd'])
        kept = {i for i, count in single.items() if count > 1}
        content['images'] = [image for image in content['images'] if image['id'] in kept]
        content['annotations'] = [one for one in content['annotations'] if one['image_id'] in kept]
        for number in range(1, len(DRAWN) + 1):
            _write_few_classes(content, folder / 'annotations' / f'boxes_{number}_{split}.json', number)
        proposals = {}
        for image in content['images']:
            corner = rng.uniform(0, 60, (20, 2))
            drawn = np.concatenate([corner, corner + rng.uniform(10, 60, (20, 2))], 1)
            found = np.concatenate([np.array(boxes[image['id']]), drawn]).astype(np.float32)
            name = f'{split}/{image["file_name"]}'
            proposals[name] = dict(bboxes=found, scores=np.ones(len(found), np.float32))
        (folder / f'proposals_{split}.pkl').write_bytes(pickle.dumps(proposals))


def _write_few_classes(content: dict[str, Any], path: Path, number: int) -> None:
    """Annotations of which all objects are of the first classes that are drawn."""
    ids = {one['name']: one['id'] for one in content['categories']}
    drawn = [ids[name] for name in DRAWN]
    annotations = [
        dict(one, category_id=drawn[drawn.index(one['category_id']) % number])
        for one in content['annotations']
    ]
    path.write_text(json.dumps(dict(content, annotations=annotations)))


def _write_classes(root: Path) -> None:
    """A list of images with several classes each, in the format of MMPretrain."""
    for split in ('train', 'val'):
        paths = sorted((root / 'imagenet' / split).glob('*/*'))
        data = [dict(img_path=str(path), gt_label=[i % 3, 3 + i % 2]) for i, path in enumerate(paths)]
        content = dict(metainfo=dict(classes=[f'c{i}' for i in range(20)]), data_list=data)
        (root / f'multilabel_{split}.json').write_text(json.dumps(content))


def needs_video(cfg: Config) -> bool:
    """Whether a config reads videos, of which none are generated."""
    loaders = [cfg.get(name) or {} for name in ALL_LOADERS]
    return any(bare_type(part) in KINDS_OF_VIDEO for part in iter_dicts(loaders))


def training_size_of(cfg: Config) -> tuple[int, int] | None:
    """Size of the images to train on; None where it is the config's, as of anchors for 300 pixels alone."""
    model = bare_model(cfg)
    # The latter choose their queries, up to 900, among the tokens of the encoder.
    if bare_type(model.get('bbox_head') or {}) in DEFORMING or model.get('as_two_stage'):
        return LARGE
    neck = model.get('neck')
    fixed = isinstance(neck, dict) and bare_type(neck) == 'SSDNeck'
    return None if fixed or training_size(cfg) is None else SIZES.get(scope_of(cfg))


def put_on_data(cfg: Config, root: Path, before: tuple[int, int] | None) -> None:
    """Put a config on generated data of its kind, with images of a few pixels, in place.

    Args:
        cfg (Config): The config; its pipelines stay.
        root (Path): Where :func:`generate_all` wrote.
        before (tuple[int, int] | None): Size of training images of the original, by which test images are
            scaled; None leaves them as they are.
    """
    scope, size = scope_of(cfg), training_size_of(cfg)
    model = bare_model(cfg)
    queries = bare_type(model.get('rpn_head') or {}) == 'EmbeddingRPNHead'  # as many as the network has
    for part in iter_dicts([] if queries else [model.get('train_cfg') or {}, model.get('test_cfg') or {}]):
        for key in PROPOSALS & part.keys():
            part[key] = min(part[key], 64)
    for name in ALL_LOADERS:
        loader = cfg.get(name)
        if not loader:
            continue
        split = int(name != 'train_dataloader')
        loader.update(batch_size=1 if split else 2, num_workers=0, persistent_workers=False)
        for key in ('prefetch_factor', 'pin_memory'):
            loader.pop(key, None)
        if name == 'train_dataloader' and scope == 'mmpretrain':
            loader.sampler = ConfigDict(type='DefaultSampler', shuffle=False)
        for dataset in _leaves(loader.get('dataset')):
            pipeline = dataset.get('pipeline', [])
            extra = {key: dataset[key] for key in ('return_classes',) if key in dataset}
            described = dict(mmdet=_objects, mmseg=_maps, mmpretrain=_classes)[scope](
                cfg, dataset, root, split
            )
            dataset.clear()
            dataset.update(ConfigDict(**described, **extra, pipeline=pipeline))
            if scope == 'mmpretrain' and bare_type(pipeline[0]) != 'LoadImageFromFile':
                dataset.pipeline = [dict(type='LoadImageFromFile'), *pipeline]  # of images in memory
        if before and size and split:
            scale_sizes(loader.dataset, before, size)


def _leaves(dataset: Any) -> Iterable[ConfigDict]:
    """The data sets inside wrappers."""
    if isinstance(dataset, (list, tuple)):
        return [leaf for part in dataset for leaf in _leaves(part)]
    if not isinstance(dataset, dict):
        return []
    inner = dataset.get('dataset', dataset.get('datasets'))
    return _leaves(inner) if isinstance(inner, (dict, list, tuple)) else [dataset]


def _number_of_classes(cfg: Config) -> int:
    """Classes of the heads; the largest number where there are several."""
    model = bare_model(cfg)
    keys = ('num_classes', 'num_things_classes')
    numbers = [part[key] for part in iter_dicts(model) for key in keys if isinstance(part.get(key), int)]
    return max(numbers, default=80)


def _objects(cfg: Config, dataset: dict, root: Path, split: int) -> dict[str, Any]:
    """A data set of COCO's format."""
    name = ('train2017', 'val2017')[split]
    folder = root / 'coco'
    described = dict(data_root=str(folder), data_prefix=dict(img=f'{name}/'), test_mode=bool(split))
    if split == 0:
        described['filter_cfg'] = dict(filter_empty_gt=True, min_size=1)
    if bare_type(dataset) == 'CocoPanopticDataset':
        described['data_prefix']['seg'] = f'annotations/panoptic_{name}/'
        return dict(described, type='CocoPanopticDataset', ann_file=f'annotations/panoptic_{name}.json')
    if 'seg' in (dataset.get('data_prefix') or {}):
        described['data_prefix']['seg'] = f'stuffthingmaps/{name}/'
    if dataset.get('proposal_file'):
        described['proposal_file'] = f'proposals_{name}.pkl'
    number = _number_of_classes(cfg)
    few = min(number, len(DRAWN))
    described.update(type='CocoDataset', ann_file=f'annotations/boxes_{few}_{name}.json')
    if number < 80:
        content = json.loads((folder / described['ann_file']).read_text())
        names = [*DRAWN, *(one['name'] for one in content['categories'] if one['name'] not in DRAWN)]
        described['metainfo'] = dict(classes=tuple(names[:number]))
    return described


def _maps(cfg: Config, dataset: dict, root: Path, split: int) -> dict[str, Any]:
    """A data set of images and maps."""
    name = ('training', 'validation')[split]
    number = _number_of_classes(cfg)
    labels = next(count for count in (MAP_LABELS, 2, 1) if count <= max(number, 1))
    folders = dict(img_path=f'images/{name}', seg_map_path=f'labels_{labels}/{name}')
    return dict(
        type='BaseSegDataset',
        data_root=str(root / 'ADEChallengeData2016'),
        data_prefix=folders,
        metainfo=dict(classes=[f'c{i}' for i in range(number)]),
        reduce_zero_label=any(
            bool(part.get('reduce_zero_label')) for part in iter_dicts(dataset.get('pipeline') or [])
        ),
    )


def _classes(cfg: Config, dataset: dict, root: Path, split: int) -> dict[str, Any]:
    """A data set of folders of classes, or of several classes for an image."""
    name = ('train', 'val')[split]
    if bare_type(bare_model(cfg).get('head') or {}) in ('CSRAClsHead', 'MultiLabelLinearClsHead') and (
        bare_type(dataset) == 'VOC'
    ):
        return dict(type='MultiLabelDataset', ann_file=str(root / f'multilabel_{name}.json'))
    return dict(type='CustomDataset', data_prefix=str(root / 'imagenet' / name))
