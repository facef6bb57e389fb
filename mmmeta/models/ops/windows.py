"""Attention over all positions of a map, or in windows.

Forms: ``global``, PyTorch's fused attention over all positions; ``reference``, the same over gathered keys
with a mask, by autograd; ``tiles``, the same for a group of tiles at a time; ``kernel``, a flash kernel that
gathers nothing; ``natten``, the kernels of NATTEN.

``reference`` and ``tiles`` cut the map into tiles of queries. The keys of the queries of a tile form one
rectangle around it, the span; they are gathered once for the tile, and a mask selects each query's own. Time
and memory are linear in the number of tokens; the mask is the same for all heads.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmeta.utils.errors import UsageError

from . import dispatch
from .state import apply, autocast_dtype

# Side of a tile of queries. A larger one gathers less but multiplies more keys that the mask then discards:
# with a window of 13 on 50x84 tokens and two CPU threads 8 was as fast as 14, faster than 4, 6, 10, 12, 16.
TILE = 8
# Groups of tiles, so that what is gathered at a time takes less memory than queries, keys and values, however
# large the map is. On a CPU groups of two tiles stay in the cache: the fastest of 1, 2, 4, 8 and 16 at 50x84.
GROUPS = 16
CPU_TILES = 2
# Earlier versions compute wrong gradients of the values.
MIN_NATTEN_VERSION = (0, 21, 7)
NATTEN_DEVICE = 'cuda'


class WindowRule(NamedTuple):
    """What attention in windows depends on besides the map.

    Attributes:
        window (tuple[int, int] | None): Height and width of the window in tokens; None for attention over all
            positions.
        mode (str): ``'slide'`` or ``'block'``.
        border (str): ``'shift'`` or ``'truncate'``.
        backend (str): ``'sdpa'`` or ``'natten'``.
    """

    window: tuple[int, int] | None
    mode: str = 'slide'
    border: str = 'shift'
    backend: str = 'sdpa'


class WindowPlan(NamedTuple):
    """Indices into the tokens of a batch of maps, in row order, and the mask between them.

    Attributes:
        queries (Tensor): Token of each query of each tile, ``(B * tiles * T,)``; a tile that reaches over the
            border repeats the last one.
        keys (Tensor): Token of each key of each tile's span, ``(B * tiles * S,)``.
        mask (Tensor): True where a query attends to a key, ``(B * tiles, 1, T, S)``.
        places (Tensor): Index of each token among the queries, ``(B * H * W,)``.
    """

    queries: Tensor
    keys: Tensor
    mask: Tensor
    places: Tensor


def _plan_axis(
    length: int, window: int, tile: int, span: int, mode: str, border: str, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of queries ``(tiles, t)`` and keys ``(tiles, s)`` along an axis, and their mask."""
    first = torch.arange(0, length, tile, device=device)[:, None]
    queries = (first + torch.arange(tile, device=device)).clamp(max=length - 1)
    if mode == 'block':
        start = first
        low = first.expand_as(queries)
        high = low + window - 1
    else:
        left, right = window // 2, (window - 1) // 2
        start = (first - left).clamp(min=0, max=torch.sym_max(length - span, 0))
        if border == 'shift':
            low = (queries - left).clamp(min=0, max=torch.sym_max(length - window, 0))
            high = low + window - 1
        else:
            low, high = queries - left, queries + right
    keys = start + torch.arange(span, device=device)
    inside = keys < length
    # Two bounds rather than a distance: some compilers get the gradients of an absolute value wrong.
    seen = (low[..., None] <= keys[:, None]) & (keys[:, None] <= high[..., None]) & inside[:, None]
    return queries, keys.clamp(max=length - 1), seen


