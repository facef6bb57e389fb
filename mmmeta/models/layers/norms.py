"""Normalisation layers over feature maps of shape (B, C, H, W)."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from mmmeta.utils.errors import UsageError

from .checks import check, is_number, parse_cfg
from .kernels import has_kernels
from .recompute import apply, is_captured, recomputable

# Of a map. Below, PyTorch's group norm takes less time than the kernels to launch.
MIN_ELEMENTS = 2**20


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of each position.

    Args:
        num_channels (int): Channels C.
        eps (float): Added to the variance. Defaults to 1e-6.
        bias (bool): Whether to learn a bias beside the weight. Defaults to True.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6, bias: bool = True) -> None:
        super().__init__(num_channels, eps=eps, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, C, H, W)``; the result is channels last in memory."""
        normalise = partial(_normalise_channels, eps=self.eps)
        return recomputable(normalise(x, self.weight, self.bias), normalise, x, self.weight, self.bias)


def _normalise_channels(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Layer normalisation over the channels of ``(B, C, H, W)``."""
    x, shape = x.permute(0, 2, 3, 1), weight.shape
    if not torch.compiler.is_dynamo_compiling():
        return F.layer_norm(x, shape, weight, bias, eps).permute(0, 3, 1, 2)
    # Inductor drops the stride of a batch of one in a permuted view, and convolutions then treat it as
    # channels first; the result of an operation on (B, C, H, W) has its strides.
    normed = F.layer_norm(x, shape, eps=eps).permute(0, 3, 1, 2)
    x = normed * weight[:, None, None]
    return (x if bias is None else x + bias[:, None, None]).to(normed.dtype)


class GroupNorm1(nn.GroupNorm):
    """Group normalisation with a single group, over all channels and positions of an image.

    Args:
        num_channels (int): Channels C.
        eps (float): Added to the variance. Defaults to 1e-6.
        bias (bool): Whether to learn a bias beside the weight. Defaults to True.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6, bias: bool = True) -> None:
        super().__init__(1, num_channels, eps=eps)
        if not bias:
            self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, C, H, W)``."""
        if not is_captured() and x.numel() >= MIN_ELEMENTS and has_kernels(x):
            # As PyTorch's autocast does.
            dtype = torch.float32 if torch.is_autocast_enabled('cuda') else x.dtype
            y, stats = apply(_NormalisedMaps, x, self.weight, self.bias, self.eps, dtype)
            return recomputable(
                y, partial(_normalise_maps_again, dtype=dtype), x, self.weight, self.bias, stats
            )
        normalise = partial(_normalise_maps, eps=self.eps)
        return recomputable(normalise(x, self.weight, self.bias), normalise, x, self.weight, self.bias)


class _JointGradients(Function):
    """Return views of tensors, so that backward computes the gradients of all of them if it needs any."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(None if tensor is None else tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return grads


def _normalise_maps(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Normalisation over all of each ``(C, H, W)``."""
    # On a CPU, PyTorch (seen in 2.12) writes the gradient of a map with channels last and fewer than 2048
    # positions even where it is not needed, through a null pointer: the process ends with SIGSEGV behind
    # frozen parts, or when gradients of the weight alone are asked for.
    if x.device.type == 'cpu':
        if torch.jit.is_tracing() or (torch.compiler.is_exporting() and torch.is_grad_enabled()):
            x = x.contiguous()  # what is recorded has no node of ours
        elif torch.is_grad_enabled():
            x, weight, bias = apply(_JointGradients, x, weight, bias)
    return F.group_norm(x, 1, weight, bias, eps)


class _NormalisedMaps(Function):
    """:func:`_normalise_maps` by kernels; also returns what it has to know to do so again."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        from mmmeta.models.layers.kernels.norms import normalise_maps

        return normalise_maps(x, weight, bias, eps, dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        x, weight, bias, *_ = inputs
        ctx.of_bias = None if bias is None else bias.dtype
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, weight, output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
        from mmmeta.models.layers.kernels.norms import normalise_maps_gradients

        x, weight, stats = ctx.saved_tensors
        grad_x, of_weight, of_bias = normalise_maps_gradients(grad, x, weight, stats)
        return grad_x, of_weight.to(weight.dtype), ctx.of_bias and of_bias.to(ctx.of_bias), None, None


def _normalise_maps_again(
    x: Tensor, weight: Tensor, bias: Tensor | None, stats: Tensor, dtype: torch.dtype
) -> Tensor:
    from mmmeta.models.layers.kernels.norms import normalise_maps_again

    return normalise_maps_again(x, weight, bias, stats, dtype)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation, for the norm ablation of arXiv:2111.11418.

    Args:
        num_channels (int): Channels C.
        eps (float): Added to the variance. Defaults to 1e-5.
        bias (bool): Whether to learn a bias beside the weight. Defaults to True.
    """

    def __init__(self, num_channels: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__(num_channels, eps=eps)
        if not bias:
            self.bias = None


NORMS = {'LN': LayerNorm2d, 'GN1': GroupNorm1, 'BN': BatchNorm2d}


def build_norm(cfg: str | dict | None, num_channels: int) -> nn.Module:
    """Build a norm over ``num_channels`` channels.

    Args:
        cfg (str | dict | None): A name of :data:`NORMS` (``'LN'``, ``'GN1'``: group norm with one group,
            ``'BN'``), or a dict with that name under ``type`` and ``eps`` or ``bias`` beside it. None gives
            an identity.
        num_channels (int): Channels C.

    Raises:
        UsageError: The name is unknown, or a value does not fit.
    """
    if cfg is None:
        return nn.Identity()
    name, args = parse_norm(cfg)
    return NORMS[name](num_channels, **args)


def parse_norm(cfg: str | dict) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of a norm, as :func:`build_norm` takes it.

    Raises:
        UsageError: The name is unknown, or a value does not fit.
    """
    name, args = parse_cfg('norm', cfg)
    if name not in NORMS:
        raise UsageError(f"unknown norm '{name}': choose one of {', '.join(NORMS)}, or None")
    eps, bias = args.get('eps', 1e-6), args.get('bias', True)
    check(f'eps of norm {name}', eps, is_number(eps) and eps > 0, 'a positive number')
    check(f'bias of norm {name}', bias, isinstance(bias, bool), 'True or False')
    return name, args


@contextmanager
def frozen_running_stats(module: nn.Module) -> Iterator[None]:
    """Let the batch norms inside ``module`` use the statistics of the batch without recording them.

    Activation checkpointing runs a block twice; with this around the second run, the running statistics
    are updated once, as without checkpointing.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    saved = [(m.momentum, m.num_batches_tracked) for m in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = torch.clone(norm.num_batches_tracked)
    try:
        yield
    finally:
        for norm, (momentum, num_batches_tracked) in zip(norms, saved, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked = num_batches_tracked
