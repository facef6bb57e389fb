"""Layer normalisation over the channels of each position.

Forms: ``reference``, PyTorch's fused operation; ``decomposed``, the same in steps.
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from . import dispatch
from .recompute import recomputable


def layer_norm2d(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise the channels of each position.

    Args:
        x (Tensor): ``(B, C, H, W)``.
        weight (Tensor): ``(C,)``.
        bias (Tensor | None): ``(C,)``.
        eps (float): Added to the variance.

    Returns:
        Tensor: ``(B, C, H, W)``, channels last in memory.
    """
    normalise = partial(_normalise, eps=eps, form=dispatch.layer_norm())
    return recomputable(normalise(x, weight, bias), normalise, x, weight, bias)


def _normalise(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, form: str) -> Tensor:
    x, shape = x.permute(0, 2, 3, 1), weight.shape
    if form == 'reference':
        return F.layer_norm(x, shape, weight, bias, eps).permute(0, 3, 1, 2)
    # Inductor drops the stride of a batch of one in a permuted view, and convolutions then treat it as
    # channels first; the result of an operation on (B, C, H, W) has its strides.
    normed = F.layer_norm(x, shape, eps=eps).permute(0, 3, 1, 2)
    x = normed * weight[:, None, None]
    return (x if bias is None else x + bias[:, None, None]).to(normed.dtype)
