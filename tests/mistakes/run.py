"""Check all wrong configs and data, and right ones of all packages on generated data.

Every mistake has to be found, each with its sentence, and right configs have to stay silent::

    python tests/mistakes/run.py [--right 200] [--seed 0]
"""

import argparse
import contextlib
import copy
import io
import random
import re
import shutil
import sys
import tempfile
import warnings
from functools import cache
from importlib.util import find_spec
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from rich.progress import track

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests'))

from mmengine.config import Config, ConfigDict  # noqa: E402

from mistakes.configs import CLASSIFIER, DETECTOR, MISTAKES, SEGMENTOR  # noqa: E402
from mistakes.data import DATA_MISTAKES  # noqa: E402
from mistakes.unusual import write_unusual  # noqa: E402
from mmmeta.apis import check, load_config  # noqa: E402
from mmmeta.config import edit, read  # noqa: E402
from mmmeta.config.inspection import datasets  # noqa: E402
from mmmeta.datasets import generate_ade20k, generate_coco, generate_imagenet  # noqa: E402
from mmmeta.utils.errors import UsageError  # noqa: E402
from mmmeta.validation import check_config  # noqa: E402

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# Data sets whose layout can be generated.
LAYOUTS = dict(ADE20KDataset=generate_ade20k, CocoDataset=generate_coco, ImageNet=generate_imagenet)
GENERATED = {
    SEGMENTOR: (generate_ade20k, 6, 2, 64),
    DETECTOR: (generate_coco, 6, 2, 96),
    CLASSIFIER: (generate_imagenet, 18, 18, 64),
}
# Configs with mistakes of their own: keys of MMCV 1 that nothing reads, a validation without its loop, a
# batch of no size or of another than the crops, outputs for other classes than the data have; and one that
# needs a package.
MISTAKEN = re.compile(
    'hornet|resnest|ipu|in21k|lraspp|upernet_r18_4xb4|knet-s3_swin-l_upernet_8xb2-adamw-80k_ade20k-640|lenet5|instaboost'
)
GIVEN = (
    *('train2017', 'val2017', 'train', 'val', ''),
    *(f'{kind}/{part}' for kind in ('images', 'annotations') for part in ('training', 'validation')),
)
FOLDERS = dict(ADE20KDataset='ADEChallengeData2016', CocoDataset='coco', ImageNet='imagenet')


def on_data(config: str, root: Path) -> dict[str, str]:
    """Options that put a config of ours on generated data."""
    options = {f'{loader}.dataset.data_root': str(root) for loader in LOADERS}
    if config == DETECTOR:
        metric = f'{root}/annotations/instances_val2017.json'
        options.update({f'{part}_evaluator.ann_file': metric for part in ('val', 'test')})
    return options


def run_mistake(i: int) -> tuple[str, str | None]:
    """Name of a wrong config, and what is wrong with what was found."""
    mistake = MISTAKES[i]
    found = check_config(load_config(mistake.path, dict(mistake.options)))
    name = f'{mistake.key}: {mistake.text}'
    if [(one.key, one.is_warning) for one in found] != [(mistake.key, mistake.is_warning)]:
        return name, f'found {[(one.key, one.text) for one in found]}'
    return name, None if mistake.text in found[0].text else found[0].text


@cache
def _read(config: str) -> Config:
    return read(str(ROOT / config))


def run_data_mistake(i: int) -> tuple[str, str | None]:
    """Name of a wrong data set, and what is wrong with what was found."""
    mistake = DATA_MISTAKES[i]
    with tempfile.TemporaryDirectory() as folder:
        generate, *sizes = GENERATED[mistake.config]
        root = generate(folder, *sizes)
        mistake.change(root)
        given = {
            key: value.format(root=root) if isinstance(value, str) else value
            for key, value in mistake.options.items()
        }
        try:
            cfg = edit(
                copy.deepcopy(_read(mistake.config)), 'data', {**on_data(mistake.config, root), **given}
            )
            found = [one.text for one in check(cfg)]
        except UsageError as error:
            found = [str(error)]
    good = any(mistake.text in text for text in found)
    return mistake.name, None if good and len(found) == 1 else f'found {found}'


def generate_all(root: Path) -> None:
    """Generate a data set of each layout, that of ImageNet with a thousand folders, as its data sets want."""
    for generate, size in ((generate_ade20k, 64), (generate_coco, 96), (generate_imagenet, 64)):
        generate(root, 18, 18, size, progress=lambda message: None)
    root = root / 'imagenet'
    for split in ('train', 'val'):
        image = min((root / split).glob('*/*'))
        for i in range(1000 - len(list((root / split).iterdir()))):
            folder = root / split / f'n9{i:07d}'
            folder.mkdir()
            shutil.copy(image, folder)