def _tiling(window: tuple[int, int], mode: str, tile: int) -> tuple[tuple[int, int], list[int]]:
    """Height and width of a tile of queries and of the span of keys around it."""
    tiles = window if mode == 'block' else (tile, tile)
    # Multiples of 4, since fused kernels need a multiple of 8 keys.
    needed = (side if mode == 'block' else side + tile - 1 for side in window)
    spans = [-(-count // 4) * 4 for count in needed]
    if spans[0] * spans[1] % 128 == 64:
        spans[1] += 4  # NaN gradients of cuDNN's kernel were reported for such numbers of keys
    return tiles, spans


def plan_windows(
    size: tuple[int, int],
    window: tuple[int, int],
    mode: str = 'slide',
    border: str = 'shift',
    batch: int = 1,
    tile: int = TILE,
    device: torch.device | str = 'cpu',
) -> WindowPlan:
    """Compute indices and mask of windowed attention.

    Along an axis of length n a query i of a window k sees, with ``left = k // 2``, ``right = k - 1 - left``,

    - mode ``'slide'``, border ``'shift'`` (Neighborhood Attention, arXiv:2204.07143): k keys from
      ``min(max(i - left, 0), n - k)``, so that a window is moved inwards at the border; all n if n < k;
    - mode ``'slide'``, border ``'truncate'`` (Longformer, arXiv:2004.05150): ``i - left`` to ``i + right``,
      as far as they are on the map;
    - mode ``'block'`` (Swin, arXiv:2103.14030, without its shift): the keys j of its own block,
      ``j // k == i // k``; ``border`` is ignored.

    A window of the map is the product of those along its axes.

    Args:
        size (tuple[int, int]): Height and width of the map in tokens.
        window (tuple[int, int]): Height and width of the window in tokens; any positive numbers.
        mode (str): ``'slide'`` or ``'block'``. Defaults to ``'slide'``.
        border (str): ``'shift'`` or ``'truncate'``. Defaults to ``'shift'``.
        batch (int): Maps. Defaults to 1.
        tile (int): Side of a tile of queries in mode ``'slide'``; what is computed does not depend on it.
        device (torch.device | str): Device of the indices. Defaults to ``'cpu'``.

    Returns:
        WindowPlan: Indices and mask.
    """
    tiles, spans = _tiling(window, mode, tile)
    height, width = size
    (qy, ky, seen_y), (qx, kx, seen_x) = (
        _plan_axis(length, side, t, span, mode, border, device)
        for length, side, t, span in zip(size, window, tiles, spans, strict=True)
    )

    def combine(rows: Tensor, columns: Tensor) -> Tensor:
        # (tiles_y, a) and (tiles_x, b) to the tokens of (tiles_y, tiles_x, a, b), for each map of the batch.
        tokens = (rows[:, None, :, None] * width + columns[None, :, None, :]).flatten()
        maps = torch.arange(batch, device=device)[:, None] * (height * width)
        return (maps + tokens).flatten()

    mask = seen_y[:, None, :, None, :, None] & seen_x[None, :, None, :, None, :]
    mask = mask.flatten(4, 5).flatten(2, 3).flatten(0, 1)[:, None]
    y, x = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    tile_of = (y // tiles[0]) * qx.shape[0] + x // tiles[1]
    places = (tile_of * tiles[0] + y % tiles[0]) * tiles[1] + x % tiles[1]
    offsets = torch.arange(batch, device=device)[:, None] * (qy.numel() * qx.numel())
    return WindowPlan(
        combine(qy, qx), combine(ky, kx), mask.repeat(batch, 1, 1, 1), (offsets + places.flatten()).flatten()
    )


def plan_for(x: Tensor, rule: WindowRule, head_dim: int) -> WindowPlan | None:
    """Plan the windows of a map; None where attention runs without a plan.

    Args:
        x (Tensor): ``(B, C, H, W)``.
        rule (WindowRule): Its windows.
        head_dim (int): Channels of a head.
    """
    batch, _, *size = x.shape
    # Queries, keys and values are computed by a linear map.
    dtype = autocast_dtype(x.device.type) or x.dtype
    form, _ = dispatch.attention(x, dtype, size, rule.window, rule.backend, head_dim)
    if form not in ('reference', 'tiles'):
        return None
    return plan_windows(size, rule.window or size, rule.mode, rule.border, batch, device=x.device)


def attention(qkv: Tensor, rule: WindowRule, head_dim: int, plan: WindowPlan | None = None) -> Tensor:
    """Multi-head attention over all positions of a map, or in windows.

    Args:
        qkv (Tensor): Concatenated queries, keys and values, ``(B, H, W, 3 * C)``.
        rule (WindowRule): The windows.
        head_dim (int): Channels of a head.
        plan (WindowPlan | None): Result of :func:`plan_for` for a map of that size. Defaults to None: it is
            made where it is needed.

    Returns:
        Tensor: ``(B, H, W, C)``.
    """
    batch, height, width, channels = qkv.shape
    heads = channels // (3 * head_dim)
    size = height, width
    window = rule.window or size
    form = dispatch.choose(
        'attention', *dispatch.attention(qkv, qkv.dtype, size, rule.window, rule.backend, head_dim)
    )
    if form == 'global':
        qkv = qkv.reshape(batch, height * width, 3, heads, head_dim)
        out = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0)).transpose(1, 2)
    elif form == 'natten':
        q, k, v = qkv.reshape(batch, height, width, 3, heads, head_dim).unbind(3)
        out = natten_attention(q, k, v, window)
    else:
        rows = qkv.reshape(batch * height * width, channels)
        if form == 'kernel':
            from .kernels.windows import attend_in_windows

            out = attend_in_windows(rows, size, window, rule.mode, rule.border, head_dim)
        else:
            plan = plan or plan_windows(size, window, rule.mode, rule.border, batch, device=qkv.device)
            attend = windowed_attention if form == 'tiles' else gathered_attention
            out = attend(rows, plan, head_dim)
    return out.reshape(batch, height, width, channels // 3)


def count_pairs(
    size: tuple[int, int], window: tuple[int, int], mode: str = 'slide', border: str = 'shift'
) -> tuple[int, int]:
    """Count pairs of a query and a key; each takes two products of C channels.

    Args:
        size (tuple[int, int]): As :func:`plan_windows` takes them all.
        window (tuple[int, int]): Height and width of the window.
        mode (str): Defaults to ``'slide'``.
        border (str): Defaults to ``'shift'``.

    Returns:
        tuple[int, int]: Pairs inside of windows, and pairs that are multiplied, those that a mask discards
        included.
    """
    seen, multiplied = 1, 1
    for length, side, tile, span in zip(size, window, *_tiling(window, mode, TILE), strict=True):
        mask = _plan_axis(length, side, tile, span, mode, border, torch.device('cpu'))[2]
        seen *= int(mask.flatten(0, 1)[:length].sum())
        multiplied *= mask.numel()
    return seen, multiplied


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, head_dim: int) -> Tensor:
    """Attention of gathered queries ``(tiles * T, C)`` over gathered keys and values ``(tiles * S, C)``."""
    # Not len(mask), an int, which would be a constant in exported code.
    tiles, _, num_queries, num_keys = mask.shape
    q, k, v = (
        rows.view(tiles, count, rows.shape[1] // head_dim, head_dim)
        for rows, count in ((q, num_queries), (k, num_keys), (v, num_keys))
    )
    out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), attn_mask=mask)
    return out.transpose(1, 2).flatten(0, 1).flatten(1)


