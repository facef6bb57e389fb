"""Backbones as command lines name them: ours, timm's and MMPretrain's."""

import ast
from importlib.util import find_spec

import torch
from torch import nn

from mmmeta.errors import UsageError
from mmmeta.models import FAMILIES
from mmmeta.models.backbones.arch import ARCH_DEFAULTS
from mmmeta.models.layers import RandomMixing


def build_backbone(spec: str) -> nn.Module:
    """Build a backbone that returns features at several strides, from its specification on a command line.

    Args:
        spec (str): One of ours, such as ``caformer_s18``, with arguments of the class or keys of its ``arch``
            after commas, such as ``caformer_s18,window=13`` or ``convformer_s18,act='GELU'``; one of timm's,
            such as ``timm/caformer_s18``, or ``timm/identityformer_s12`` and ``timm/randformer_s12``, which
            are timm's blocks with these mixers; or the backbone of one of MMPretrain's, such as
            ``mmpretrain/poolformer-s12_3rdparty_32xb128_in1k``, with the outputs of that classifier.

    Returns:
        nn.Module: The backbone in eval mode, with random weights.

    Raises:
        UsageError: There is no such backbone, or the package is not installed.
    """
    name, _, arguments = spec.partition(',')
    package, _, foreign = name.rpartition('/')
    if package in ('timm', 'mmpretrain'):
        if find_spec(package) is None:
            raise UsageError(f"'{spec}' needs {package}, which is not installed: pip install {package}")
        return {'timm': _timm_features, 'mmpretrain': _mmpretrain_backbone}[package](foreign)
    family, _, arch = name.rpartition('_')
    if family not in FAMILIES:
        choices = ', '.join(f'{family}_<arch>' for family in sorted(FAMILIES))
        raise UsageError(f"unknown backbone '{name}': choose {choices}, or timm/<model>")
    try:
        call = ast.parse(f'f({arguments})', mode='eval').body
        options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        if call.args or None in options:
            raise ValueError('no name')
    except (ValueError, SyntaxError) as error:
        raise UsageError(
            f"'{spec}': arguments are names and Python values, such as window=13 or border='truncate'"
        ) from error
    of_arch = {key: options.pop(key) for key in ARCH_DEFAULTS if key in options}
    try:
        return FAMILIES[family](dict(of_arch, base=arch), **options).eval()
    except TypeError as error:
        raise UsageError(f"'{spec}': {error}") from error


class _Stages(nn.Module):
    """A MetaFormer of timm's that returns the features of its stages."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.stem, self.stages = model.stem, model.stages

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        outs = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            outs.append(x)
        return outs


def _timm_features(name: str) -> nn.Module:
    import timm

    family, _, arch = name.rpartition('_')
    if family in ('identityformer', 'randformer') and not timm.is_model(name):
        return _timm_metaformer(FAMILIES[family].resolve_arch(arch)).eval()
    if not timm.is_model(name):
        raise UsageError(f"timm has no model '{name}': see timm.list_models()")
    return timm.create_model(name, features_only=True).eval()


def _timm_metaformer(arch: dict) -> nn.Module:
    """IdentityFormer or RandFormer made of timm's blocks, with mixers that timm does not have."""
    from timm.models import metaformer

    class Mixing(RandomMixing):
        """Takes dropout and other keyword arguments, as timm passes them to mixers."""

        tokens = 0

        def __init__(self, dim: int, **_: object) -> None:
            super().__init__(dim, self.tokens)

    mixers = [
        type('Mixing', (Mixing,), dict(tokens=spec['num_tokens'])) if isinstance(spec, dict) else nn.Identity
        for spec in arch['token_mixers']
    ]
    return _Stages(
        metaformer.MetaFormer(
            depths=arch['depths'],
            dims=arch['dims'],
            token_mixers=mixers,
            norm_layers=metaformer.GroupNorm1NoBias,
            use_mlp_head=False,
        )
    )


def _mmpretrain_backbone(name: str) -> nn.Module:
    import mmpretrain

    if name not in mmpretrain.list_models():
        raise UsageError(f"MMPretrain has no model '{name}': see mmpretrain.list_models()")
    backbone = mmpretrain.get_model(name, pretrained=False).backbone
    backbone.eval()  # some return nothing
    return backbone
