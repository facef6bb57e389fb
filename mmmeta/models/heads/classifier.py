"""The two classifiers of arXiv:2210.13452, for MMPretrain's ``ImageClassifier``."""

from collections import OrderedDict
from collections.abc import Sequence

from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from mmmeta.models.layers import SquaredReLU
from mmmeta.registry import MODELS
from mmmeta.utils.errors import UsageError

INIT = dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0)


class _NormedHead(ClsHead):
    """Base of both heads: layer norm of the averaged last feature map, then ``fc``."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        loss: dict | None = None,
        topk: int | Sequence[int] = (1,),
        cal_acc: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(
            # With its scope, to be found under any ``default_scope``.
            loss or dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0),
            (topk,) if isinstance(topk, int) else tuple(topk),
            cal_acc,
            init_cfg or INIT,
        )
        for name, value in (('num_classes', num_classes), ('in_channels', in_channels)):
            if type(value) is not int or value < 1:
                raise UsageError(f'{name}={value}: give a positive integer')
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.norm = nn.LayerNorm(in_channels, eps=1e-6)

    def pre_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """Normalise the last of ``feats``, ``(B, C)``."""
        return self.norm(feats[-1])

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Compute the logits, ``(B, num_classes)``, of averaged features, the last of shape ``(B, C)``."""
        return self.fc(self.pre_logits(feats))


@MODELS.register_module()
class MetaFormerLinearHead(_NormedHead):
    """Norm and linear layer: the classifier of IdentityFormer, RandFormer and PoolFormerV2.

    It follows ``GlobalAveragePooling``, and the backbone has to return raw features
    (``output_norm=False``). PoolFormer differs: its norm comes before the average, so it
    takes the backbone's own output norm and MMPretrain's ``LinearClsHead``.

    Args:
        num_classes (int): Number of classes.
        in_channels (int): Channels C of the features.
        loss (dict | None): Loss. Defaults to None: cross entropy.
        topk (int | Sequence[int]): Which accuracies training reports. Defaults to ``(1,)``.
        cal_acc (bool): Whether training reports accuracies; not with Mixup or CutMix. Defaults to False.
        init_cfg (dict | list | None): Initialisation. Defaults to None: normal with standard deviation 0.02,
            truncated; biases zero.

    Raises:
        UsageError: A number is not positive.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        loss: dict | None = None,
        topk: int | Sequence[int] = (1,),
        cal_acc: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(num_classes, in_channels, loss, topk, cal_acc, init_cfg)
        self.fc = nn.Linear(in_channels, num_classes)


@MODELS.register_module()
class MetaFormerMlpHead(_NormedHead):
    """Norm and MLP: the classifier of ConvFormer and CAFormer.

    Linear, SquaredReLU, layer norm, dropout, linear (arXiv:2210.13452, Table II). It follows
    ``GlobalAveragePooling``, and the backbone in front of that gives raw features (``output_norm=False``).

    Args:
        num_classes (int): Number of classes.
        in_channels (int): Channels C of the features.
        mlp_ratio (float): Hidden width over C. Defaults to 4.
        dropout (float): Probability of dropping a hidden feature, in [0, 1). Defaults to 0.0.
        loss (dict | None): Loss. Defaults to None: cross entropy.
        topk (int | Sequence[int]): Which accuracies training reports. Defaults to ``(1,)``.
        cal_acc (bool): Whether training reports accuracies; not with Mixup or CutMix. Defaults to False.
        init_cfg (dict | list | None): Initialisation. Defaults to None: normal with standard deviation 0.02,
            truncated; biases zero.

    Raises:
        UsageError: A number is not positive, or ``dropout`` no probability.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        mlp_ratio: float = 4,
        dropout: float = 0.0,
        loss: dict | None = None,
        topk: int | Sequence[int] = (1,),
        cal_acc: bool = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(num_classes, in_channels, loss, topk, cal_acc, init_cfg)
        if not 0 <= dropout < 1:
            raise UsageError(f'dropout={dropout}: choose a probability in [0, 1)')
        hidden = int(mlp_ratio * in_channels)
        self.fc = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(in_channels, hidden),
                act=SquaredReLU(),
                norm=nn.LayerNorm(hidden, eps=1e-6),
                drop=nn.Dropout(dropout),
                fc2=nn.Linear(hidden, num_classes),
            )
        )
