"""Parts of a block computed a piece at a time, where that saves memory traffic and changes nothing else.

At inference on a CPU the wide inner maps of a block cost more time in being written to fresh memory and read
back than in arithmetic. Piece by piece they stay in the cache.
"""

import torch
from torch import Tensor

# Bytes of an inner map at a time. On the machine that this was measured on 8 MiB was alike, less was slower.
CHUNK_BYTES = 4 << 20


def on_eager_cpu(x: Tensor) -> bool:
    """Whether each operation runs by itself on a CPU, where no compiler fuses them."""
    return x.device.type == 'cpu' and not (torch.compiler.is_compiling() or torch.jit.is_tracing())


def may_chunk(x: Tensor) -> bool:
    """Whether a piece at a time is faster and nothing has to be kept for backward."""
    return on_eager_cpu(x) and not torch.is_grad_enabled()


def chunk_rows(count: int, row: Tensor, width: int) -> int:
    """How many rows at a time.

    Args:
        count (int): Rows in all.
        row (Tensor): One row as it goes in; its number of entries in one channel and its dtype matter.
        width (int): Channels of the inner map.

    Returns:
        int: Rows of each of some equal pieces, whose inner map takes about ``CHUNK_BYTES``.
    """
    pieces = max(1, round(count * row.numel() * width * row.element_size() / CHUNK_BYTES))
    return max(1, -(-count // pieces))
