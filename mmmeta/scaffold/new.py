"""Write a config for people's own data after a look at them."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmmeta.config.backbones import known_backbones
from mmmeta.config.literals import check_config_path
from mmmeta.config.loading import load_config, name_of
from mmmeta.models import FAMILIES
from mmmeta.utils.atomic import written_together
from mmmeta.utils.errors import UsageError, counted, nearest, shorten
from mmmeta.weights import ZOO, is_remote

from .classification import look_at_folders
from .decisions import decide
from .detection import look_at_objects
from .facts import Facts, Options
from .folders import Progress
from .inheriting import check_original, write_inheriting
from .parts import is_yaml
from .pixels import examine_pixels
from .places import Places
from .segmentation import look_at_maps
from .text import write_config

METHODS = dict(
    seg=('upernet', 'fpn'), det=('retinanet', 'mask_rcnn', 'cascade_mask_rcnn'), cls=('classifier',)
)
LOOKS = dict(seg=look_at_maps, det=look_at_objects, cls=look_at_folders)


@dataclass
class Created:
    """What was written.

    Attributes:
        config (Path): The config.
        files (list[Path]): Lists of images or converted annotations beside it.
        facts (list[str]): What the data are.
        assumed (list[str]): What was assumed, and the options that would say otherwise.
    """

    config: Path
    files: list[Path] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)


def _progress(values: Iterable[Any], count: int) -> Iterator[Any]:
    """No bar."""
    return iter(values)


def new(
    task: str,
    images: str | Path | None,
    labels: str | Path | None = None,
    out: str | Path | None = None,
    *,
    backbone: str = 'caformer_s18',
    weights: str | None = None,
    method: str | None = None,
    classes: str | None = None,
    ignore: list[str] | None = None,
    val_images: str | Path | None = None,
    val_labels: str | Path | None = None,
    test_images: str | Path | None = None,
    test_labels: str | Path | None = None,
    val_fraction: float = 0.1,
    size: int | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    channels: int | None = None,
    in_range: tuple[float, float] | None = None,
    config: str | None = None,
    root: str | Path | None = None,
    skip_missing: bool = False,
    force: bool = False,
    progress: Progress = _progress,
    verify: Callable[[Path], None] = lambda config: None,
) -> Created:
    """Look at a data set and write a config that trains on it, as ``python -m mmmeta new`` does.

    Args:
        task (str): ``'seg'``, ``'det'`` or ``'cls'``.
        images (str | Path | None): Folder of the images. With folders ``train``, ``val`` and ``test`` in it
            (or ``training``, ``valid`` and the like), with Pascal VOC's ``ImageSets`` beside it or a YAML
            file of YOLO's that names its parts, these are the parts. For ``'cls'`` it holds a folder for
            each class. None where ``labels`` is such a YAML file.
        labels (str | Path | None): Folder of annotation maps (``'seg'``), laid out as the images are; file
            of COCO's format or CVAT's, folder of Pascal VOC's, YOLO's or LabelMe's files, or YOLO's YAML
            file (``'det'``). Defaults to None (``'cls'``).
        out (str | Path | None): The config. Defaults to None: ``my_<method>_<backbone>.py``.
        backbone (str): Family and member. Defaults to ``'caformer_s18'``.
        weights (str | None): Location of the backbone's weights, or ``'none'`` for random ones. Defaults to
            None: those published for ImageNet-1K.
        method (str | None): ``'upernet'`` or ``'fpn'``; ``'retinanet'``, ``'mask_rcnn'`` or
            ``'cascade_mask_rcnn'``. Defaults to None: UperNet; Mask R-CNN where all objects have masks, else
            RetinaNet.
        classes (str | None): Names of the classes: separated by commas, or a file with one in each line,
            which may say what is stored for it (``road:7``). Defaults to None: from the data.
        ignore (list[str] | None): Stored labels that are no class, or ``['none']``. Defaults to None: where
            only one meaning is possible, that.
        val_images (str | Path | None): Images for validation, where ``images`` has no parts. Defaults to
            None.
        val_labels (str | Path | None): Their labels. Defaults to None: ``labels``, with ``val_images``.
        test_images (str | Path | None): Images for the test. Defaults to None: those that the data set has
            for it, else those for validation.
        test_labels (str | Path | None): Their labels. Defaults to None: ``labels``, with ``test_images``.
        val_fraction (float): Without images for validation: share of the images that is held out. Defaults
            to 0.1.
        size (int | None): Side of the crops, short side of the images or side of the images in pixels, by
            task. Defaults to None: by the images, up to 512, 800 or 224.
        batch_size (int | None): Images of an iteration. Defaults to None: 4, 2 or 32.
        epochs (int | None): How often each image is seen. Defaults to None: 12 to 100, by their number.
        channels (int | None): Channels of the images to read, as they are stored. Defaults to None: those
            that all have, without transparency; grey as three equal ones.
        in_range (tuple[float, float] | None): Values of the images that become 0 and 255, beyond which they
            are clipped, such as those of 16 bits. Defaults to None: values stay as they are.
        config (str | None): A config of MMDetection, MMSegmentation or MMPretrain that
            :func:`~mmmeta.apis.swap` takes, which the written one inherits from with the backbone in it, in
            place of a ``method``. Defaults to None.
        root (str | Path | None): Folder of the data, which is ``data_root`` of the config and stated there
            once: relative to the config where this path, or that of the images, is relative. Defaults to
            None: the folder that has all of the data in it.
        skip_missing (bool): Leave images without a mask out. Defaults to False: they are an error.
        force (bool): Write over files that exist. Defaults to False.
        progress (callable): Wraps files while they are read; it is given their number as well.
        verify (callable): Called with the config when all files are written. Where it raises, or the process
            is ended by a signal, what was there before is there again. Defaults to nothing.

    Returns:
        Created: The config, and what was assumed. Nothing is written if an error is raised.

    Raises:
        UsageError: A folder is missing or empty, data contradict each other, or a name is unknown.
    """
    if task not in METHODS:
        raise UsageError(f"'{task}' is no task: choose {', '.join(METHODS)}")
    if method is not None and method not in METHODS[task]:
        raise UsageError(f"--method {method}: for '{task}' choose {', '.join(METHODS[task])}")
    for option, value in (
        ('--size', size),
        ('--batch-size', batch_size),
        ('--epochs', epochs),
        ('--channels', channels),
    ):
        if value is not None and value < 1:
            raise UsageError(f'{option} {value}: give a positive number')
    if in_range is not None and not in_range[0] < in_range[1]:
        raise UsageError('--in-range {} {}: give the lower value first'.format(*in_range))
    arch, weights = _check_backbone(backbone, weights)
    original = None
    if config is not None:
        if method is not None:
            raise UsageError(f'--method {method} is that of --config {config}: leave one of them out')
        original = load_config(config)
        method = check_original(task, config, original)
    if images is None:
        if labels is None or not is_yaml(Path(labels)):
            raise UsageError('--images names the folder of the images')
        images = Path(labels).parent
    options = Options(
        images=Path(images),
        labels=_as_path(labels),
        val_images=_as_path(val_images),
        val_labels=_as_path(val_labels),
        test_images=_as_path(test_images),
        test_labels=_as_path(test_labels),
        val_fraction=val_fraction,
        classes=classes,
        ignore=ignore,
        method=method,
        size=size,
        batch_size=batch_size,
        epochs=epochs,
        skip_missing=skip_missing,
        progress=progress,
        channels=channels,
        in_range=in_range,
        inherits=original is not None,
    )
    facts = LOOKS[task](options)
    _check_test(facts)
    facts.pixels = examine_pixels(facts, options)
    if facts.pixels and original is not None:
        raise UsageError(
            f"--config '{config}' is for 8 bits of red, green and blue, and these images have "
            f'{counted(facts.pixels.channels, "channel")} of {facts.pixels.dtype}: leave --config out, or '
            'convert them'
        )
    decisions = decide(task, facts, options, arch['token_mixers'])
    name = decisions.method if config is None else name_of(config)
    path = check_config_path(out or f'my_{name}_{backbone}.py')
    if path.suffix != '.py':
        raise UsageError(f"--out '{path}': a config is a .py file")
    beside = {path.with_name(f'{path.stem}_{end}'): content for end, content in facts.beside.items()}
    there = [str(file) for file in (path, *beside) if os.path.exists(file)]
    folder = next((file for file in (path, *beside) if os.path.isdir(file)), None)
    if folder:
        raise UsageError(f"--out: '{folder}' is a folder; name a file")
    if there and not force:
        raise UsageError(f'{shorten(there)} is there: choose another --out, or --force')
    if not os.path.isdir(path.parent):
        raise UsageError(f"--out: there is no folder '{path.parent}'")
    held: list[Path] = []
    for split in facts.splits.values():
        held.append(split.images)
        if not split.is_written:
            held.append(split.labels if split.labels.is_dir() else split.labels.parent)
    places = Places(path, options.images, held, None if root is None else Path(root))
    if original is None:
        text = write_config(task, path, places, backbone, arch['dims'], weights, facts, decisions)
    else:
        text = write_inheriting(
            task, str(config), original, path, places, backbone, weights, facts, decisions
        )
    with written_together({**beside, path: text}):
        verify(path)
    assumed = [*facts.assumed, *decisions.reasons, _say_weights(weights), places.reason]
    return Created(path, list(beside), facts.found, assumed)


def _as_path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _check_test(facts: Facts) -> None:
    """Refuse images for the test that are for training too."""
    if 'test' not in facts.splits:
        return
    train, test = (
        {os.path.abspath(split.images / name) for name in split.names}
        for split in (facts.splits['train'], facts.splits['test'])
    )
    both = sorted(train & test)
    if both:
        raise UsageError(
            f"'{both[0]}' is for training and for the test, as {len(both)} of the {len(test)} images for the "
            'test are: take them out of one'
        )


def _check_backbone(backbone: str, weights: str | None) -> tuple[dict[str, Any], str | None]:
    """The arch of a backbone, and the location of its weights.

    Raises:
        UsageError: There is none of that name.
    """
    family, _, size = backbone.rpartition('_')
    known = known_backbones()
    if backbone not in known:
        meant = nearest(backbone, known)
        said = f'is it {meant}?' if meant else f'choose one of {shorten(known, len(known))}'
        raise UsageError(f"--backbone '{backbone}' is none of ours: {said}")
    if weights is None:
        weights = f'mmmeta://{backbone}'
    if weights.startswith('mmmeta://') and weights.removeprefix('mmmeta://') not in ZOO:
        raise UsageError(
            f"--weights '{weights}': list the published ones with python -m mmmeta list --weights"
        )
    if weights != 'none' and not is_remote(weights) and not Path(weights).expanduser().is_file():
        raise UsageError(f"--weights: there is no file '{weights}'; give a file, a URL, mmmeta:// or none")
    return FAMILIES[family].resolve_arch(size), None if weights == 'none' else weights


def _say_weights(weights: str | None) -> str:
    if weights is None:
        return 'the backbone starts from random weights, not pretrained ones (--weights, here or of train.py)'
    return f'the backbone starts from the pretrained weights {weights} (--weights none: random ones)'
