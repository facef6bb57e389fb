"""What is measured on a GPU, in parts; on another device the same rows, small, to see that they run."""

import copy
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import timm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.parallel import DistributedDataParallel

from mmmeta.analysis.benchmark import activations, measure_peak, time_alternating
from mmmeta.config.adaptation import adapt_to_device
from mmmeta.config.backbones import build_backbone
from mmmeta.config.loading import load_config
from mmmeta.models import ConvFormer
from mmmeta.models.layers import Attention, StarReLU
from mmmeta.models.ops.windows import gathered_attention, natten_attention, plan_windows, windowed_attention
from mmmeta.utils.resources import resource_root

FAMILIES = (
    'poolformerv2_s12',
    'poolformer_s12',
    'convformer_s18',
    'caformer_s18',
    'identityformer_s12',
    'randformer_s12',
)
PRECISIONS = ('bfloat16', 'float16', 'tf32', 'float32')


@dataclass(frozen=True)
class Row:
    """A measurement.

    Attributes:
        case (str): What was measured.
        variant (str): By which of several ways; the first one of a case is what the others are compared with.
        metric (str): Name and unit.
        value (float): The value.
        ratio (float | None): Over that of the first variant. Defaults to None.
        note (str): For what has to hold, ``'ok'`` or ``'FAILED'``; else a remark. Defaults to ''.
    """

    case: str
    variant: str
    metric: str
    value: float
    ratio: float | None = None
    note: str = ''


@dataclass(frozen=True)
class Device:
    """Where to measure, and how much.

    Attributes:
        type (str): ``'cuda'`` or ``'cpu'``.
        small (bool): Sizes at which a CPU needs seconds.
    """

    type: str
    small: bool

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.type == 'cuda':
            torch.cuda.synchronize()

    def peak(self, run: Callable[[], object]) -> int:
        """Peak bytes of a call beyond those allocated before; 0 where nobody counts them."""
        if self.type != 'cuda':
            run()
            return 0
        return measure_peak(run, self.type)


@contextmanager
def precision(device: Device, name: str) -> Iterator[None]:
    """A precision of :data:`PRECISIONS`: 16 bits by autocast, TF32 by PyTorch's switches."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name != 'float32'
    cast = name in ('bfloat16', 'float16')
    try:
        with torch.autocast(device.type, getattr(torch, name)) if cast else nullcontext():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def compare_runs(
    device: Device, case: str, runs: dict[str, Callable[[], object]], repeats: int, memory: bool = False
) -> Iterator[Row]:
    """Time functions in turns; ratios are to the first.

    A function that fails, for want of memory or of a compiler, is a row that says so.
    """
    working, peaks = {}, {}
    for name, run in runs.items():
        try:
            run()
            peaks[name] = device.peak(run)
            working[name] = run
        except Exception as error:  # of any kind: the others are still to be measured
            yield Row(case, name, 'ms', float('nan'), note=f'{type(error).__name__}: {error}'[:200])
    if not working:
        return
    timings = time_alternating(list(working.values()), repeats, warmup=1)
    first = None
    for (name, _), timing in zip(working.items(), timings, strict=True):
        first = first or (timing.median, peaks[name])
        yield Row(case, name, 'ms', timing.median * 1e3, timing.median / first[0])
        if memory and first[1]:
            yield Row(case, name, 'peak MB', peaks[name] / 1e6, peaks[name] / first[1])


def _pair(name: str, device: Device) -> tuple[nn.Module, nn.Module]:
    """One of timm's networks and ours with its weights, in training mode; scales and biases matter."""
    torch.manual_seed(0)
    peer, ours = build_backbone(f'timm/{name}'), build_backbone(f'{name},output_norm=False')
    with torch.no_grad():
        for parameter in peer.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.rand_like(parameter))
                parameter[parameter.abs() < 1e-2] += 0.5  # layer scales begin at 1e-5
    ours.load_state_dict({k.replace('stages_', 'stages.'): v for k, v in peer.state_dict().items()})
    return peer.to(device.type).train(), ours.to(device.type).train()


def _results(network: nn.Module, image: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Features, and the gradients of a weighted sum of them; those of timm's under our names."""
    network.zero_grad()
    outs = network(image)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(out.shape, generator=generator).to(out.device) for out in outs]
    sum((out.to(w) * w).mean() for out, w in zip(outs, weights, strict=True)).backward()
    grads = {name: p.grad.double() for name, p in network.named_parameters() if p.grad is not None}
    return [out.detach().double() for out in outs], grads


def _named_as_ours(grads: dict[str, Tensor], ours: nn.Module) -> dict[str, Tensor]:
    """The gradients of one of timm's networks, in the order of ours."""
    network = copy.deepcopy(ours)
    frozen = {name: p for name, p in network.named_parameters() if not p.requires_grad}
    network.load_state_dict(frozen | {k.replace('stages_', 'stages.'): grad for k, grad in grads.items()})
    return {name: p.detach() for name, p in network.named_parameters() if name not in frozen}