def _gather(qkv: Tensor, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of queries, ``(tiles * T, C)``, of keys and of values, ``(tiles * S, C)``."""
    q, k, v = qkv.chunk(3, 1)
    return q.index_select(0, queries), k.index_select(0, keys), v.index_select(0, keys)


class _WindowedAttention(torch.autograd.Function):
    """Attention over one group of tiles at a time; backward recomputes the gathered keys.

    Gathered keys and values take several times the memory of the tokens. Here they exist for one group, and
    nothing but the input is kept for backward.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        qkv: Tensor, queries: Tensor, keys: Tensor, mask: Tensor, places: Tensor, head_dim: int
    ) -> Tensor:
        out = qkv.new_empty(len(queries), qkv.shape[1] // 3)
        for of_queries, of_keys, seen, rows in _groups(queries, keys, mask, out):
            rows.copy_(_attend(*_gather(qkv, of_queries, of_keys), seen, head_dim))
        return out.index_select(0, places)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.head_dim = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        qkv, queries, keys, mask, places = ctx.saved_tensors
        grad_qkv = torch.zeros_like(qkv)
        dim = qkv.shape[1] // 3
        # Only one of the repeated queries receives the gradient.
        repeated = torch.ones_like(queries, dtype=torch.bool).index_fill(0, places, False)
        for of_queries, of_keys, seen, repeats in _groups(queries, keys, mask, repeated):
            attend = partial(_attend, mask=seen, head_dim=ctx.head_dim)
            _, pull_back = torch.func.vjp(attend, *_gather(qkv, of_queries, of_keys))
            rows = grad.index_select(0, of_queries).masked_fill(repeats[:, None], 0)
            grads = pull_back(rows)
            for part, indices, of_part in zip(range(3), (of_queries, of_keys, of_keys), grads, strict=True):
                grad_qkv[:, part * dim : (part + 1) * dim].index_add_(0, indices, of_part)
            del pull_back, grads, of_part  # before the next group is gathered
        return grad_qkv, None, None, None, None, None


def _group_size(tiles: int, device: torch.device) -> int:
    """Number of tiles per group."""
    return CPU_TILES if device.type == 'cpu' else -(-tiles // GROUPS)


def _groups(
    queries: Tensor, keys: Tensor, mask: Tensor, rows: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Split queries, keys, mask and ``rows`` of queries into groups of tiles."""
    tiles, _, num_queries, num_keys = mask.shape
    count = _group_size(tiles, mask.device)
    splits = (queries, num_queries), (keys, num_keys), (mask, 1), (rows, num_queries)
    return zip(*(tensor.split(count * size) for tensor, size in splits), strict=True)


def gathered_attention(qkv: Tensor, plan: WindowPlan, head_dim: int) -> Tensor:
    """:func:`windowed_attention` by autograd, whose gathered keys and values are kept for backward."""
    # One group: a compiler decides what is kept, and sizes may be symbolic.
    out = _attend(*_gather(qkv, plan.queries, plan.keys), plan.mask, head_dim)
    return out.index_select(0, plan.places)


def windowed_attention(qkv: Tensor, plan: WindowPlan, head_dim: int) -> Tensor:
    """Multi-head attention of each query over the keys of its window.

    Args:
        qkv (Tensor): Concatenated queries, keys and values, ``(B * H * W, 3 * C)``.
        plan (WindowPlan): Result of :func:`plan_windows` for that batch and map.
        head_dim (int): Channels of a head.

    Returns:
        Tensor: ``(B * H * W, C)``.
    """
    return apply(_WindowedAttention, qkv, *plan, head_dim)


def check_natten(window: tuple[int, int] | None, mode: str, border: str) -> None:
    """Check that an installed NATTEN supports a window, and computes it correctly.

    Args:
        window (tuple[int, int] | None): Height and width of the window.
        mode (str): ``'slide'``, the only mode of NATTEN.
        border (str): ``'shift'``, NATTEN's own rule.

    Raises:
        UsageError: NATTEN does not support the window, or NATTEN is missing, too old or without its kernels.
    """
    if window is None or mode != 'slide' or border != 'shift' or min(window) < 3:
        raise UsageError(
            f"backend='natten' with window={window}, window_mode='{mode}', border='{border}': NATTEN has "
            "shifted sliding windows of 3 and more, leave backend='natten' out"
        )
    try:
        import natten
    except ImportError as error:
        raise UsageError(
            "backend='natten' needs NATTEN, which is not installed: see natten.org for the wheel of your "
            'torch and CUDA, or leave it out'
        ) from error
    found = natten.__version__
    if tuple(int(part) for part in re.findall(r'\d+', found)[:3]) < MIN_NATTEN_VERSION:
        needed = '.'.join(map(str, MIN_NATTEN_VERSION))
        raise UsageError(
            f"backend='natten' needs NATTEN {needed} or newer, older ones have wrong gradients, and this is "
            f'{found}: see natten.org, or leave it out'
        )
    if not natten.HAS_LIBNATTEN:
        raise UsageError(
            f"backend='natten': NATTEN {found} is installed without kernels for torch {torch.__version__}: "
            'see natten.org for the right wheel, or leave it out'
        )


def natten_attention(query: Tensor, key: Tensor, value: Tensor, window: tuple[int, int]) -> Tensor:
    """Shifted sliding windows by NATTEN.

    Args:
        query (Tensor): ``(B, H, W, heads, head_dim)``, on a CUDA device.
        key (Tensor): As ``query``.
        value (Tensor): As ``query``.
        window (tuple[int, int]): Height and width of the window.

    Returns:
        Tensor: As ``query``.

    Raises:
        UsageError: The tensors are not on a CUDA device.
    """
    import natten

    if query.device.type != NATTEN_DEVICE:
        raise UsageError(f"backend='natten' runs on CUDA, not on {query.device.type}: leave it out there")
    # NATTEN rejects windows larger than the map; one of the map's size has the same keys.
    size = tuple(min(side, length) for side, length in zip(window, query.shape[1:3], strict=True))
    return natten.na2d(query, key, value, kernel_size=size)
