"""Networks in the form in which they are exported: from an image to what a user wants."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn

from mmmeta.runtime import Description
from mmmeta.utils.errors import UsageError

from .preprocessing import Preprocessing


class Normalized(nn.Module):
    """A network with its normalisation.

    Args:
        network (nn.Module): Takes normalised images, and more.
        description (Description): Its ``mean``, ``std`` and ``is_bgr``, and whether they are applied here,
            ``normalized_inside``.
    """

    def __init__(self, network: nn.Module, description: Description) -> None:
        super().__init__()
        self.network = network
        self.names = network.names
        self.description = description
        for key, values in (('mean', description.mean), ('std', description.std)):
            self.register_buffer(key, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, image: Tensor, *sizes: Tensor) -> tuple[Tensor, ...]:
        """Normalise images, ``(B, C, H, W)``, red first, and run the network."""
        if self.description.normalized_inside:
            image = image.flip(1) if self.description.is_bgr else image
            image = (image - self.mean) / self.std
            if sizes:  # zero beside the content: what is normalised there need not round to it
                inside = [
                    torch.arange(side) < kept for side, kept in zip(image.shape[2:], sizes[0], strict=True)
                ]
                image = torch.where(inside[0][:, None] & inside[1], image, 0)
        return self.network(image, *sizes)


class Features(nn.Module):
    """A backbone."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.names = tuple(f'features_{i}' for i in backbone.out_indices)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features of images, ``(B, C, H, W)``."""
        return tuple(self.backbone(image))


class Classification(nn.Module):
    """A classifier, to probabilities of its classes."""

    names = ('probabilities',)

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        from mmpretrain.models import ClsHead, ImageClassifier

        head = classifier.head
        if type(classifier) is not ImageClassifier or not isinstance(head, ClsHead):
            raise UsageError(
                f'{type(classifier).__name__} with {type(head).__name__} cannot be exported: ImageClassifier '
                'with a head of single labels can be'
            )
        self.classifier = classifier

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Probabilities for images, ``(B, C, H, W)``."""
        return (self.classifier(image, mode='tensor').softmax(1),)


class Segmentation(nn.Module):
    """A segmentor, to logits at the size of its input, or to labels at that of the original image.

    Args:
        segmentor (nn.Module): ``EncoderDecoder`` of MMSegmentation, which predicts whole images.
        labels (bool): Whether it ends in labels. Defaults to True.
    """

    def __init__(self, segmentor: nn.Module, labels: bool = True) -> None:
        super().__init__()
        from mmseg.models import EncoderDecoder
        from mmseg.models.decode_heads.decode_head import BaseDecodeHead

        head = segmentor.decode_head
        plain = type(segmentor) is EncoderDecoder and isinstance(head, BaseDecodeHead)
        if not plain or type(head).predict is not BaseDecodeHead.predict:
            raise UsageError(
                f'{type(segmentor).__name__} with {type(head).__name__} cannot be exported: EncoderDecoder '
                'with a head that gives logits can be'
            )
        mode = segmentor.test_cfg.get('mode', 'whole')
        if mode != 'whole':
            raise UsageError(
                f"test_cfg has mode='{mode}', which cannot be exported: set model.test_cfg.mode=whole"
            )
        self.segmentor = segmentor
        self.labels = labels
        self.names = ('labels',) if labels else ('logits',)

    def forward(self, image: Tensor, *sizes: Tensor) -> tuple[Tensor]:
        """Segment images.

        Args:
            image (Tensor): ``(B, C, H, W)``, padded at the right and at the bottom.
            sizes (Tensor): For labels: height and width without the padding, and those of the original
                image, both ``(2,)`` and int64.

        Returns:
            tuple[Tensor]: Logits ``(B, classes, H, W)``, or labels ``(B, height, width)``, int32.
        """
        head = self.segmentor.decode_head
        logits = self.segmentor(image, mode='tensor')
        resized = dict(mode='bilinear', align_corners=head.align_corners)
        logits = F.interpolate(logits, image.shape[2:], **resized)
        if not self.labels:
            return (logits,)
        (height, width), original = (part.tolist() for part in sizes)
        for value, limit in ((height, image.shape[2]), (width, image.shape[3])):
            torch._check(value >= 1)
            torch._check(value <= limit)
        for value in original:
            torch._check(value >= 2)
        logits = F.interpolate(logits[:, :, :height, :width], original, **resized)
        if head.out_channels == 1:
            return ((logits.sigmoid() > head.threshold).squeeze(1).int(),)
        return (logits.argmax(1).int(),)


def normalization_of(
    preprocessor: BaseDataPreprocessor, preprocessing: Preprocessing
) -> tuple[list[float], list[float], bool]:
    """Return mean, deviation, and whether blue comes first, of what a config makes of an image.

    Raises:
        UsageError: An image is normalised twice.
    """
    channels = preprocessing.channels
    # Colours are read with blue first, unless they are read unchanged; the packages have names of their own.
    turns = ('_channel_conversion', 'channel_conversion', 'to_rgb')
    is_turned = channels == 3 and any(getattr(preprocessor, name, False) for name in turns)
    is_bgr = channels == 3 and (preprocessing.reads == 'color') != is_turned
    mean, std = [0.0] * channels, [1.0] * channels
    if preprocessor._enable_normalize:
        mean, std = (part.flatten().tolist() for part in (preprocessor.mean, preprocessor.std))
    if preprocessing.normalization is None:
        return mean * (channels // len(mean)), std * (channels // len(std)), is_bgr
    if preprocessor._enable_normalize:
        raise UsageError('the test pipeline and the data preprocessor normalise images: leave one out')
    return *preprocessing.normalization, is_bgr
