"""The linear maps that a MetaFormer block is made of: over channels, and over positions of a channel."""

from torch import Tensor, nn

from mmmeta.models.ops import convolution, pointwise


class Pointwise(nn.Linear):
    """A linear map over the channels of a feature map; one weight layout, ``(C_out, C_in)``, everywhere.

    Args:
        in_features (int): Channels in.
        out_features (int): Channels out.
        bias (bool): Whether to add a bias. Defaults to True.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C_in, H, W)`` to ``(B, C_out, H, W)``, channels last in memory."""
        return pointwise(x, self.weight, self.bias)


class Conv2d(nn.Conv2d):
    """PyTorch's ``Conv2d``, which can recompute its input in backward. Arguments are those of PyTorch's."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C_in, H, W)`` to ``(B, C_out, H', W')``."""
        if self.padding_mode != 'zeros' or isinstance(self.padding, str):
            return super().forward(x)
        return convolution(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
