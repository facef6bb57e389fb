"""Upsampling by a factor for maps of any size, for export."""

from mmseg.models.utils import Upsample, resize
from torch import Tensor


class SymbolicUpsample(Upsample):
    """MMSegmentation's ``Upsample``, whose size ``int(side * factor)`` would be fixed when it is traced."""

    def forward(self, x: Tensor) -> Tensor:
        """Resize maps, ``(B, C, H, W)``."""
        factor = self.scale_factor
        if self.size or not isinstance(factor, float) or not factor.is_integer():
            return super().forward(x)
        size = [side * int(factor) for side in x.shape[-2:]]
        return resize(x, size, None, self.mode, self.align_corners)
