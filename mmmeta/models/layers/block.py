"""The MetaFormer block: a token mixer and a channel MLP, each with a pre-norm and a residual connection."""

import torch
from torch import Tensor, nn

from mmmeta.models.ops import WindowPlan, call_linear, channels_first, channels_last

from .activations import build_activation
from .norms import build_norm


class Mlp(nn.Module):
    """Channel MLP: linear, activation, linear, over the channels of each position.

    Args:
        dim (int): Channels C.
        ratio (float): Hidden width over C. Defaults to 4.
        act (str | dict): Activation, see :func:`build_activation`. Defaults to ``'StarReLU'``.
        bias (bool): Whether the linear maps have biases. Defaults to False.
    """

    def __init__(self, dim: int, ratio: float = 4, act: str | dict = 'StarReLU', bias: bool = False) -> None:
        super().__init__()
        hidden = int(ratio * dim)
        self.fc1 = nn.Linear(dim, hidden, bias=bias)
        self.act = build_activation(act)
        self.fc2 = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        hidden = self.act(call_linear(self.fc1, channels_last(x)))
        return channels_first(call_linear(self.fc2, hidden))


class DropPath(nn.Module):
    """Stochastic depth (arXiv:1603.09382): drop the branch of an image, scale the kept ones up.

    Args:
        drop_prob (float): Probability of dropping, in [0, 1). Defaults to 0.0.
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Drop images of ``(B, C, H, W)``; nothing happens outside training."""
        if not self.training or self.drop_prob == 0.0:
            return x
        keep_prob = 1.0 - self.drop_prob
        mask = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep_prob)
        return x * (mask / keep_prob)

    def extra_repr(self) -> str:
        """Show the probability in ``print(model)``."""
        return f'drop_prob={self.drop_prob:.3f}'


def _scale(dim: int, init: float | None) -> nn.Parameter | None:
    """A learnable scale per channel, or None."""
    return None if init is None else nn.Parameter(torch.full((dim,), float(init)))


def _add_branch(x: Tensor, res_scale: Tensor | None, branch: Tensor, layer_scale: Tensor | None) -> Tensor:
    """``res_scale * x + layer_scale * branch``, for maps ``(B, C, H, W)`` and scales ``(C,)``."""
    x = x if res_scale is None else x * res_scale[:, None, None]
    return x + (branch if layer_scale is None else branch * layer_scale[:, None, None])


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
            plan (WindowPlan | None): Window plan for this map, of a token mixer that takes one. Defaults to
                None.
        """
        planned = {} if plan is None else dict(plan=plan)
        branch = self.drop_path(self.token_mixer(self.norm1(x), **planned))
        x = _add_branch(x, self.res_scale1, branch, self.layer_scale1)
        branch = self.drop_path(self.mlp(self.norm2(x)))
        return _add_branch(x, self.res_scale2, branch, self.layer_scale2)
