"""Configs in which no other backbone can be put, by what they are made of."""

from importlib.util import find_spec

from mmengine.config import Config, ConfigDict

from mmmeta.config.inspection import bare_model, bare_type, iter_dicts
from mmmeta.utils.errors import UsageError

PLAIN = 'all of its maps have the stride of its patches, which the neck or the head turns into a pyramid'
MASKED = 'it is given the patches that are not masked'
TWO_PATHS = 'its branches of two resolutions are the method'
CLASSIFIES = 'it ends in the classifier itself'
# Backbones that are the method, or that parts of it are made for.
BACKBONES = dict(
    HourglassNet='the head predicts from each of its stacked hourglasses',
    TridentResNet='its three branches of other dilations are the method',
    UNet='its decoder, up to the stride of 1, is part of it',
    ICNet='it runs a ResNet on three resolutions of the image',
    BiSeNetV1=TWO_PATHS,
    BiSeNetV2=TWO_PATHS,
    STDCContextPathNet=TWO_PATHS,
    DDRNet=TWO_PATHS,
    PIDNet='its three branches are the method',
    FastSCNN='it is the whole network, without a classifier',
    CGNet='it is the whole network, without a classifier',
    ERFNet='it is the whole network, without a classifier',
    VPD='it is a diffusion model with a text encoder',
    VisionTransformer=PLAIN,
    BEiT=PLAIN,
    MAE=PLAIN,
    ViT=PLAIN,
    LoRAModel='it wraps a plain transformer whose layers it names',
    MAEViT=MASKED,
    MAEHiViT=MASKED,
    iTPNHiViT=MASKED,
    MaskFeatViT=MASKED,
    MFFViT=MASKED,
    MILANViT=MASKED,
    BEiTPretrainViT=MASKED,
    CAEPretrainViT=MASKED,
    SimMIMSwinTransformer=MASKED,
    MixMIMPretrainTransformer=MASKED,
    SparseResNet=MASKED,
    SparseConvNeXt=MASKED,
    MoCoV3ViT='its frozen patch embedding is the method',
    LeNet5=CLASSIFIES,
    AlexNet=CLASSIFIES,
    VGG=CLASSIFIES,
    InceptionV3=CLASSIFIES,
)
# Parts that are made for one backbone.
PARTS = dict(
    RFP='it runs the ResNet again on its own features',
    NASFCOS_FPN='it takes sizes of maps by their places, also of the first, which it does not read',
    LRASPPHead='it reads maps of strides that only MobileNetV3 has',
    ResLayer='it is the fourth stage of a ResNet, as a head',
    VisionTransformerClsHead='it reads a class token',
    DeiTClsHead='it reads class tokens',
    ConformerHead='it reads maps and tokens',
    SegmenterMaskTransformerHead='it reads tokens',
    SETRUPHead='it reads tokens of one stride',
    SETRMLAHead='it reads tokens of one stride',
    DPTHead='it reads tokens with a class token',
)
# Packages that OpenMMLab's do not require, by the type that needs one.
PACKAGES = dict(
    BertModel='transformers',
    Albu='albumentations',
    InstaBoost='instaboostfast',
    BoxInst='skimage',
)


def check_tied(cfg: Config) -> None:
    """Check that another backbone can be put into a model.

    Args:
        cfg (Config): The config.

    Raises:
        UsageError: It has no backbone for images, or one that the method is made of.
    """
    model = bare_model(cfg)
    backbone = model.get('backbone')
    if model.get('type') == 'ImageToImageRetriever':
        raise UsageError(
            "model.type='ImageToImageRetriever' has its backbone in a list, with the neck behind it: write "
            'mmmeta.* there by hand'
        )
    if not isinstance(backbone, dict) or 'type' not in backbone:
        raise UsageError(
            f'model.type={model.get("type")!r} has no model.backbone to put another one in the place of'
        )
    name = bare_type(backbone)
    if name in BACKBONES and not _reads_one_vector(model):
        raise UsageError(f"'{name}' (model.backbone.type) has no other in its place: {BACKBONES[name]}")
    for part in iter_dicts({key: value for key, value in model.items() if key != 'backbone'}):
        name = bare_type(part)
        if name in PARTS:
            raise UsageError(f"'{name}' is made for the backbone of this config: {PARTS[name]}")


def _reads_one_vector(model: ConfigDict) -> bool:
    """Whether a classifier's head is a linear map of one vector, whatever the backbone returns."""
    head = model.get('head')
    return (
        model.get('type') == 'ImageClassifier'
        and isinstance(head, dict)
        and bare_type(head) == 'LinearClsHead'
    )


def missing_package(cfg: Config) -> tuple[str, str] | None:
    """A package that a model needs beside OpenMMLab's and that is not installed, and what needs it."""
    for value in iter_dicts(cfg.to_dict()):
        name = bare_type(value)
        needs = PACKAGES.get(name)
        if value.get('num_cp'):  # checkpoints of an encoder
            name, needs = f'num_cp={value["num_cp"]}', 'fairscale'
        if needs and find_spec(needs) is None:
            return needs, name
    return None
