"""Check that the data of a config are there, and name the file of a data set that cannot be read."""

import inspect
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config, ConfigDict
from PIL import Image

from mmmeta.datasets.transforms import IMAGE_ERRORS
from mmmeta.utils.errors import UsageError
from mmmeta.utils.mmengine_private import BUILDING_DATA
from mmmeta.utils.torch_private import READING_DATA

from .inspection import dataset_class, datasets


def check_data(cfg: Config, loaders: Sequence[str]) -> None:
    """Check that the folders and files of the data sets are there.

    Args:
        cfg (Config): The config.
        loaders (Sequence[str]): Names of the data loaders that the run uses.

    Raises:
        UsageError: A folder is missing or empty, an annotation file is missing, or a metric would compare
            with another one.
    """
    for name in loaders:
        for dataset in datasets(cfg.get(name) or {}):
            root = dataset.get('data_root') or ''
            if not isinstance(root, (str, os.PathLike)):  # of a class of the user's
                continue
            root = str(root)
            remote = '://' in root or dataset.get('backend_args')
            if remote:
                continue
            for folder in _folders(dataset):
                problem = _problem_with(folder) if folder else None
                if problem:
                    raise UsageError(
                        f"the data of {name} {problem}: looked for images or annotations in '{folder}'; put "
                        f'the data set there, or set {name}.dataset.data_root'
                    )
            if not dataset.get('ann_file'):
                _check_suffix(cfg, name, dataset)
                continue
            annotations = os.path.join(root, dataset['ann_file'])
            if not os.path.isfile(annotations):
                raise UsageError(
                    f"the annotations of {name} are missing: looked for '{annotations}'; put the file "
                    f'there, or set {name}.dataset.data_root'
                )
            _check_evaluator(cfg, name, annotations)


def _check_suffix(cfg: Config, name: str, dataset: ConfigDict) -> None:
    """Check that images of a segmentation data set end in what it looks for."""
    cls = dataset_class(dataset, cfg.get('default_scope', 'mmengine'))
    parameter = inspect.signature(cls).parameters.get('img_suffix') if cls else None
    prefix = dataset.get('data_prefix') or {}
    if parameter is None or not isinstance(prefix, dict) or 'img_path' not in prefix:
        return
    suffix = dataset.get('img_suffix', parameter.default)
    folder = os.path.join(dataset.get('data_root') or '', prefix['img_path'])
    endings = {os.path.splitext(file)[1] for _, _, files in os.walk(folder) for file in files}
    if isinstance(suffix, str) and not any(suffix.endswith(ending) for ending in endings if ending):
        found = min(endings, default='')
        raise UsageError(
            f"no file in '{folder}' ends in '{suffix}', which {name} looks for, but in "
            f"{', '.join(sorted(endings))}: write {name}.dataset.img_suffix='{found}'"
        )


def _folders(dataset: ConfigDict) -> list[str]:
    """The folders of images and annotation images of a data set's config."""
    prefix = dataset.get('data_prefix') or ''
    folders = list(prefix.values()) if isinstance(prefix, dict) else [prefix]
    root = dataset.get('data_root') or ''
    return [os.path.join(root, folder) for folder in folders if isinstance(folder, (str, os.PathLike))]


def _check_evaluator(cfg: Config, loader: str, annotations: str) -> None:
    """Check that a metric which reads the annotations itself reads those of its data set."""
    key = loader.replace('dataloader', 'evaluator')
    evaluators = cfg.get(key) or []
    for evaluator in [evaluators] if isinstance(evaluators, dict) else evaluators:
        path = evaluator.get('ann_file')
        if not path or '://' in path or evaluator.get('backend_args'):
            continue
        if not os.path.isfile(path):
            raise UsageError(f"the annotations of {key} are missing: looked for '{path}'; set {key}.ann_file")
        if not os.path.samefile(path, annotations):
            raise UsageError(
                f"{key} would compare with '{path}', and {loader} reads '{annotations}': set {key}.ann_file "
                'to the same file'
            )


# So PyTorch marks what a data worker raised.
IN_WORKER = 'in DataLoader worker process'


