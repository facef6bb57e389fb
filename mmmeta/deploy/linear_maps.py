"""Linear maps over channels as convolutions of 1x1, which need no transposed maps around them in a file."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmmeta.models.layers import Mlp, SepConv


def _map_channels(layer: nn.Module, x: Tensor) -> Tensor:
    if type(layer) is nn.Linear:
        return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvMlp(Mlp):
    """The MLP of a block, by convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        return _map_channels(self.fc2, self.act(_map_channels(self.fc1, x)))


class ConvSepConv(SepConv):
    """The separable convolution, by convolutions alone."""

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``(B, C, H, W)``."""
        hidden = self.dwconv(self.act(_map_channels(self.pwconv1, x)))
        return _map_channels(self.pwconv2, hidden)
