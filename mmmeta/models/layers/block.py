"""The MetaFormer block: a token mixer and a channel MLP, each behind a norm and beside a residual."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .activations import build_activation
from .chunks import chunk_rows, may_chunk
from .norms import LayerNorm2d, build_norm
from .pointwise import Pointwise
from .recompute import through
from .token_mixers import SepConv
from .windows import WindowPlan


class Mlp(nn.Module):
    """Channel MLP: linear, activation, linear.

    Args:
        dim (int): Channels C.
        ratio (float): Hidden width over C. Defaults to 4.
        act (str | dict): Activation, see :func:`build_activation`. Defaults to ``'StarReLU'``.
        bias (bool): Whether the linear maps have biases. Defaults to False.
    """

    def __init__(self, dim: int, ratio: float = 4, act: str | dict = 'StarReLU', bias: bool = False) -> None:
        super().__init__()
        hidden = int(ratio * dim)
        self.fc1 = Pointwise(dim, hidden, bias=bias)
        self.act = build_activation(act)
        self.fc2 = Pointwise(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        return through(self.act, self.fc2, self.fc1(x))


class DropPath(nn.Module):
    """Stochastic depth (arXiv:1603.09382): drop the branch of an image, scale the kept ones up.

    Args:
        drop_prob (float): Probability of dropping, in [0, 1). Defaults to 0.0.
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Drop along the first dimension of ``x``; nothing happens outside training."""
        if not self.training or self.drop_prob == 0.0:
            return x
        keep_prob = 1.0 - self.drop_prob
        mask = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(keep_prob)
        return x * (mask / keep_prob)

    def extra_repr(self) -> str:
        """Show the probability in ``print(model)``."""
        return f'drop_prob={self.drop_prob:.3f}'


def _scale(dim: int, init: float | None) -> nn.Parameter | None:
    """A learnable scale per channel, or None."""
    return None if init is None else nn.Parameter(torch.full((dim,), float(init)))


def _residual(x: Tensor, res_scale: Tensor | None, branch: Tensor, layer_scale: Tensor | None) -> Tensor:
    """``res_scale * x + layer_scale * branch``, for maps ``(B, C, H, W)`` and scales ``(C,)``."""
    res_scale, layer_scale = (s if s is None else s[:, None, None] for s in (res_scale, layer_scale))
    if not torch.is_grad_enabled():
        return _sum_branch(x, res_scale, branch, layer_scale)
    branch = branch if layer_scale is None else branch * layer_scale
    return (x if res_scale is None else x * res_scale) + branch


def _sum_branch(
    x: Tensor,
    res_scale: Tensor | None,
    branch: Tensor,
    layer_scale: Tensor | None,
    out: Tensor | None = None,
) -> Tensor:
    """The same without gradients, for scales that can be multiplied with ``x`` as they are.

    A pass less. It rounds once less too, which the gradients of StarReLU's scalars, sums over all positions
    that nearly cancel, would show against other implementations.
    """
    if res_scale is None:
        if layer_scale is None:
            return torch.add(x, branch, out=out)
        return torch.addcmul(x, branch, layer_scale, out=out)
    branch = branch if layer_scale is None else branch * layer_scale
    return torch.addcmul(branch, x, res_scale, out=out)


def _normed(norm: nn.Module, branch: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``branch(norm(x))``; backward computes the norm again, unless that would count the batch twice."""
    return branch(norm(x)) if isinstance(norm, _BatchNorm) else through(norm, branch, x)


