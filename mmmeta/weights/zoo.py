"""Table of the published weights: names, locations, classes and image sizes."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from mmmeta.utils.errors import UsageError

# Of ImageNet, in 0 to 255, red first, which all published MetaFormers know (timm's IMAGENET_DEFAULT_MEAN).
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
TABLE_I_SIZES = ('s12', 's24', 's36', 'm36', 'm48')
TABLE_II_SIZES = ('s18', 's36', 'm36', 'b36')
SIZES = {
    'poolformer': TABLE_I_SIZES,
    'identityformer': TABLE_I_SIZES,
    'randformer': TABLE_I_SIZES,
    'poolformerv2': TABLE_I_SIZES,
    'convformer': TABLE_II_SIZES,
    'caformer': TABLE_II_SIZES,
}
# Suffix of our names and of the authors' files: tag on timm's hub, side of the images, classes.
TRAININGS = {
    '': ('sail_in1k', 224, 1000),
    '_384': ('sail_in1k_384', 384, 1000),
    '_in21ft1k': ('sail_in22k_ft_in1k', 224, 1000),
    '_384_in21ft1k': ('sail_in22k_ft_in1k_384', 384, 1000),
    '_in21k': ('sail_in22k', 224, 21841),
}
# Files that carry the start of their hash in the name; their host, download.openmmlab.com, no longer answers.
MMPRETRAIN_HASHES = dict(s12='f8d83051', s24='d7055904', s36='d78ff3e8', m36='c55e0949', m48='9378f3eb')
MMSEG_STAMPS = dict(
    s12='20220501_115154-b5aa2f49',
    s24='20220503_222049-394a7cf7',
    s36='20220501_151122-b47e607d',
    m36='20220501_164230-3dc83921',
    m48='20220504_003923-64168d3b',
)
# CAFormer-S18 trained without labels on videos of operations (SurgeNet), by the start of the file's name.
SURGENET = dict(
    surgenet_xl='SurgeNetXL',
    surgenet='SurgeNet',
    surgenet_small='SurgeNetSmall',
    surgenet_cholec='CHOLEC',
    surgenet_ramie='RAMIE',
    surgenet_rarp='RARP',
    surgenet_public='Public',
)
HUB = 'https://huggingface.co'
OPENMMLAB = 'https://download.openmmlab.com'


@dataclass(frozen=True)
class Weights:
    """A set of published weights.

    Args:
        name (str): Name in our zoo, such as ``'caformer_s18_in21ft1k'``.
        family (str): Family, such as ``'caformer'``.
        size (str): Member of the family, such as ``'s18'``.
        num_classes (int): Classes: 1000 of ImageNet-1K, 21841 of ImageNet-21K, 150 of ADE20K; 0 of a backbone
            without a classifier.
        image_size (int): Side of the images that it was trained on, in pixels.
        crop_ratio (float): Side of the centre crop over the shorter side of the resized image, in the test.
        places (tuple[str, ...]): Locations, in the order in which they are tried.
        act (str | None): Activation of the network, where it is not the family's. Defaults to None.
        licence (str | None): What the weights may be used for, where that is restricted. Defaults to None.
    """

    name: str
    family: str
    size: str
    num_classes: int
    image_size: int
    crop_ratio: float
    places: tuple[str, ...]
    act: str | None = None
    licence: str | None = None

    @property
    def arch(self) -> str | dict[str, str]:
        """The ``arch`` of the backbone that the weights are for."""
        return self.size if self.act is None else dict(base=self.size, act=self.act)


def _places(family: str, size: str, suffix: str, tag: str) -> Iterator[str]:
    model = f'{family}_{size}'
    if family == 'poolformer':
        yield f'https://github.com/sail-sg/poolformer/releases/download/v1.0/{model}.pth.tar'
    if family not in ('identityformer', 'randformer'):
        yield f'timm://{model}.{tag}'
    if family != 'poolformer':
        yield f'{HUB}/sail/dl/resolve/main/{family}/{model}{suffix}.pth'
    else:
        yield f'{HUB}/sail/{model}/resolve/main/pytorch_model.bin'
        stamp = f'{model}_3rdparty_32xb128_in1k_20220414-{MMPRETRAIN_HASHES[size]}'
        yield f'{OPENMMLAB}/mmclassification/v0/poolformer/{stamp.replace("_", "-", 1)}.pth'


def _all() -> Iterator[Weights]:
    for family, sizes in SIZES.items():
        for size in sizes:
            for suffix, (tag, image_size, num_classes) in TRAININGS.items():
                if suffix and family not in ('convformer', 'caformer'):
                    continue
                yield Weights(
                    name=f'{family}_{size}{suffix}',
                    family=family,
                    size=size,
                    num_classes=num_classes,
                    image_size=image_size,
                    crop_ratio=_crop_ratio(family, size),
                    places=tuple(_places(family, size, suffix, tag)),
                )
    for size, stamp in MMSEG_STAMPS.items():
        run = f'fpn_poolformer_{size}_8x4_512x512_40k_ade20k'
        yield Weights(
            name=f'fpn_poolformer_{size}_ade20k',
            family='poolformer',
            size=size,
            num_classes=150,
            image_size=512,
            crop_ratio=1.0,
            places=(f'{OPENMMLAB}/mmsegmentation/v0.5/poolformer/{run}/{run}_{stamp}.pth',),
        )

    for name, file in SURGENET.items():
        yield Weights(
            name=f'caformer_s18_{name}',
            family='caformer',
            size='s18',
            num_classes=0,
            image_size=224,
            crop_ratio=1.0,
            places=(
                f'{HUB}/TimJaspersTue/SurgeNetModels/resolve/main/{file}_checkpoint_epoch0050_teacher.pth',
            ),
            act='ReLU',
            licence='CC-BY-NC-SA 4.0: not for commercial use',
        )


def _crop_ratio(family: str, size: str) -> float:
    """Of the authors' evaluation: PoolFormer's is 0.9 or, for the wide ones, 0.95; all others' is 1."""
    if family != 'poolformer':
        return 1.0
    return 0.95 if size.startswith('m') else 0.9


ZOO = {weights.name: weights for weights in _all()}


def get_weights(name: str) -> Weights:
    """Return the weights of a name in the zoo.

    Args:
        name (str): Such as ``'caformer_s18'`` or ``'convformer_b36_384_in21ft1k'``.

    Raises:
        UsageError: The name is unknown.
    """
    if name not in ZOO:
        close = difflib.get_close_matches(name, ZOO, n=3) or list(ZOO)[:3]
        raise UsageError(f"there are no weights '{name}' in the zoo: did you mean {' or '.join(close)}?")
    return ZOO[name]


def find_by_place(place: str) -> Weights | None:
    """The weights published at a location, with their other locations; None if it is unknown."""
    return next((weights for weights in ZOO.values() if place in weights.places), None)


def name_of_location(location: str) -> str | None:
    """The name in the zoo of the weights at a location, ``mmmeta://...`` or a download location; or None."""
    name = location.removeprefix('mmmeta://')
    if name != location:
        return name if name in ZOO else None
    weights = find_by_place(location)
    return weights.name if weights else None


def name_of_config(name: str) -> str | None:
    """The name in the zoo of the published weights of a config's whole model, or None.

    Args:
        name (str): Name of the config, such as ``'caformer_s18_in1k'``.
    """
    published = name.removesuffix('_in1k')
    return published if published in ZOO else None
