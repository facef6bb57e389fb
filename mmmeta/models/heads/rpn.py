"""The region proposal network, faster at inference."""

from mmdet.models.dense_heads import RPNHead as MMDetRPNHead

from mmmeta.models.layers import accelerate
from mmmeta.registry import MODELS


@MODELS.register_module()
class RPNHead(MMDetRPNHead):
    """MMDetection's ``RPNHead`` (arXiv:1506.01497), whose 3x3 convolutions are ``mmmeta.Conv2d``.

    It has no ``conv_cfg`` that could say so. Arguments, parameters, checkpoints and training are those of
    MMDetection's.
    """

    def _init_layers(self) -> None:
        super()._init_layers()
        accelerate(self)
