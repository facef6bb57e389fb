"""Wrong data, each with one mistake, and what is to be said of it."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

from mmmeta.datasets.imagenet import SYNSETS

from .configs import CLASSIFIER, DETECTOR, PARTS, SEGMENTOR


class DataMistake(NamedTuple):
    """A change of a generated data set, and a part of what is said; ``threads`` as of a ``Mistake``."""

    name: str
    config: str
    change: Callable[[Path], None]
    text: str
    options: Mapping[str, Any] = MappingProxyType({})
    threads: str = ''


def _maps(root: Path) -> list[Path]:
    return sorted((root / 'annotations/training').iterdir())


def _each(change: Callable[[np.ndarray], np.ndarray], count: int | None = 1) -> Callable[[Path], None]:
    """Change the labels of the first maps, or of all."""

    def apply(root: Path) -> None:
        for path in _maps(root)[:count]:
            with Image.open(path) as image:
                labels = np.asarray(image)
            Image.fromarray(change(labels).astype(np.uint8)).save(path)

    return apply


def _coco(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change the annotation file of training."""

    def apply(root: Path) -> None:
        path = root / 'annotations/instances_train2017.json'
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply


def _first(content: dict[str, Any]) -> dict[str, Any]:
    return content['annotations'][0]


def _remove_maps(root: Path) -> None:
    for path in _maps(root)[1:3]:
        path.unlink()


def _rename_images(root: Path) -> None:
    for path in (root / 'images/training').iterdir():
        path.rename(path.with_suffix('.jpeg'))


def _remove_image(root: Path) -> None:
    min((root / 'train2017').iterdir()).unlink()


def _change_first_image(change: Callable[[Image.Image, Path], Any]) -> Callable[[Path], None]:
    """Write another image in place of the one that is first in the annotation file of training."""

    def apply(root: Path) -> None:
        content = json.loads((root / 'annotations/instances_train2017.json').read_text())
        path = root / 'train2017' / content['images'][0]['file_name']
        with Image.open(path) as image:
            image.load()
        change(image, path)

    return apply


def _lay_on_its_side(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)


