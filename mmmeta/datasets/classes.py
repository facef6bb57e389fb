"""Names of the classes of classifiers."""

from collections.abc import Sequence

from mmengine.model import BaseModel


def class_names(model: BaseModel) -> Sequence[str]:
    """Names of the classes of a classifier.

    Args:
        model (BaseModel): A classifier of :func:`~mmmeta.apis.build_model`.

    Returns:
        Sequence[str]: Those of the data that its config tests on; else of ImageNet-1K, for 1000, or
        ImageNet-21K, for 21841; numbers for others.
    """
    num_classes = model.head.num_classes
    dataset = (model.cfg.get('test_dataloader') or {}).get('dataset') or {}
    named = (dataset.get('metainfo') or {}).get('classes')
    if isinstance(named, (list, tuple)) and len(named) == num_classes:
        return named
    if num_classes == 1000:
        from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

        return IMAGENET_CATEGORIES
    if num_classes == 21841:
        from timm.data import ImageNetInfo

        info = ImageNetInfo('imagenet-22k')
        return [info.index_to_description(i) for i in range(num_classes)]
    return [str(i) for i in range(num_classes)]
