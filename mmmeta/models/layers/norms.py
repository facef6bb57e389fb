"""Normalisation layers over feature maps of shape (B, C, H, W)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmmeta.models.ops import group_norm1, layer_norm2d
from mmmeta.utils.errors import UsageError

from .checks import check, is_number, parse_cfg

# One node each in what torch.fx traces, whose symbols have neither device nor size.
torch.fx.wrap('layer_norm2d')
torch.fx.wrap('group_norm1')


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
        return layer_norm2d(x, self.weight, self.bias, self.eps)


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
        return group_norm1(x, self.weight, self.bias, self.eps)


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