def _distance(values: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Norm of the difference over the norm, of all together."""
    flat, reference = (torch.cat([x.double().flatten() for x in xs]) for xs in (values, exact))
    return ((flat - reference).norm() / reference.norm()).item()


def correctness(device: Device) -> Iterator[Row]:
    """Networks against timm's and float64, windows against a mask, and the rest that people rely on."""
    image = torch.randn(2, 3, 96, 128, device=device.type)
    for name in ('convformer_s18', 'caformer_s18,window=3'):
        yield from _recomputation_changes_nothing(name, image, device)
    yield from _edge_of_float16(device)
    yield from _loaded_weights(image, device)
    if device.type == 'cuda':
        yield from _one_process_of_several(image, device)
    yield from _windows_are_exact(device)
    for name in FAMILIES[:1] if device.small else FAMILIES:
        peer, ours = _pair(name, device)
        exact_peer, exact = copy.deepcopy(peer).double(), copy.deepcopy(ours).double()
        outs, grads = _results(exact, image.double())
        theirs, their_grads = _results(exact_peer, image.double())
        their_grads = _named_as_ours(their_grads, exact)
        error = max(_distance(theirs, outs), _distance(their_grads.values(), grads.values()))
        yield Row(f'{name}, float64', 'ours', 'distance to timm', error, note=_verdict(error < 1e-9))
        for kind, layout in (*product(PRECISIONS, ['first']), ('bfloat16', 'last')):
            given = image.contiguous(memory_format=torch.channels_last) if layout == 'last' else image
            with precision(device, kind):
                of_peer, of_ours = _results(peer, given), _results(ours, given)
            of_peer = of_peer[0], _named_as_ours(of_peer[1], exact)
            case = f'{name}, {kind}, channels {layout}'
            for what, own, their, right in (
                ('outputs', of_ours[0], of_peer[0], outs),
                ('gradients', of_ours[1].values(), of_peer[1].values(), grads.values()),
            ):
                first, second = _distance(their, right), _distance(own, right)
                yield Row(f'{case}, {what}', 'timm', 'distance to float64', first)
                good = second <= max(1.5 * first, 1e-5)
                yield Row(
                    f'{case}, {what}',
                    'ours',
                    'distance to float64',
                    second,
                    second / first,
                    _verdict(good),
                )


def _verdict(good: bool) -> str:
    return 'ok' if good else 'FAILED'


def _windows_are_exact(device: Device) -> Iterator[Row]:
    torch.manual_seed(0)
    rules = [('slide', 'shift'), ('slide', 'truncate'), ('block', 'shift')]
    for (mode, border), size in product(rules, [(50, 84), (7, 19), (27, 13)]):
        layer = Attention(64, window=13, window_mode=mode, border=border).to(device.type)
        x = torch.randn(2, 64, *size, device=device.type, requires_grad=True)
        exact = copy.deepcopy(layer).double()
        places = plan_windows(size, (13, 13), mode, border, device='cpu')
        mask = _dense_mask(places, size).to(device.type)

        def masked(x: Tensor, layer: Attention, mask: Tensor) -> Tensor:
            qkv = layer.qkv(x.permute(0, 2, 3, 1)).flatten(1, 2)
            q, k, v = qkv.unflatten(2, (3, -1, 32)).permute(2, 0, 3, 1, 4)
            scores = (q @ k.transpose(-1, -2) / 32**0.5).masked_fill(~mask, -torch.inf)
            out = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
            return layer.proj(out.unflatten(1, x.shape[2:])).permute(0, 3, 1, 2)

        grad = torch.randn_like(x)
        given = x.detach().double().requires_grad_()
        right = masked(given, exact, mask)
        right.backward(grad.double())
        for kind in PRECISIONS:
            x.grad = None
            layer.zero_grad()
            with precision(device, kind):
                out = layer(x)
                out.backward(grad.to(out))
            error = max(
                _distance([out], [right]),
                _distance([x.grad], [given.grad]),
                _distance([layer.qkv.weight.grad], [exact.qkv.weight.grad]),
            )
            bound = dict(bfloat16=2e-2, float16=3e-3, tf32=3e-3, float32=1e-5)[kind]
            case = f'window 13, {mode}, {border}, {size[0]}x{size[1]}, {kind}'
            yield Row(case, 'ours', 'distance to a mask in float64', error, note=_verdict(error < bound))


def _dense_mask(plan: object, size: tuple[int, int]) -> Tensor:
    """The mask of windows between all tokens of a map."""
    tokens = size[0] * size[1]
    tiles, _, queries, keys = plan.mask.shape
    mask = torch.zeros(tokens, tokens, dtype=torch.bool)
    rows = plan.queries.view(tiles, queries, 1).expand(-1, -1, keys)
    columns = plan.keys.view(tiles, 1, keys).expand(-1, queries, -1)
    seen = plan.mask[:, 0]
    mask[rows[seen], columns[seen]] = True
    return mask


def _recomputation_changes_nothing(name: str, image: Tensor, device: Device) -> Iterator[Row]:
    torch.manual_seed(0)
    plain = build_backbone(name).to(device.type).train()
    again = copy.deepcopy(plain)
    again.with_cp = True
    with precision(device, 'bfloat16'):
        (outs, grads), (others, other_grads) = (_results(network, image) for network in (plain, again))
    error = max(_distance(others, outs), _distance(other_grads.values(), grads.values()))
    yield Row(f'{name}, bfloat16', 'with_cp', 'distance to without', error, note=_verdict(error < 1e-3))


def _edge_of_float16(device: Device) -> Iterator[Row]:
    """``0.01 * 2000 ** 2`` is in float16's range, and ``2000 ** 2`` is not."""
    act = StarReLU(scale=0.01).to(device.type)
    x = torch.full((64, 64), 2000.0, dtype=torch.float16, device=device.type, requires_grad=True)
    y = act(x)
    y.sum().backward()
    good = bool((y == 40000).all() and (x.grad == 40).all())
    yield Row('StarReLU of 2000 in float16, scale 0.01', 'ours', 'value', y[0, 0].item(), note=_verdict(good))


def _loaded_weights(image: Tensor, device: Device) -> Iterator[Row]:
    """A file of timm's in the layout of its classifier, named in ``init_cfg``."""
    torch.manual_seed(0)
    peer = timm.create_model('convformer_s18').double()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'weights.pth')
        torch.save(peer.state_dict(), path)
        init_cfg = dict(type='Pretrained', checkpoint=str(path))
        ours = ConvFormer('s18', output_norm=False, init_cfg=init_cfg).double()
        ours.init_weights()
    peer, ours = (network.to(device.type).eval() for network in (peer, ours))
    with torch.no_grad():
        error = _distance([ours(image.double())[-1]], [peer.forward_features(image.double())])
    yield Row('convformer_s18, loaded', 'ours', 'distance to timm', error, note=_verdict(error < 1e-9))