def _is_generated(dataset: ConfigDict) -> bool:
    """Whether a data set reads nothing that is not generated, such as maps of stuff."""
    prefix = dataset.get('data_prefix') or {}
    folders = prefix.values() if isinstance(prefix, dict) else [prefix]
    files = ('', 'annotations/instances_train2017.json', 'annotations/instances_val2017.json')
    return (
        'proposal_file' not in dataset
        and dataset.get('ann_file', '') in files
        and all(folder.strip('/') in GIVEN for folder in folders)
    )


def put_on_data(cfg: Config, folder: Path) -> bool:
    """Put a config of any package on generated data; False if its layout cannot be generated."""
    for name in LOADERS:
        loader = cfg.get(name) or {}
        for dataset in datasets(loader):
            if dataset.get('type') not in LAYOUTS or not _is_generated(dataset):
                return False
            dataset.data_root = str(folder / FOLDERS[dataset.type])
    for key in ('val_evaluator', 'test_evaluator'):
        for metric in cfg[key] if isinstance(cfg.get(key), list) else [cfg.get(key) or {}]:
            if metric.get('ann_file'):
                metric['ann_file'] = str(folder / 'coco/annotations/instances_val2017.json')
    return all(name in cfg for name in LOADERS)


def run_right(job: tuple[str, str]) -> tuple[str, str | None]:
    """Name of a right config, and what was found."""
    path, folder = job
    cfg = Config.fromfile(path)
    put_on_data(cfg, Path(folder))
    try:
        # A warm-up is longer than a training on the few images that were generated.
        found = [(one.key, one.text) for one in check(cfg, 8) if one.key != 'param_scheduler']
    except UsageError as error:
        found = [str(error)]
    return path, f'found {found}' if found else None


def run_unusual(folder: str) -> list[tuple[str, str | None]]:
    """Names of right configs that are not like ours, and what was found in each."""
    found = []
    for name, cfg in write_unusual(Path(folder)):
        try:
            findings = [(one.key, one.text) for one in check(cfg)]
        except UsageError as error:
            findings = [str(error)]
        found.append((name, f'found {findings}' if findings else None))
    return found


def quietly(job: tuple[str, object]) -> tuple[str, str, str | None]:
    """Run a job of one kind without what the packages print."""
    kind, argument = job
    run = dict(config=run_mistake, data=run_data_mistake, right=run_right)[kind]
    warnings.simplefilter('ignore')
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return kind, *run(argument)


def packages_configs(count: int, seed: int) -> list[str]:
    """Configs of the packages whose data can be generated, drawn at random; as many of each package."""
    found = []
    for package, share in zip(('mmdet', 'mmseg', 'mmpretrain'), _shares(count), strict=True):
        configs = Path(find_spec(package).origin).parent / '.mim/configs'
        paths = [path for path in sorted(configs.glob('[!_]*/*.py')) if not MISTAKEN.search(path.name)]
        random.Random(seed).shuffle(paths)
        found += islice((str(path) for path in paths if _is_usable(path)), share)
    return found


def _shares(count: int) -> list[int]:
    return [count // 3 + (i < count % 3) for i in range(3)]


def _is_usable(path: Path) -> bool:
    try:
        cfg = Config.fromfile(path)
    except (KeyError, FileNotFoundError, ImportError, RuntimeError):  # of files that are not there any more
        return False
    return isinstance(cfg.get('model'), ConfigDict) and put_on_data(cfg, Path())


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--right', type=int, default=200, help='right configs of the packages (default: 200)')
    parser.add_argument('--seed', type=int, default=0, help='which of them are drawn (default: 0)')
    args = parser.parse_args()
    jobs = [('config', i) for i in range(len(MISTAKES))] + [('data', i) for i in range(len(DATA_MISTAKES))]
    counts = dict(config=[0, 0], data=[0, 0], right=[0, 0], unusual=[0, 0])
    with tempfile.TemporaryDirectory() as folder:
        generate_all(Path(folder))
        ours = [str(path) for path in sorted((ROOT / 'configs').glob('*.py'))]
        jobs += [('right', (path, folder)) for path in (*ours, *packages_configs(args.right, args.seed))]
        with get_context('spawn').Pool(2, maxtasksperchild=60) as pool:
            results = pool.imap_unordered(quietly, jobs)
            for kind, name, wrong in track(results, 'checking', len(jobs)):
                counts[kind][0] += wrong is None
                counts[kind][1] += 1
                if wrong:
                    print(f'{kind}: {name}\n    {wrong}')
        with contextlib.redirect_stdout(io.StringIO()):
            unusual = run_unusual(f'{folder}/unusual')
        for name, wrong in unusual:
            counts['unusual'][0] += wrong is None
            counts['unusual'][1] += 1
            if wrong:
                print(f'unusual: {name}\n    {wrong}')
    for kind, said in (
        ('config', 'wrong configs found'),
        ('data', 'wrong data found'),
        ('right', 'right: silent'),
        ('unusual', 'right, of other depth, channels and style: silent'),
    ):
        print(f'{said}: {counts[kind][0]} of {counts[kind][1]}')
    sys.exit(any(good != all_ for good, all_ in counts.values()))


if __name__ == '__main__':
    main()