@contextmanager
def explain_data_errors(cfg: Config, loaders: Sequence[str], stage: str | None = None) -> Iterator[None]:
    """Report which file of a data set is wrong, where MMEngine's packages fail while loading it.

    Only what comes from there is explained; whatever else fails, a transform of the user's too, is raised as
    it is.

    Args:
        cfg (Config): The config.
        loaders (Sequence[str]): Names of the data loaders that the run uses.
        stage (str | None): What happens inside: ``'building'`` or ``'reading'`` a data set. Defaults to None:
            a whole run, in which these are recognised.

    Raises:
        UsageError: An image is missing or damaged, or an annotation file is empty or not in its format.
    """
    try:
        yield
    except UsageError as error:
        message = str(error)
        if IN_WORKER in message:  # with the traceback in it
            raise UsageError(message.rpartition('UsageError: ')[2].strip()) from error
        explained = _explain_folders(message, loaders)
        if explained:  # what a constructor says
            raise UsageError(explained) from error
        raise
    except Exception as error:
        codes = {frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)}
        in_worker = IN_WORKER in str(error)
        if stage is None and (READING_DATA in codes or in_worker):
            stage = 'reading'
        elif stage is None and BUILDING_DATA in codes:
            stage = 'building'
        explained = stage and _explain(error, cfg, loaders, stage)
        if not explained:
            raise
        raise UsageError(explained) from error


def _explain(error: Exception, cfg: Config, loaders: Sequence[str], stage: str) -> str | None:
    """One sentence for an error that a file of a data set causes; None for any other."""
    text = str(error)
    # The last one: a worker process sends its traceback, lines of code included.
    path = next(reversed(re.findall(r'failed to load image: (.+)', text)), None)
    if '!buf.empty()' in text:  # OpenCV does not say which
        path = next(_empty_files(cfg, loaders), None)
    if path:
        return _explain_image(path)
    if isinstance(error, FileNotFoundError):
        missing = re.search(r"No such file or directory: '(.+)'", text)
        return f"'{missing[1]}' is not there: add it, or take it out of the data set" if missing else None
    if stage != 'building':
        return None
    if isinstance(error, ImportError):
        return f'the data of {loaders[0]} need a package that is not installed: {text}'
    folders = _explain_folders(text, loaders)
    if folders:
        return folders
    owners = (frame.f_locals.get('self') for frame, _ in traceback.walk_tb(error.__traceback__))
    # Not getattr, which objects that are half built may answer by failing themselves.
    files = [getattr(owner, '__dict__', {}).get('ann_file') for owner in owners]
    files = [file for file in files if file]
    if not files:
        return None
    if 'need at least one array to concatenate' in text:
        return (
            f"no image is left of '{files[-1]}': it lists none, or none with an object of the classes to "
            'train on; give another ann_file'
        )
    if isinstance(error, (KeyError, ValueError)):
        return f"'{files[-1]}' is not in the format of its data set ({type(error).__name__}: {error})"
    return None


def _explain_folders(text: str, loaders: Sequence[str]) -> str | None:
    """One sentence for MMPretrain's about folders and classes; None for any other."""
    folders = re.search(r'The number of subfolders \((\d+)\).*number of specified classes \((\d+)\)', text)
    return folders and (
        f'{loaders[0]} has {folders[1]} folders of classes, and {folders[2]} classes are named: name '
        'those of the folders in metainfo=dict(classes=...), in their order'
    )


def _explain_image(path: str) -> str:
    """One sentence for an image that OpenCV cannot read: it may be whole, and of values that it does not."""
    try:
        with Image.open(path) as image:
            image.load()
            said = f"'{path}' is a whole image of {image.format}, which OpenCV does not read as a picture"
            if image.mode in ('F', 'I'):
                return (
                    f'{said}, since its values have 32 bits: write mmmeta.LoadUnchangedImage in place of '
                    'LoadImageFromFile, or store 8 bits'
                )
            return f"{said}: convert it to PNG, or write imdecode_backend='pillow' for LoadImageFromFile"
    except IMAGE_ERRORS:
        return f"'{path}' is damaged or not an image: get it again, or take it out of the data set"


def _empty_files(cfg: Config, loaders: Sequence[str]) -> Iterator[str]:
    """Files without content in the image folders of the data sets."""
    for name in loaders:
        for dataset in datasets(cfg.get(name) or {}):
            for folder in _folders(dataset):
                for file in Path(folder).rglob('*'):
                    if file.is_file() and file.stat().st_size == 0:
                        yield str(file)


def _problem_with(folder: str) -> str | None:
    """What is wrong with a data folder, or None."""
    if not os.path.isdir(folder):
        return 'are missing'
    return None if next(os.scandir(folder), None) else 'are an empty folder'
