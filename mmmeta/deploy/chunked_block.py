"""Blocks computed in chunks.

On a CPU, writing the wide hidden maps of a block to new memory and reading them back takes longer than the
arithmetic. Computed in chunks they stay in the cache.
"""

import torch
from torch import Tensor

from mmmeta.models.layers import LayerNorm2d, MetaFormerBlock, Mlp, SepConv
from mmmeta.models.layers.windows import WindowPlan

from .acceleration import has_hooks, must_fall_back

# Bytes of a hidden map per chunk: as fast as 8 MiB, and faster than less, on the CPUs tested.
CHUNK_BYTES = 4 << 20


def _rows_at_a_time(count: int, row: Tensor, width: int) -> int:
    """Number of rows per chunk.

    Args:
        count (int): Total number of rows.
        row (Tensor): One row of the input; its entries per channel and its dtype are used.
        width (int): Channels of the inner map.

    Returns:
        int: Rows per chunk, for equal chunks whose hidden map takes about ``CHUNK_BYTES``.
    """
    pieces = max(1, round(count * row.numel() * width * row.element_size() / CHUNK_BYTES))
    return max(1, -(-count // pieces))


def _add_branch_out(
    x: Tensor,
    res_scale: Tensor | None,
    branch: Tensor,
    layer_scale: Tensor | None,
    out: Tensor | None = None,
) -> Tensor:
    """``res_scale * x + layer_scale * branch``, for scales that broadcast to ``x``."""
    if res_scale is None:
        if layer_scale is None:
            return torch.add(x, branch, out=out)
        return torch.addcmul(x, branch, layer_scale, out=out)
    branch = branch if layer_scale is None else branch * layer_scale
    return torch.addcmul(branch, x, res_scale, out=out)


class ChunkedBlock(MetaFormerBlock):
    """A block whose MLP and separable convolution, if it has one, run over one chunk of the map at a time."""

    @staticmethod
    def can_replace(block: MetaFormerBlock) -> bool:
        """Whether the block's MLP is supported."""
        return type(block.mlp) is Mlp

    def forward(self, x: Tensor, plan: WindowPlan | None = None) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        # Stochastic depth drops a whole image, not a chunk of it.
        if must_fall_back(x) or self.training or has_hooks(self):
            return super().forward(x, plan)
        if type(self.token_mixer) is SepConv and type(self.norm1) is LayerNorm2d:
            x = self._mix_in_strips(x)
        else:
            x = self._mix_tokens(x, plan)
        if x.is_contiguous(memory_format=torch.channels_last):
            return self._forward_mlp_in_pieces(x)
        return self._mix_channels(x)

    def _forward_mlp_in_pieces(self, x: Tensor) -> Tensor:
        """The second half of the block, written in place over that of the first, in chunks of positions."""
        # Norms over more than the channels of a position need the whole map.
        by_position = type(self.norm2) is LayerNorm2d
        normed = x if by_position else self.norm2(x).contiguous(memory_format=torch.channels_last)
        tokens, inputs = (part.permute(0, 2, 3, 1).flatten(0, 2) for part in (x, normed))
        rows = _rows_at_a_time(len(tokens), tokens[:1, 0], self.mlp.fc1.out_features)
        for out, piece in zip(tokens.split(rows), inputs.split(rows), strict=True):
            # A map of one column, whose strides identify it as channels last.
            piece = piece[None, :, None].permute(0, 3, 1, 2)
            branch = self.mlp(self.norm2(piece) if by_position else piece)[0, :, :, 0].t()
            _add_branch_out(out, self.res_scale2, branch, self.layer_scale2, out=out)
        return x

    def _mix_in_strips(self, x: Tensor) -> Tensor:
        """The first half of the block with a separable convolution, some rows at a time."""
        mixer, height = self.token_mixer, x.shape[2]
        reach = mixer.dwconv.padding[0]
        scales = (s if s is None else s[:, None, None] for s in (self.res_scale1, self.layer_scale1))
        res_scale, layer_scale = scales
        # In thinner strips the halo rows, which are computed twice, would dominate.
        rows = max(16, _rows_at_a_time(height, x[:, 0, :1], mixer.pwconv1.out_features))
        out = None
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            first, last = max(top - reach, 0), min(bottom + reach, height)
            inner = mixer.dwconv(mixer.act(mixer.pwconv1(self.norm1(x[:, :, first:last]))))
            # The convolution pads all sides; its outputs for the halo rows are dropped.
            branch = mixer.pwconv2(inner[:, :, top - first : bottom - first])
            strip = _add_branch_out(x[:, :, top:bottom], res_scale, branch, layer_scale)
            if rows >= height:
                return strip
            if out is None:
                out = torch.empty_like(x, dtype=strip.dtype)
            out[:, :, top:bottom] = strip
        return out