def _one_process_of_several(image: Tensor, device: Device) -> Iterator[Row]:
    with tempfile.NamedTemporaryFile() as meeting:
        dist.init_process_group('nccl', init_method=f'file://{meeting.name}', rank=0, world_size=1)
        try:
            for name in FAMILIES:
                torch.manual_seed(0)
                plain = build_backbone(name).to(device.type).train()
                wrapped = DistributedDataParallel(copy.deepcopy(plain), device_ids=[0])
                with precision(device, 'bfloat16'):
                    _, grads = _results(plain, image)
                    _, others = _results(wrapped, image)
                error = _distance(others.values(), grads.values())
                yield Row(
                    f'{name}, DDP over NCCL', 'ours', 'distance to one', error, note=_verdict(error < 1e-3)
                )
                del wrapped
        finally:
            dist.destroy_process_group()
            open(meeting.name, 'a').close()


class FlexWindows:
    """Sliding windows by ``flex_attention``: tokens in the order of tiles of 128, a block for each tile.

    Args:
        size (tuple[int, int]): Height and width of the map.
        window (int): Side of the window; ``'shift'`` at the border.
        device (str): Device.
        tile (tuple[int, int]): Height and width of a tile, of 128 tokens. Defaults to (8, 16).
    """

    def __init__(
        self, size: tuple[int, int], window: int, device: str, tile: tuple[int, int] = (8, 16)
    ) -> None:
        self.size, self.tile = size, tile
        self.padded = [-(-length // side) * side for length, side in zip(size, tile, strict=True)]
        tiles = [length // side for length, side in zip(self.padded, tile, strict=True)]
        axes = []
        for length, count, side in zip(size, tiles, tile, strict=True):
            at = torch.arange(count * side, device=device)
            low = (at.clamp(max=length - 1) - window // 2).clamp(0, max(length - window, 0))
            axes.append((at, low, (low + window).clamp(max=length) - 1))
        (y, top, bottom), (x, left, right) = axes

        def in_tiles(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
            grid = torch.broadcast_tensors(rows[:, None], columns[None])
            return tuple(
                part.view(tiles[0], tile[0], tiles[1], tile[1]).transpose(1, 2).flatten() for part in grid
            )

        (ys, xs), (tops, lefts), (bottoms, rights) = (
            in_tiles(y, x),
            in_tiles(top, left),
            in_tiles(bottom, right),
        )

        def is_seen(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
            rows = (tops[q] <= ys[kv]) & (ys[kv] <= bottoms[q])
            return rows & (lefts[q] <= xs[kv]) & (xs[kv] <= rights[q])

        # Tiles that a tile of queries sees, from what its first and its last query see along each axis.
        seen = []
        for (_, low, high), count, side in zip(axes, tiles, tile, strict=True):
            key = torch.arange(count, device=device)
            seen.append((low[::side, None] // side <= key) & (key <= high[side - 1 :: side, None] // side))
        blocks = (seen[0][:, None, :, None] & seen[1][None, :, None, :]).flatten(2).flatten(0, 1)
        counts = blocks.sum(1, dtype=torch.int32)
        indices = blocks.to(torch.int8).argsort(dim=1, descending=True, stable=True).to(torch.int32)
        self.mask = BlockMask.from_kv_blocks(
            counts[None, None], indices[None, None], BLOCK_SIZE=tile[0] * tile[1], mask_mod=is_seen
        )

    def __call__(self, qkv: Tensor, head_dim: int) -> Tensor:
        """Attention of ``(B * H * W, 3 * C)``, as ``windowed_attention``."""
        (height, width), (th, tw) = self.size, self.tile
        rows, columns = self.padded
        x = qkv.view(-1, height, width, qkv.shape[1])
        x = F.pad(x, (0, 0, 0, columns - width, 0, rows - height))
        x = x.view(-1, rows // th, th, columns // tw, tw, 3, qkv.shape[1] // 3 // head_dim, head_dim)
        q, k, v = x.permute(5, 0, 6, 1, 3, 2, 4, 7).flatten(3, 6)
        out = _compiled_flex()(q, k, v, block_mask=self.mask)
        out = out.view(*out.shape[:2], rows // th, columns // tw, th, tw, head_dim)
        out = out.permute(0, 2, 4, 3, 5, 1, 6).flatten(5).flatten(3, 4).flatten(1, 2)
        return out[:, :height, :width].flatten(0, 2)


def _compiled_flex() -> Callable[..., Tensor]:
    global _flex
    if _flex is None:
        _flex = torch.compile(flex_attention, dynamic=False)
    return _flex


_flex: Callable[..., Tensor] | None = None


def _by_natten(qkv: Tensor, size: tuple[int, int], head_dim: int) -> Tensor:
    q, k, v = qkv.view(-1, *size, 3, qkv.shape[1] // 3 // head_dim, head_dim).unbind(3)
    return natten_attention(q, k, v, (13, 13)).reshape(len(qkv), -1)


def windows(device: Device) -> Iterator[Row]:
    """Attention in windows of 13, bfloat16 and float32, batch 2, 10 heads of 32, by every way there is."""
    maps = [(9, 17)] if device.small else [(64, 128), (50, 84), (128, 128), (256, 256)]
    cases = [(size, torch.bfloat16) for size in maps] + [(maps[0], torch.float32)]
    heads, head_dim, batch = (2, 16, 1) if device.small else (10, 32, 2)
    for size, dtype in cases:
        what = f'{size[0]}x{size[1]}' + (', float32' if dtype == torch.float32 else '')
        tokens = size[0] * size[1]
        qkv = torch.randn(batch * tokens, 3 * heads * head_dim, device=device.type, dtype=dtype)
        grad = torch.randn(len(qkv), heads * head_dim, device=device.type, dtype=dtype)
        plan = plan_windows(size, (13, 13), batch=batch, device=device.type)

        def global_flash(qkv: Tensor) -> Tensor:
            q, k, v = qkv.view(batch, -1, 3, heads, head_dim).permute(2, 0, 3, 1, 4)
            out = F.scaled_dot_product_attention(q, k, v)
            return out.transpose(1, 2).reshape(len(qkv), -1)

        ways = {'global, flash': global_flash}
        if device.type == 'cuda':
            from mmmeta.models.ops.kernels.windows import attend_in_windows

            rule = dict(size=size, window=(13, 13), mode='slide', border='shift', head_dim=head_dim)
            ways['kernel (default)'] = partial(attend_in_windows, **rule)
            ways['flex_attention'] = partial(FlexWindows(size, 13, device.type), head_dim=head_dim)
            if find_spec('natten'):
                ways['NATTEN'] = partial(_by_natten, size=size, head_dim=head_dim)
        ways['gather, kept'] = partial(gathered_attention, plan=plan, head_dim=head_dim)
        ways['gather, again in backward'] = partial(windowed_attention, plan=plan, head_dim=head_dim)
        exact = None
        for name, way in ways.items():
            if name == 'global, flash':
                continue
            if exact is None:
                exact = windowed_attention(qkv.double(), plan, head_dim)
            try:
                error = _distance([way(qkv)], [exact])
            except Exception as failure:  # as in compare_runs, which reports it
                error = float('nan')
                print(f'{name}: {failure}', file=sys.stderr)
            bound = 1e-2 if dtype == torch.bfloat16 else 1e-5
            yield Row(what, name, 'distance to float64', error, note=_verdict(error < bound))
        del exact

        def forward(way: Callable[[Tensor], Tensor], qkv: Tensor = qkv) -> None:
            with torch.no_grad():
                way(qkv)

        def training(way: Callable[[Tensor], Tensor], qkv: Tensor = qkv, grad: Tensor = grad) -> None:
            leaf = qkv.detach().requires_grad_()
            torch.autograd.grad(way(leaf), leaf, grad)

        for part, run in (('forward', forward), ('forward + backward', training)):
            runs = {name: partial(run, way) for name, way in ways.items()}
            repeats = 3 if device.small else 20
            yield from compare_runs(device, f'{what}, {part}', runs, repeats, memory=True)
    built = dict(gather=lambda: plan_windows((64, 128), (13, 13), batch=2, device=device.type))
    if device.type == 'cuda':
        built['flex_attention'] = lambda: FlexWindows((64, 128), 13, device.type)
    yield from compare_runs(device, 'plan of 64x128', built, 10)


def activation(device: Device) -> Iterator[Row]:
    """StarReLU and GELU, by PyTorch's kernels and as the formulas of the paper."""
    shapes = [(1, 10_000)] if device.small else [(1, 1_000_000), (16, 256, 128, 128)]
    for shape, kind in product(shapes, ('bfloat16', 'float16', 'float32')):
        dtype = getattr(torch, kind)
        x = torch.randn(shape, device=device.type, dtype=dtype)
        grad = torch.randn_like(x)
        functions = {
            name: f.to(device.type) if isinstance(f, nn.Module) else f for name, f in activations().items()
        }
        # Several calls, as in a network, whose launches go on while the GPU is at work.
        calls = 10

        def forward(f: Callable[[Tensor], Tensor], x: Tensor = x, calls: int = calls) -> None:
            with torch.no_grad():
                for _ in range(calls):
                    f(x)

        def training(
            f: Callable[[Tensor], Tensor], x: Tensor = x, grad: Tensor = grad, calls: int = calls
        ) -> None:
            for _ in range(calls):
                leaf = x.detach().requires_grad_()
                parameters = f.parameters() if isinstance(f, nn.Module) else ()
                torch.autograd.grad(f(leaf), (leaf, *parameters), grad)

        for what, run in (('forward', forward), ('forward + backward', training)):
            runs = {name: partial(run, function) for name, function in functions.items()}
            case = f'{"x".join(map(str, shape))}, {kind}, {what}, {calls} calls'
            yield from compare_runs(device, case, runs, 3 if device.small else 20)


def _step(network: nn.Module, image: Tensor, device: Device, kind: str, train: bool) -> None:
    with precision(device, kind):
        if not train:
            with torch.inference_mode():
                network(image)
            return
        for parameter in network.parameters():
            parameter.grad = None
        outs = network(image)
        loss = sum(out.float().mean() for out in outs)
    with precision(device, 'float32' if kind == 'float32' else 'tf32'):  # without autocast
        loss.backward()


def backbones(device: Device) -> Iterator[Row]:
    """Training steps of ours and timm's at 512x512, and at 64x64, all launches; inference at 224x224."""
    side, small = (64, 32) if device.small else (512, 224)
    settings = [(name, 'bfloat16', 16, side, True) for name in FAMILIES]
    settings += [(name, 'bfloat16', 128, small, False) for name in FAMILIES]
    settings += [(name, 'bfloat16', 2, side, True) for name in FAMILIES]
    settings += [(name, 'bfloat16', 1, 64, True) for name in FAMILIES]
    settings += [(name, kind, 16, side, True) for kind in ('tf32', 'float16', 'float32') for name in FAMILIES]
    settings += [(name, 'bfloat16', 32, side, True) for name in FAMILIES]
    yield from _compare_backbones(settings[:1] if device.small else settings, device)


# Those whose token mixers differ most.
COMPILED = ('poolformer_s12', 'convformer_s18', 'caformer_s18')


def compiled_correctness(device: Device) -> Iterator[Row]:
    """Compiled networks against float64, beside the same networks that are not compiled."""
    names = COMPILED[:1] if device.small else COMPILED
    image = torch.randn(2, 3, 96, 128, device=device.type)
    for name, kind in product(names, ('bfloat16',) if device.small else ('bfloat16', 'float32')):
        _, ours = _pair(name, device)
        right, right_grads = _results(copy.deepcopy(ours).double(), image.double())
        with precision(device, kind):
            (outs, grads), (others, other_grads) = (_results(n, image) for n in (ours, torch.compile(ours)))
        for what, eager, own, exact in (
            ('outputs', outs, others, right),
            ('gradients', grads.values(), other_grads.values(), right_grads.values()),
        ):
            first, second = _distance(eager, exact), _distance(own, exact)
            good, case = second <= max(1.5 * first, 1e-5), f'{name}, {kind}, {what}'
            yield Row(case, 'eager', 'distance to float64', first)
            yield Row(case, 'compiled', 'distance to float64', second, second / first, _verdict(good))


def compiled(device: Device) -> Iterator[Row]:
    """Training steps and inference of ours and timm's, compiled and not, with the sizes of `backbones`."""
    names, side, small = (COMPILED[:1], 64, 32) if device.small else (COMPILED, 512, 224)
    settings = [(name, 'bfloat16', 16, side, True) for name in names]
    settings += [(name, 'bfloat16', 128, small, False) for name in names if not device.small]
    yield from _compare_backbones(settings, device, compiled=True)


def _compare_backbones(
    settings: Sequence[tuple[str, str, int, int, bool]], device: Device, compiled: bool = False
) -> Iterator[Row]:
    """Time and memory of networks, each with a precision, a batch, a side, and whether it is trained."""
    for name, kind, batch, height, train in settings:
        networks = dict(zip(('timm', 'ours'), _pair(name, device), strict=True))
        batch = 1 if device.small else batch
        image = torch.randn(batch, 3, height, height, device=device.type)
        if compiled:
            networks |= {f'{key}, compiled': torch.compile(copy.deepcopy(n)) for key, n in networks.items()}
        for network in networks.values():
            network.train(train)
        runs = {key: partial(_step, n, image, device, kind, train) for key, n in networks.items()}
        what = 'training step' if train else 'inference'
        case = f'{name}, {batch} x {height}x{height}, {kind}, {what}'
        yield from compare_runs(device, case, runs, 3 if device.small else 10, memory=True)


METHODS = {
    'UperNet': (
        'mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
        'upernet_{}_s18_ade20k.py',
    ),
    'Mask R-CNN': (
        'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
        'mask_rcnn_{}_s18_coco.py',
    ),
}


def models(device: Device) -> Iterator[Row]:
    """Training steps of whole models, against ConvNeXt-T under the same heads."""
    if device.small:
        cases = [('UperNet', 2, (64, 64)), ('Mask R-CNN', 1, (64, 96))]
    else:
        cases = [('UperNet', 2, (512, 512)), ('UperNet', 16, (512, 512)), ('Mask R-CNN', 2, (800, 1344))]
    for method, batch, size in cases:
        peer, pattern = METHODS[method]
        paths = {'ConvNeXt-T': peer} | {
            f'{name}-S18': str(resource_root() / 'configs' / pattern.format(name.lower()))
            for name in ('ConvFormer', 'CAFormer')
        }
        runs = {name: _training_step(path, batch, size, device) for name, path in paths.items()}
        case = f'{method}, {batch} x {size[0]}x{size[1]}, bfloat16, training step'
        yield from compare_runs(device, case, runs, 2 if device.small else 10, memory=True)


def _training_step(
    path: str, batch: int, size: tuple[int, int], device: Device, kind: str = 'bfloat16'
) -> Callable[[], dict[str, Tensor]]:
    """A training step of a config's model, with random weights and labels, as MMEngine's loop makes it."""
    from mmengine.optim import AmpOptimWrapper, OptimWrapper
    from mmengine.registry import MODELS, DefaultScope

    config = load_config(path)
    config.model.backbone.init_cfg = None
    adapt_to_device(config)
    torch.backends.cudnn.benchmark = config.get('env_cfg', {}).get('cudnn_benchmark', False)
    scope = config.default_scope
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(config.model).to(device.type).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
    cuda = device.type == 'cuda'
    wrapper = AmpOptimWrapper(dtype=kind, optimizer=optimizer) if cuda else OptimWrapper(optimizer)
    images = [torch.randint(0, 255, (3, *size), dtype=torch.uint8) for _ in range(batch)]
    samples = [(_random_segments if scope == 'mmseg' else _random_objects)(size) for _ in images]
    return lambda: model.train_step(
        dict(inputs=list(images), data_samples=[sample.clone() for sample in samples]), wrapper
    )


def _random_segments(size: tuple[int, int]) -> object:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(img_shape=size))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 150, (1, *size)))
    return sample


def _random_objects(size: tuple[int, int], count: int = 8) -> object:
    import numpy as np
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    height, width = size
    corner = torch.rand(count, 2) * torch.tensor([width, height]) / 2
    boxes = torch.cat([corner, corner + torch.tensor([width, height]) / 3], 1)
    masks = BitmapMasks(np.ones((count, height, width), np.uint8), height, width)
    sample = DetDataSample(
        metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size)
    )
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.randint(0, 80, (count,)), masks=masks)
    return sample


def profile(device: Device) -> Iterator[Row]:
    """The kernels that take most of a training step."""
    names = ('convformer_s18', 'caformer_s18,window=13', 'poolformer_s12', 'poolformerv2_s12')
    side, batch = (64, 1) if device.small else (512, 16)
    kind = torch.profiler.ProfilerActivity
    for name in names[:1] if device.small else names:
        network = build_backbone(f'{name},output_norm=False').to(device.type).train()
        image = torch.randn(batch, 3, side, side, device=device.type)
        for _ in range(3):
            _step(network, image, device, 'bfloat16', True)
        device.synchronize()
        with torch.profiler.profile(activities=[kind.CPU, kind.CUDA][: 1 + (device.type == 'cuda')]) as log:
            _step(network, image, device, 'bfloat16', True)
            device.synchronize()
        events = [
            event for event in log.key_averages() if device.type != 'cuda' or event.device_type.name == 'CUDA'
        ]
        times = sorted(
            (
                (event.self_device_time_total or event.self_cpu_time_total, event.count, event.key)
                for event in events
            ),
            reverse=True,
        )
        total = sum(duration for duration, *_ in times)
        for duration, count, key in times[:14]:
            yield Row(
                name, key[:110].replace('|', '/'), 'ms', duration / 1e3, duration / total, f'{count} times'
            )
        yield Row(name, 'all', 'ms', total / 1e3, 1.0)


# The same config under MMEngine's own runner, loop and hooks.
STOCK = """
import sys
import torch
from mmengine.config import Config
from mmengine.runner import Runner
config = Config.fromfile(sys.argv[1])
config.pop('runner_type')
config.merge_from_dict(dict(item.split('=', 1) for item in sys.argv[3:]), allow_list_keys=True)
for key in ('train_cfg.max_iters', 'train_dataloader.batch_size', 'default_hooks.logger.interval'):
    *path, last = key.split('.')
    place = config
    for name in path:
        place = place[name]
    place[last] = int(place[last])
config.model.backbone.init_cfg = None
if torch.cuda.is_available():  # MMEngine has no mixed precision without one
    config.optim_wrapper.type = 'AmpOptimWrapper'
    config.optim_wrapper.loss_scale = 'dynamic'
config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=config.train_cfg.max_iters, val_interval=10**6)
config.work_dir = sys.argv[2]
Runner.from_cfg(config).train()
"""


def training(device: Device) -> Iterator[Row]:
    """`tools/train.py --amp` on generated data, and MMEngine's own runner with the same config."""
    iters, batch = (4 if device.small else 80), 2
    kind, amp = ('float16', ['--amp']) if device.type == 'cuda' else ('float32', [])
    tools, config = resource_root() / 'tools', 'upernet_caformer_s18_ade20k.py'
    config = resource_root() / 'configs' / config
    with tempfile.TemporaryDirectory() as folder:
        images = ['--num-train', '8' if device.small else '64', '--num-val', '1', '--size', '683']
        subprocess.run([sys.executable, tools / 'generate_dataset.py', folder, *images], check=True)
        data = f'{folder}/ADEChallengeData2016'
        options = [
            *(f'{split}_dataloader.dataset.data_root={data}' for split in ('train', 'val', 'test')),
            f'train_dataloader.batch_size={batch}',
            'model.backbone.init_cfg=None',
            f'train_cfg.max_iters={iters}',
            f'default_hooks.logger.interval={1 if device.small else 5}',
        ]
        more = ['--cfg-options', *options, 'train_cfg.val_interval=1000000']
        ways = {
            "MMEngine's Runner": ['-c', STOCK, config, f'{folder}/stock', *options],
            'tools/train.py': [tools / 'train.py', config, *amp, '--work-dir', f'{folder}/ours', *more],
        }
        case = f'UperNet-CAFormer-S18, {batch} x 512x512, {kind}'
        gpu = f'GPU-{torch.cuda.get_device_properties(0).uuid}' if device.type == 'cuda' else None
        first = None
        for name, arguments in ways.items():
            start = time.perf_counter()
            with _gpu_use(gpu, Path(folder)) as use:
                lines, status = _find_in_output(arguments, r'.*Iter\(train\).*  time: .*')
            seconds = time.perf_counter() - start
            for key in ('time', 'data_time'):
                times = [float(line.split(f' {key}: ')[1].split()[0]) for line in lines[len(lines) // 2 :]]
                value = statistics.median(times) if times else float('nan')
                if key == 'time':
                    first = first or value
                note = f'status {status}, {seconds:.0f} s in all'
                yield Row(case, name, f'{key}, s', value, value / first if key == 'time' else None, note)
            if use:
                yield Row(case, name, 'GPU at work, %', statistics.median(use), note='of the second half')
        step = _training_step(str(config), batch, (512, 512), device, kind)
        (timing,) = time_alternating([step], 3 if device.small else 20, warmup=1)
        yield Row(case, 'a step without loading data', 'time, s', timing.median, timing.median / first)
        yield from _resumed([tools / 'train.py', config, *amp], options, Path(folder))


@contextmanager
def _gpu_use(gpu: str | None, folder: Path) -> Iterator[list[float]]:
    """Per cent of the time that a GPU was at work, says its driver, in the second half of what runs."""
    found: list[float] = []
    if gpu is None:
        yield found
        return
    query = ['--query-gpu=utilization.gpu', '--format=csv,noheader,nounits', '--loop-ms=200']
    with open(folder / 'use', 'w+') as file:
        with subprocess.Popen(['nvidia-smi', f'--id={gpu}', *query], stdout=file) as log:
            try:
                yield found
            finally:
                log.terminate()
        file.seek(0)
        values = [float(line) for line in file if line.strip().isdigit()]  # not all GPUs tell
        found += values[len(values) // 2 :]


def _find_in_output(arguments: Sequence[object], pattern: str) -> tuple[list[Any], int]:
    """What Python prints that matches, and its status; the end of all of it where it fails."""
    run = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True)
    found = re.findall(pattern, run.stdout + run.stderr)
    if run.returncode or not found:
        print(run.stdout[-3000:], run.stderr[-3000:], file=sys.stderr)
    return found, run.returncode


def _resumed(command: Sequence[object], options: Sequence[str], folder: Path) -> Iterator[Row]:
    """Losses of a run that was cut in two, against those of a whole one; kernels may sum in any order."""
    losses = {}
    for name, ends in (('whole', [6]), ('resumed', [3, 6])):
        losses[name] = {}
        for end in ends:
            more = (
                f'train_cfg.max_iters={end}',
                'default_hooks.logger.interval=1',
                'default_hooks.checkpoint.interval=3',
                'randomness.seed=0',
            )
            arguments = [*command, '--resume', '--work-dir', folder / name, '--cfg-options', *options, *more]
            found, _ = _find_in_output(arguments, r'Iter\(train\) \[ *(\d+)/.* loss: ([\d.]+)')
            losses[name] |= {int(number): float(loss) for number, loss in found}
    whole, resumed = losses.values()
    good = list(whole) == list(resumed) == [*range(1, 7)]
    error = max(abs(resumed[i] / whole[i] - 1) for i in whole) if good else float('nan')
    case = 'UperNet-CAFormer-S18, resumed after 3 of 6 iterations'
    yield Row(case, 'ours', 'largest change of a loss', error, note=_verdict(error < 1e-2))


def paper(device: Device) -> Iterator[Row]:
    """Table XII of arXiv:2210.13452: 128 images of 224x224, GELU for StarReLU, TF32; and bfloat16."""
    few = ['--models', 'convformer_s18', 'swin_t', '--batch', '1', '--repeats', '1']
    for kind in ('tf32', 'bfloat16'):
        yield from _table_of_paper('XII', ['--dtype', kind, *(few if device.small else [])])


def paper_models(device: Device) -> Iterator[Row]:
    """Tables X and IX of arXiv:2210.13452: an image of 512x2048 for segmentors, 800x1280 for detectors."""
    for table, model in (('X', 'upernet_caformer_s18'), ('IX', 'mask_rcnn_caformer_s18')):
        yield from _table_of_paper(table, ['--models', model, '--repeats', '1'] if device.small else [])


def _table_of_paper(table: str, options: Sequence[str]) -> Iterator[Row]:
    tool = resource_root() / 'tools/analysis_tools/benchmark.py'
    with tempfile.NamedTemporaryFile(suffix='.json') as file:
        command = [sys.executable, tool, 'paper', table, '--json', file.name, *options]
        subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)
        records = json.loads(Path(file.name).read_text())
    speeds = [record['batch'] / record['median'] for record in records]
    printed = [record['printed_per_second'] for record in records]
    for record, speed, other in zip(records, speeds, printed, strict=True):
        size = f'{record["batch"]} x {record["height"]}x{record["width"]}'
        case = f'Table {table}, {size}, {record["dtype"]}'
        note = f'printed: {other:g}, ratio {other / printed[0]:.3f}'
        yield Row(case, record['model'], 'images per second', speed, speed / speeds[0], note)


PARTS: dict[str, Callable[[Device], Iterator[Row]]] = {
    'correctness': correctness,
    'windows': windows,
    'activation': activation,
    'backbones': backbones,
    'models': models,
    'compiled-correctness': compiled_correctness,
    'compiled': compiled,
    'paper': paper,
    'paper-models': paper_models,
    'training': training,
    'profile': profile,
}

# Packages of parts beside those of the backbones.
PACKAGES = {
    'models': ('mmseg', 'mmdet', 'mmcv._ext'),
    'paper': ('mmpretrain',),
    'paper-models': ('mmseg', 'mmdet', 'mmcv._ext'),
    'training': ('mmseg',),
}


def missing_packages(part: str) -> list[str]:
    """Packages that a part needs and that are not installed; ``mmcv._ext`` are MMCV's operators."""
    return [name for name in PACKAGES.get(part, ()) if find_spec(name) is None]
