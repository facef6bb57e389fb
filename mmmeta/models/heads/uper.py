"""UperNet's head, faster at inference."""

from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import UPerHead as MMSegUPerHead
from mmseg.models.utils import resize
from torch import Tensor

from mmmeta.models.layers import Conv2d, accelerate
from mmmeta.models.layers.resized import conv_pyramid
from mmmeta.registry import MODELS


@MODELS.register_module()
class UPerHead(MMSegUPerHead):
    """MMSegmentation's ``UPerHead`` (arXiv:1807.10221), which merges its maps at their own sizes.

    Nearly two thirds of the head's arithmetic are a convolution over four maps that have been resized to the
    finest. At inference it runs before resizing, see :func:`~mmmeta.models.layers.resized.conv_pyramid`: the
    result is the same but for rounding, at 512x512 with 512 channels in less than half the time. Its other
    convolutions are ``mmmeta.Conv2d``. Parameters, checkpoints and training are MMSegmentation's.

    Arguments are those of MMSegmentation's ``UPerHead``.
    """

    # Whatever MMSegmentation's head takes in the installed version; it refuses what it does not know.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        accelerate(self)

    def _forward_feature(self, inputs: list[Tensor]) -> Tensor:
        """Features that are classified, ``(B, channels, H, W)``, from those of the backbone."""
        kind = inputs[0].device.type
        plain = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()
        # In half precision the products would be rounded before they are resized.
        if plain or self.training or torch.is_autocast_enabled(kind) or not _is_plain(self.fpn_bottleneck):
            return super()._forward_feature(inputs)
        inputs = self._transform_inputs(inputs)
        maps = [lateral(x) for lateral, x in zip(self.lateral_convs, inputs, strict=False)]
        pooled = [pool(inputs[-1]) for pool in self.psp_modules]
        maps.append(_merge(self.bottleneck, [inputs[-1], *pooled], self.align_corners))
        for i in range(len(maps) - 1, 0, -1):
            above = resize(maps[i], maps[i - 1].shape[2:], mode='bilinear', align_corners=self.align_corners)
            maps[i - 1] = maps[i - 1] + above
        maps = [*(conv(x) for conv, x in zip(self.fpn_convs, maps, strict=False)), maps[-1]]
        return _merge(self.fpn_bottleneck, maps, self.align_corners)


def _is_plain(module: ConvModule) -> bool:
    """Whether a convolution is followed by norm and activation and has no other kind of kernel."""
    return type(module.conv) is Conv2d and module.order == ('conv', 'norm', 'act')


def _merge(module: ConvModule, maps: list[Tensor], align_corners: bool) -> Tensor:
    """What a module makes of the maps, resized to the first and concatenated."""
    conv = module.conv
    x = conv_pyramid(maps, conv.weight, conv.bias, align_corners)
    if module.with_norm:
        x = module.norm(x)
    return module.activate(x) if module.with_activation else x
