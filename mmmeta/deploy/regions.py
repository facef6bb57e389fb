"""Features of regions, for export."""

import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor
from torchvision.ops import roi_align


def extract_regions(extractor: SingleRoIExtractor, features: list[Tensor], boxes: Tensor) -> Tensor:
    """What MMDetection's ``SingleRoIExtractor`` extracts, for a fixed number of boxes of one image.

    Args:
        extractor (SingleRoIExtractor): With ``RoIAlign`` of MMCV.
        features (list[Tensor]): Maps, ``(1, C, H, W)``.
        boxes (Tensor): ``(K, 4)``. Those without area get zeros, as in MMCV; OpenVINO would give NaN.

    Returns:
        Tensor: ``(K, C, height, width)``.
    """
    features = features[: extractor.num_inputs]
    regions = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)
    levels = extractor.map_roi_levels(regions, len(features))
    has_area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    size = extractor.roi_layers[0].output_size
    out = features[0].new_zeros((len(boxes), features[0].shape[1], *size))
    for level, (layer, x) in enumerate(zip(extractor.roi_layers, features, strict=True)):
        chosen = ((levels == level) & has_area).nonzero().squeeze(1)
        aligned = roi_align(
            x, regions[chosen], size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
        )
        out = out.index_put((chosen,), aligned)
    return out
