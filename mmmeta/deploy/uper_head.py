"""UperNet's head with its maps convolved before they are resized."""

import contextlib
from collections.abc import Iterator

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import UPerHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from .acceleration import has_hooks, must_fall_back
from .conv_pyramid import conv_pyramid


class MergedUPerHead(UPerHead):
    """MMSegmentation's ``UPerHead`` (arXiv:1807.10221), which merges its maps at their own sizes.

    Nearly two thirds of the head's arithmetic are a convolution over four maps, three of which were resized
    to the finest. Here they are convolved before, see :func:`~mmmeta.deploy.conv_pyramid.conv_pyramid`.
    """

    @staticmethod
    def can_replace(head: UPerHead) -> bool:
        """Whether the head's convolutions are supported."""
        return all(
            type(module) is ConvModule
            and type(module.conv) is nn.Conv2d
            and module.order == ('conv', 'norm', 'act')
            for module in (head.bottleneck, head.fpn_bottleneck)
        )

    def _forward_feature(self, inputs: list[Tensor]) -> Tensor:
        """Features that are classified, ``(B, channels, H, W)``, from those of the backbone."""
        # In half precision the products would be rounded before they are resized.
        is_float32 = inputs[0].dtype == torch.float32 and not torch.is_autocast_enabled('cpu')
        if must_fall_back(inputs[0]) or self.training or not is_float32 or has_hooks(self):
            return super()._forward_feature(inputs)
        return self.merged_features(inputs)

    def merged_features(self, inputs: list[Tensor]) -> Tensor:
        """The same, whatever runs it."""
        inputs = self._transform_inputs(inputs)
        maps = [lateral(x) for lateral, x in zip(self.lateral_convs, inputs, strict=False)]
        pooled = [pool(inputs[-1]) for pool in self.psp_modules]
        maps.append(_merge(self.bottleneck, [inputs[-1], *pooled], self.align_corners))
        for i in range(len(maps) - 1, 0, -1):
            above = resize(maps[i], maps[i - 1].shape[2:], mode='bilinear', align_corners=self.align_corners)
            maps[i - 1] = maps[i - 1] + above
        maps = [*(conv(x) for conv, x in zip(self.fpn_convs, maps, strict=False)), maps[-1]]
        return _merge(self.fpn_bottleneck, maps, self.align_corners)


class TracedUPerHead(MergedUPerHead):
    """The same for export, where nothing falls back."""

    _forward_feature = MergedUPerHead.merged_features


@contextlib.contextmanager
def merged_while_traced(model: nn.Module) -> Iterator[None]:
    """Let the heads of a model merge their maps so while it is traced, for images of one size."""
    heads = [m for m in model.modules() if type(m) is UPerHead and MergedUPerHead.can_replace(m)]
    for head in heads:
        head.__class__ = TracedUPerHead
    try:
        yield
    finally:
        for head in heads:
            head.__class__ = UPerHead


def _merge(module: ConvModule, maps: list[Tensor], align_corners: bool) -> Tensor:
    """Output of ``module`` for the maps, resized to the first and concatenated."""
    conv = module.conv
    x = conv_pyramid(maps, conv.weight, conv.bias, align_corners)
    if module.with_norm:
        x = module.norm(x)
    return module.activate(x) if module.with_activation else x
