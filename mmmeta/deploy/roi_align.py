"""RoIAlign on channels-last maps."""

import torch
import torch.nn.functional as F
from mmcv.ops import RoIAlign
from torch import Tensor

from .acceleration import must_fall_back

# Weights and indices in memory at a time.
CHUNK = 1 << 22


def _axis(start: Tensor, length: Tensor, bins: int, samples: int, size: int) -> tuple[Tensor, Tensor]:
    """Positions that bins along one axis read, and their weights: both ``(N, bins, samples + 1)``."""
    # Samples are at most one position apart: those of a bin lie between samples + 1 positions.
    offsets = (torch.arange(bins * samples, dtype=start.dtype) + 0.5).view(bins, samples) / (bins * samples)
    at = start[:, None, None] + offsets * length[:, None, None]
    inside = (at >= -1) & (at <= size)
    at = at.clamp(0, size - 1)
    positions = at[..., :1].floor() + torch.arange(samples + 1)
    shares = (1 - (at[..., None] - positions[:, :, None]).abs()).clamp(min=0) * inside[..., None]
    return positions.clamp(max=size - 1).int(), shares.mean(2)


def roi_align(x: Tensor, rois: Tensor, output_size: tuple[int, int], scale: float) -> Tensor:
    """Compute RoIAlign (arXiv:1703.06870) with as many samples in a bin as it has positions.

    Bilinear samples and their mean are linear: each bin is a weighted sum of positions, that is, of rows of a
    table that has the channels of one position in each row.

    Args:
        x (Tensor): A map, ``(B, C, H, W)``, on a CPU; without a copy if it is channels last in memory.
        rois (Tensor): Index of the image, and x1, y1, x2, y2 in pixels of the image, ``(N, 5)``.
        output_size (tuple[int, int]): Bins along height and width.
        scale (float): Factor from image to map coordinates; pixel centres are at half-integers.

    Returns:
        Tensor: ``(N, C, *output_size)``.

    Raises:
        ValueError: A coordinate is infinite or not a number.
    """
    if not rois.isfinite().all():
        raise ValueError('regions have coordinates that are not finite: weights or features have overflowed')
    _, channels, height, width = x.shape
    # One image may be flattened as a view with strided rows, which take five times as long to read.
    table = x.permute(0, 2, 3, 1).contiguous().view(-1, channels)
    bins = output_size[0] * output_size[1]
    out = x.new_zeros(len(rois), bins, channels)
    left, top, right, bottom = (rois[:, 1:] * scale - 0.5).unbind(1)
    sizes = torch.stack([bottom - top, right - left], 1)
    counts = (sizes / sizes.new_tensor(output_size)).ceil().int()
    for samples in counts.unique(dim=0):
        if not samples.all():
            continue  # an empty region has no sample
        of_y, of_x = samples.tolist()
        taps = (of_y + 1) * (of_x + 1)
        for found in (counts == samples).all(1).nonzero()[:, 0].split(max(1, CHUNK // (bins * taps))):
            rows, shares_y = _axis(top[found], sizes[found, 0], output_size[0], of_y, height)
            columns, shares_x = _axis(left[found], sizes[found, 1], output_size[1], of_x, width)
            rows = rows + rois[found, :1, None].int() * height
            indices = rows[:, :, None, :, None] * width + columns[:, None, :, None]
            shares = shares_y[:, :, None, :, None] * shares_x[:, None, :, None]
            values = F.embedding_bag(
                indices.reshape(-1, taps),
                table,
                mode='sum',
                per_sample_weights=shares.reshape(-1, taps),
            )
            out[found] = values.view(-1, bins, channels)
    return out.transpose(1, 2).reshape(len(rois), channels, *output_size)


class ChannelsLastRoIAlign(RoIAlign):
    """MMCV's ``RoIAlign``, which reads all channels of a position at once; see :func:`roi_align`."""

    @staticmethod
    def can_replace(layer: RoIAlign) -> bool:
        """Whether a layer samples as :func:`roi_align` does."""
        adaptive = layer.sampling_ratio == 0 and layer.pool_mode == 'avg' and layer.aligned
        return adaptive and not layer.use_torchvision

    def forward(self, x: Tensor, rois: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` and ``(N, 5)`` to ``(N, C, *output_size)``."""
        if must_fall_back(x) or not x.dtype == rois.dtype == torch.float32:
            return super().forward(x, rois)
        return roi_align(x, rois, self.output_size, self.spatial_scale)