def _halve(image: Image.Image, path: Path) -> None:
    image.resize((image.width // 2, image.height // 2)).save(path)


def _to_crowds(content: dict[str, Any]) -> None:
    for part in content['annotations']:
        part['iscrowd'] = 1


def _swap_sizes(content: dict[str, Any]) -> None:
    for image in content['images']:
        image['width'], image['height'] = image['height'], image['width']


def _narrow_and_swap(content: dict[str, Any]) -> None:
    """Leave boxes that are inside of their image either way, so that pixels alone show the mistake."""
    for part in content['annotations']:
        part['bbox'] = [0, 0, 8, 8]
        part['segmentation'] = [[0, 0, 8, 0, 8, 8, 0, 8]]
    _swap_sizes(content)


def _shorten_polygon(polygon: list[float]) -> Callable[[Path], None]:
    """Give the first object of the validation another polygon."""

    def apply(root: Path) -> None:
        path = root / 'annotations/instances_val2017.json'
        content = json.loads(path.read_text())
        _first(content)['segmentation'] = [polygon]
        path.write_text(json.dumps(content))

    return apply


def _to_corners(content: dict[str, Any]) -> None:
    for part in content['annotations']:
        x, y, w, h = part['bbox']
        part['bbox'] = [x, y, x + w + 90, y + h + 90]


def _deepen(channels: int) -> Callable[[Path], None]:
    """Write an image of 16 bits, or with a fourth channel of 8, in place of each for training."""

    def apply(root: Path) -> None:
        for path in (root / 'images/training').iterdir():
            with Image.open(path) as image:
                pixels = np.asarray(image)
            if channels == 1:
                Image.fromarray(pixels[..., 0].astype(np.uint16) * 10).save(path, format='PNG')
            else:
                extra = dict(photometric='rgb', extrasamples=['unspecified'])
                tifffile.imwrite(path, np.dstack([pixels, pixels[..., :1]]), **extra)

    return apply


def _widen_labels(root: Path) -> None:
    for path in _maps(root)[:1]:
        with Image.open(path) as image:
            labels = np.asarray(image).astype(np.float32)
        labels[0] = -9999
        Image.fromarray(labels).save(path, format='TIFF')


TEN = ('wall', 'building', 'sky', 'floor', 'tree', 'ceiling', 'road', 'grass', 'windowpane', 'cabinet')
ZERO_IS_A_CLASS = {
    **{f'{part}_dataloader.dataset.metainfo.classes': TEN for part in PARTS},
    **{f'model.{head}.num_classes': 10 for head in ('decode_head', 'auxiliary_head')},
}
KITES = {f'{part}_dataloader.dataset.metainfo.classes': ('kite',) for part in PARTS}

DATA_MISTAKES = [
    DataMistake(
        'out of range',
        SEGMENTOR,
        _each(lambda labels: np.where(labels == labels.max(), 183, labels)),
        'has the label 183, and 150 classes are labels from 1 to 150',
        threads='S42 S1342 S1600',
    ),
    DataMistake(
        'colours',
        SEGMENTOR,
        _each(lambda labels: np.stack([labels] * 3, -1)),
        'one channel with the number of the class at each pixel',
        threads='S3055 S2471 S2556',
    ),
    DataMistake(
        'size of a map',
        SEGMENTOR,
        _each(lambda labels: labels[:32, :48]),
        'has 32x48 pixels, and its image 64x',
        threads='S2763',
    ),
    DataMistake(
        'missing maps', SEGMENTOR, _remove_maps, '2 of 6 images of train_dataloader have no annotation'
    ),
    DataMistake('suffix', SEGMENTOR, _rename_images, "img_suffix='.jpeg'", threads='S3015 S840'),
    DataMistake(
        '0 is a class, and reduced',
        SEGMENTOR,
        _each(lambda labels: np.indices(labels.shape)[1] % 10, None),
        "reduce_zero_label=True, which leaves 0 out: class 'cabinet' never occurs",
        ZERO_IS_A_CLASS,
        'S1714 S1282',
    ),
    DataMistake(
        'misspelt category',
        DETECTOR,
        _coco(lambda c: c['categories'][22].update(name='zebar')),
        "not 'zebra' (is it 'zebar'?)",
        threads='D2744 D2942',
    ),
    DataMistake(
        'empty after filtering',
        DETECTOR,
        _coco(lambda c: [part.update(category_id=1) for part in c['annotations']]),
        'is left',
        {**KITES, **{f'model.roi_head.{head}.num_classes': 1 for head in ('bbox_head', 'mask_head')}},
        'D10161 D11858',
    ),
    DataMistake(
        'objects without area',
        DETECTOR,
        _coco(lambda c: _first(c).pop('area')),
        "lack 'area', which is read",
        threads='D804',
    ),
    DataMistake(
        'images without height',
        DETECTOR,
        _coco(lambda c: c['images'][0].pop('height')),
        'lacks height',
        threads='D4139',
    ),
    DataMistake(
        'ids of objects twice',
        DETECTOR,
        _coco(lambda c: c['annotations'][1].update(id=_first(c)['id'])),
        'share the id 1: give each its own',
        threads='D4897 D4782',
    ),
    DataMistake(
        'ids as text',
        DETECTOR,
        _coco(lambda c: [category.update(id=str(category['id'])) for category in c['categories']]),
        "is of category 33, which is none of '1', '2'",
    ),
    DataMistake(
        'corners instead of sizes',
        DETECTOR,
        _coco(_to_corners),
        "reach beyond their image; COCO's are left, top, width, height",
        threads='D3901 D3559',
    ),
    DataMistake(
        'objects without outline',
        DETECTOR,
        _coco(lambda c: _first(c).pop('segmentation')),
        'model.roi_head.mask_head learns masks, and 1 of',
        threads='D9993 D1297',
    ),
    DataMistake(
        'object of an image that is not listed',
        DETECTOR,
        _coco(lambda c: _first(c).update(image_id=777)),
        'is in image 777, which is not there',
    ),
    DataMistake(
        'object of no category',
        DETECTOR,
        _coco(lambda c: _first(c).update(category_id=12)),
        'is of category 12, which is none of',
    ),
    DataMistake(
        'folders of other classes',
        CLASSIFIER,
        lambda root: [shutil.rmtree(path) for path in sorted((root / 'train').iterdir())[:2]],
        'train_dataloader has 16 folders of classes, and 18 classes are named',
        {f'{part}_dataloader.dataset.metainfo.classes': tuple('abcdefghijklmnopqr') for part in PARTS},
    ),
    DataMistake(
        'classes in another order than the folders',
        CLASSIFIER,
        lambda root: None,
        "MMPretrain, by the sorted folders, gives images in the folder 'n01440764' the label 0, which "
        "metainfo.classes calls 'n01580077'",
        {
            **{f'{part}_dataloader.dataset.metainfo.classes': tuple(SYNSETS.split())[::-1] for part in PARTS},
            'train_dataloader.batch_size': 2,
        },
        'P596 P1817',
    ),
    DataMistake(
        'folders that training alone has',
        CLASSIFIER,
        lambda root: shutil.rmtree(root / 'val/n01440764'),
        'the folder n01440764 is in one of train_dataloader and val_dataloader alone',
        {'train_dataloader.batch_size': 2},
    ),
    DataMistake('no box', DETECTOR, _coco(lambda c: _first(c).pop('bbox')), 'has no box of four numbers'),
    DataMistake('image that is not there', DETECTOR, _remove_image, 'images that are not there, such as'),
    DataMistake(
        'annotations of another file for the metric',
        DETECTOR,
        lambda root: None,
        'set val_evaluator.ann_file',
        {'val_evaluator.ann_file': '{root}/annotations/instances_train2017.json'},
        'D10243 D11407',
    ),
    DataMistake(
        'boxes made on the stored pixels of an image with an EXIF orientation',
        DETECTOR,
        _change_first_image(_lay_on_its_side),
        "when it is read: write color_type='color_ignore_orientation' into LoadImageFromFile",
    ),
    DataMistake(
        'images resized after annotation',
        DETECTOR,
        _change_first_image(_halve),
        'boxes lie beside the objects; take the images that were annotated',
    ),
    DataMistake(
        'width and height swapped',
        DETECTOR,
        _coco(_narrow_and_swap),
        'swap width and height in the file',
    ),
    DataMistake(
        'a box of zero width',
        DETECTOR,
        _coco(lambda c: _first(c).update(bbox=[1, 1, 0, 5])),
        'have a box of zero width or height, such as object 1',
    ),
    DataMistake(
        'a box outside of its image',
        DETECTOR,
        _coco(lambda c: _first(c).update(bbox=[500, 8, 20, 20])),
        'lie outside of their image, such as object 1 with bbox=[500, 8, 20, 20] in ',
    ),
    DataMistake(
        'all objects are crowds',
        DETECTOR,
        _coco(_to_crowds),
        'are crowds (iscrowd: 1), from which nothing is learnt: write iscrowd: 0',
        threads='D9618',
    ),
    DataMistake(
        'images of three channels for a network of four',
        SEGMENTOR,
        lambda root: None,
        'makes images of 3 channels, and model.backbone.in_channels=4: write model.backbone.in_channels=3',
        {
            'model.backbone.in_channels': 4,
            'model.data_preprocessor.mean': [0.0] * 4,
            'model.data_preprocessor.std': [1.0] * 4,
        },
        'D10578',
    ),
    DataMistake(
        'images of 16 bits read as 8',
        SEGMENTOR,
        _deepen(1),
        "has 1 channel of uint16, and LoadImageFromFile with color_type='color' reads 8 bits of red, green "
        "and blue: write dict(type='mmmeta.LoadUnchangedImage', channels=1), model.backbone.in_channels=1",
    ),
    DataMistake(
        'a fourth channel that is not read',
        SEGMENTOR,
        _deepen(4),
        "has 4 channels of uint8, and LoadImageFromFile with color_type='color' reads",
    ),
    DataMistake(
        'labels of 32 bits',
        SEGMENTOR,
        _widen_labels,
        'and LoadAnnotations keeps 8 bits, in which -9999 becomes 241',
    ),
    DataMistake(
        'backslashes in names of files',
        DETECTOR,
        _coco(lambda c: c['images'][0].update(file_name='train2017\\' + c['images'][0]['file_name'])),
        "backslashes part folders on Windows alone; write '0000",
    ),
    DataMistake(
        'a polygon of four numbers, which ends an evaluation of masks',
        DETECTOR,
        _shorten_polygon([1, 1, 9, 9]),
        'a polygon (segmentation) that is not x and y of three points or more',
    ),
    DataMistake(
        'a polygon without points',
        DETECTOR,
        _shorten_polygon([]),
        'a polygon (segmentation) that is not x and y of three points or more',
    ),
]