class MetaFormerBlock(nn.Module):
    """One block (arXiv:2210.13452, eq. 2 and 3).

    ``x = res_scale * x + layer_scale * drop_path(f(norm(x)))``, first with the token mixer for ``f``, then
    with the MLP. A residual scale alone is ResScale (eq. 17), a layer scale alone LayerScale (eq. 16), both
    together BranchScale (eq. 18).

    Args:
        dim (int): Channels C.
        token_mixer (nn.Module): Maps ``(B, C, H, W)`` to the same shape.
        norm (str | dict): See :func:`build_norm`.
        act (str | dict): Activation of the MLP, see :func:`build_activation`. Defaults to ``'StarReLU'``.
        mlp_ratio (float): Hidden width of the MLP over C. Defaults to 4.
        bias (bool): Whether the MLP has biases. Defaults to False.
        res_scale_init (float | None): Initial residual scale; None for no such scale. Defaults to None.
        layer_scale_init (float | None): Initial layer scale; None for no such scale. Defaults to None.
        drop_path (float): Probability of stochastic depth. Defaults to 0.0.
    """

    def __init__(
        self,
        dim: int,
        token_mixer: nn.Module,
        norm: str | dict,
        act: str | dict = 'StarReLU',
        mlp_ratio: float = 4,
        bias: bool = False,
        res_scale_init: float | None = None,
        layer_scale_init: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = build_norm(norm, dim)
        self.token_mixer = token_mixer
        self.res_scale1 = _scale(dim, res_scale_init)
        self.layer_scale1 = _scale(dim, layer_scale_init)
        self.norm2 = build_norm(norm, dim)
        self.mlp = Mlp(dim, mlp_ratio, act=act, bias=bias)
        self.res_scale2 = _scale(dim, res_scale_init)
        self.layer_scale2 = _scale(dim, layer_scale_init)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, plan: WindowPlan | None = None) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape.

        Args:
            x (Tensor): Features.
            plan (WindowPlan | None): What an attention mixer laid out for this map. Defaults to None.
        """
        # Stochastic depth joins all positions of an image.
        in_pieces = may_chunk(x) and not self.training
        if in_pieces and isinstance(self.token_mixer, SepConv) and isinstance(self.norm1, LayerNorm2d):
            x = self._mix_in_strips(x)
        else:
            mixer = self.token_mixer if plan is None else partial(self.token_mixer, plan=plan)
            branch = _normed(self.norm1, mixer, x)
            x = _residual(x, self.res_scale1, self.drop_path(branch), self.layer_scale1)
        if in_pieces and x.is_contiguous(memory_format=torch.channels_last):
            return self._forward_mlp_in_pieces(x)
        branch = self.drop_path(_normed(self.norm2, self.mlp, x))
        return _residual(x, self.res_scale2, branch, self.layer_scale2)

    def _forward_mlp_in_pieces(self, x: Tensor) -> Tensor:
        """The second half of the block, over the map of the first one, some positions at a time."""
        # Norms over more than the channels of a position need the whole map.
        by_position = isinstance(self.norm2, LayerNorm2d)
        normed = x if by_position else self.norm2(x).contiguous(memory_format=torch.channels_last)
        tokens, inputs = (part.permute(0, 2, 3, 1).flatten(0, 2) for part in (x, normed))
        rows = chunk_rows(len(tokens), tokens[:1, 0], self.mlp.fc1.out_features)
        for out, piece in zip(tokens.split(rows), inputs.split(rows), strict=True):
            # A map of one column, which is seen to be channels last by its strides.
            piece = piece[None, :, None].permute(0, 3, 1, 2)
            branch = self.mlp(self.norm2(piece) if by_position else piece)[0, :, :, 0].t()
            _sum_branch(out, self.res_scale2, branch, self.layer_scale2, out=out)
        return x

    def _mix_in_strips(self, x: Tensor) -> Tensor:
        """The first half of the block with a convolution, some rows at a time."""
        mixer, height = self.token_mixer, x.shape[2]
        # In thinner strips the rows around them, which are computed twice, would weigh.
        rows = max(16, chunk_rows(height, x[:, 0, :1], mixer.pwconv1.out_features))
        out = None
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            first, last = max(top - mixer.reach, 0), min(bottom + mixer.reach, height)
            branch = self.norm1(x[:, :, first:last])
            branch = mixer.mix_rows(branch, mixer.reach - (top - first), mixer.reach - (last - bottom))
            strip = _residual(x[:, :, top:bottom], self.res_scale1, branch, self.layer_scale1)
            if rows >= height:
                return strip
            if out is None:
                out = torch.empty_like(x, dtype=strip.dtype)
            out[:, :, top:bottom] = strip
        return out
