"""Robustness of ImageNet-1K classifiers, as in Table VI of arXiv:2210.13452.

ImageNet-C (arXiv:1903.12261), ImageNet-A (arXiv:1907.07174), ImageNet-R (arXiv:2006.16241) and
ImageNet-Sketch (arXiv:1905.13549).
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.evaluation import Accuracy

from mmmeta.registry import DATASETS, METRICS
from mmmeta.utils.errors import UsageError

# Mean error of AlexNet over the five severities of each corruption, in percent (arXiv:1903.12261).
ALEXNET_ERRORS = dict(
    gaussian_noise=88.6,
    shot_noise=89.4,
    impulse_noise=92.3,
    defocus_blur=82.0,
    glass_blur=82.6,
    motion_blur=78.6,
    zoom_blur=79.8,
    snow=86.7,
    frost=82.7,
    fog=81.9,
    brightness=56.5,
    contrast=85.3,
    elastic_transform=64.6,
    pixelate=71.8,
    jpeg_compression=60.7,
)
SEVERITIES = ('1', '2', '3', '4', '5')


def _synsets() -> dict[str, int]:
    """Synsets of ImageNet-1K, which name its folders, and their class indices."""
    try:
        from timm.data import ImageNetInfo
    except ImportError as error:
        raise UsageError(
            'timm, which lists the synsets of ImageNet-1K, is not installed: pip install timm'
        ) from error
    info = ImageNetInfo('imagenet-1k')
    return {info.index_to_label_name(i): i for i in range(info.num_classes())}


@DATASETS.register_module()
class ImageNetSubset(CustomDataset):
    """Images in folders named by the synsets of ImageNet-1K, not necessarily by all of them.

    ``gt_label`` is the class among the thousand; ``metainfo['subset']`` lists the classes that occur.

    Args:
        data_root (str): Folder of the data set.
        data_prefix (str): Folder below it that holds those of the classes. Defaults to ``''``.
        pipeline (Sequence[dict]): Pipeline. Defaults to ().
        test_mode (bool): As in MMEngine. Defaults to True.

    Raises:
        UsageError: A folder has another name, or there are no images.
    """

    METAINFO = dict(classes=IMAGENET_CATEGORIES)  # noqa: RUF012, as MMEngine wants it

    def __init__(
        self, data_root: str, data_prefix: str = '', pipeline: Sequence = (), test_mode: bool = True
    ) -> None:
        super().__init__(data_root=data_root, data_prefix=data_prefix, pipeline=pipeline, test_mode=test_mode)

    def load_data_list(self) -> list[dict]:
        """List the images and their classes."""
        data_list = self._list_images(Path(self.img_prefix), _synsets())
        if not data_list:
            raise UsageError(f"'{self.img_prefix}' has no images: put those of the data set there")
        self._metainfo['subset'] = tuple(sorted({info['gt_label'] for info in data_list}))
        return data_list

    def _list_images(self, folder: Path, classes: dict[str, int]) -> list[dict]:
        """The images in the folders of classes inside of ``folder``."""
        data_list = []
        for synset in sorted(path for path in folder.iterdir() if path.is_dir()):
            if synset.name not in classes:
                raise UsageError(
                    f"'{synset}' is not named by a class of ImageNet-1K: the folders of the classes, such as "
                    f"n01440764, must be in '{folder}'"
                )
            for name in sorted(os.listdir(synset)):
                if self.is_valid_file(name):
                    data_list.append(dict(img_path=str(synset / name), gt_label=classes[synset.name]))
        return data_list


@DATASETS.register_module()
class ImageNetC(ImageNetSubset):
    """ImageNet-C: ``corruption/severity/synset/image``, 15 corruptions in 5 severities.

    The arguments are those of :class:`ImageNetSubset`.

    Raises:
        UsageError: A corruption or a severity is missing.
    """

    def _list_images(self, folder: Path, classes: dict[str, int]) -> list[dict]:
        parts = [folder / corruption / severity for corruption in ALEXNET_ERRORS for severity in SEVERITIES]
        listed = {
            str(part): super(ImageNetC, self)._list_images(part, classes) if part.is_dir() else []
            for part in parts
        }
        missing = [part for part, images in listed.items() if not images]
        if missing:
            raise UsageError(
                f'ImageNet-C lacks the images of {len(missing)} of its {len(parts)} folders, such as '
                f"'{missing[0]}': the error over all corruptions needs every one"
            )
        return [info for images in listed.values() for info in images]


@METRICS.register_module()
class SubsetAccuracy(Accuracy):
    """Accuracy where only the classes of the data set may be predicted, as for ImageNet-A and ImageNet-R.

    The arguments are those of MMPretrain's ``Accuracy``; the data set is an :class:`ImageNetSubset`.
    """

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Leave the other classes out of the scores."""
        subset = torch.tensor(self.dataset_meta['subset'])
        position = {int(label): i for i, label in enumerate(subset)}
        return super().compute_metrics(
            [
                dict(
                    pred_score=result['pred_score'][subset],
                    gt_label=torch.tensor([position[int(label)] for label in result['gt_label']]),
                )
                for result in results
            ]
        )


@METRICS.register_module()
class CorruptionError(BaseMetric):
    """Mean corruption error over ImageNet-C (arXiv:1903.12261, Section 4.2).

    ``CE_c = sum_s E_{s,c} / sum_s E^AlexNet_{s,c}`` for each corruption c over the severities s, and mCE, its
    mean over the corruptions; in percent. The top-1 error without normalisation is reported beside it.

    Args:
        collect_device (str): As in MMEngine. Defaults to ``'cpu'``.
    """

    default_prefix = 'imagenet-c'

    def __init__(self, collect_device: str = 'cpu') -> None:
        super().__init__(collect_device)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Record corruption, severity and correctness of each image."""
        for sample in data_samples:
            corruption, severity = Path(sample['img_path']).parts[-4:-2]
            wrong = int(sample['pred_score'].argmax()) != int(sample['gt_label'])
            self.results.append((corruption, severity, wrong))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Average over images, then severities, then corruptions."""
        wrong = defaultdict(list)
        for corruption, severity, is_wrong in results:
            wrong[corruption, severity].append(is_wrong)
        errors = {
            corruption: sum(
                100 * sum(wrong[corruption, severity]) / len(wrong[corruption, severity])
                for severity in SEVERITIES
            )
            / len(SEVERITIES)
            for corruption in ALEXNET_ERRORS
        }
        relative = {f'CE_{name}': 100 * errors[name] / ALEXNET_ERRORS[name] for name in errors}
        return {
            'mCE': sum(relative.values()) / len(relative),
            'top1_error': sum(errors.values()) / len(errors),
            **relative,
        }
