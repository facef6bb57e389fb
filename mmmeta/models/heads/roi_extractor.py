"""Features of regions, cut out faster at inference."""

import torch
from mmcv.ops import RoIAlign as MMCVRoIAlign
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor as MMDetSingleRoIExtractor
from torch import Tensor, nn

from mmmeta.models.layers.chunks import may_chunk
from mmmeta.models.layers.roi_align import roi_align
from mmmeta.registry import MODELS


class RoIAlign(MMCVRoIAlign):
    """MMCV's ``RoIAlign``, which at inference on a CPU reads all channels of a position at once.

    It looks at the strides of its input, which MMCV's own does not.
    """

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` and ``(N, 5)`` to ``(N, C, *output_size)``."""
        adaptive = self.sampling_ratio == 0 and self.pool_mode == 'avg' and self.aligned
        if adaptive and may_chunk(x) and x.dtype == rois.dtype == torch.float32 and not self.use_torchvision:
            return roi_align(x, rois, self.output_size, self.spatial_scale)
        return super().forward(x.contiguous(), rois)


@MODELS.register_module()
class SingleRoIExtractor(MMDetSingleRoIExtractor):
    """MMDetection's ``SingleRoIExtractor`` (arXiv:1612.03144), with a faster RoIAlign at inference on a CPU.

    Results are the same but for rounding. Arguments are those of MMDetection's ``SingleRoIExtractor``.
    """

    def build_roi_layers(self, layer_cfg: dict, featmap_strides: list[int]) -> nn.ModuleList:
        """Build one layer for each map."""
        if layer_cfg['type'] == 'RoIAlign':
            layer_cfg = dict(layer_cfg, type=RoIAlign)
        return super().build_roi_layers(layer_cfg, featmap_strides)
