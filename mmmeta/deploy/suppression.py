"""Non-maximum suppression with a fixed number of outputs, for export."""

import torch
from torch import Tensor
from torchvision.ops import nms

# Scores of what was left out; true ones are not negative.
LEFT_OUT = -1.0


@torch.library.custom_op('mmmeta::suppress', mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, count: int) -> Tensor:
    """Keep the best boxes, of those that overlap more than a threshold the one with the highest score.

    An operator of its own, because the formats have one for it that takes many groups at once, which is
    faster by two orders of magnitude than what PyTorch's would be translated to.

    Args:
        boxes (Tensor): ``(groups, N, 4)`` as x1, y1, x2, y2; those of different groups must not overlap.
        scores (Tensor): ``(groups, N)``, negative for boxes that are left out.
        iou_threshold (float): Largest IoU of two boxes that are both kept.
        count (int): Number of boxes to keep.

    Returns:
        Tensor: ``(count,)``, int64: indices into the flattened boxes, of the highest score first; -1 where
        there are fewer.
    """
    return suppress_plainly(boxes, scores, iou_threshold, count)


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, count: int) -> Tensor:
    return scores.new_empty((count,), dtype=torch.int64)


# What exporters see of it.
OPERATOR = torch.ops.mmmeta.suppress.default


def suppress_plainly(boxes: Tensor, scores: Tensor, iou_threshold: float, count: int) -> Tensor:
    """:func:`suppress` in PyTorch's operators."""
    flat = scores.flatten()
    valid = (flat >= 0).nonzero().squeeze(1)
    kept = valid[nms(boxes.reshape(-1, 4)[valid], flat[valid], iou_threshold)]
    # As many more as are asked for, so that there are always enough.
    return torch.cat([kept, kept.new_full((count,), -1)])[:count]


def separate(boxes: Tensor, groups: Tensor, valid: Tensor) -> Tensor:
    """Move boxes of each group to a place of their own, as MMCV's ``batched_nms`` does.

    Equal arithmetic, because at such coordinates float32 rounds to hundredths of a pixel, which decides
    about small boxes.

    Args:
        boxes (Tensor): ``(..., 4)``.
        groups (Tensor): Numbers of groups, broadcast with ``boxes[..., 0]``.
        valid (Tensor): Which boxes take part, ``boxes.shape[:-1]``.
    """
    side = torch.where(valid[..., None], boxes, 0).max() + 1
    return boxes + (groups.to(boxes.dtype) * side)[..., None]
