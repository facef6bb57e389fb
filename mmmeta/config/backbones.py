"""Backbones as command lines name them: ours, timm's and MMPretrain's."""

import ast
import inspect
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from mmmeta.models import FAMILIES
from mmmeta.models.backbones.arch import ARCH_DEFAULTS
from mmmeta.models.layers import RandomMixing
from mmmeta.registry import MODELS
from mmmeta.utils.errors import UsageError, nearest
from mmmeta.weights import get_weights

SCHEME = 'mmmeta://'
# The largest side without windows of attention, in pixels, and the window beyond it: what the papers' MACs
# leave room for.
GLOBAL_ATTENTION, WINDOW = 640, 13


def known_backbones() -> list[str]:
    """Names of all members of the families."""
    return [f'{family}_{arch}' for family, cls in FAMILIES.items() for arch in cls.arch_table]


def name_of_spec(spec: str) -> str:
    """The name in a specification, for files: without arguments and scheme."""
    return spec.partition(',')[0].rpartition('/')[2]


def backbone_config(spec: str) -> dict[str, Any]:
    """The config of a backbone of ours, from its specification on a command line.

    Args:
        spec (str): Such as ``caformer_s18``, with arguments of the class or keys of its ``arch`` after
            commas, such as ``caformer_s18,window=13`` or ``convformer_s18,act='GELU'``; or published weights,
            such as ``mmmeta://caformer_s18_in21ft1k``.

    Returns:
        dict: Type, arch and arguments as a config has them. ``init_cfg`` names the published weights; it is
        missing where a key of the ``arch`` is given, which they may not fit.

    Raises:
        UsageError: There is no such backbone, or it takes no such argument.
    """
    name, comma, arguments = spec.partition(',')
    checkpoint, act = name if name.startswith(SCHEME) else f'{SCHEME}{name}', None
    if name.startswith(SCHEME):
        weights = get_weights(name.removeprefix(SCHEME))
        name, act = f'{weights.family}_{weights.size}', weights.act
    family, _, arch = name.rpartition('_')
    if family not in FAMILIES:
        known = known_backbones()
        meant = nearest(name, known)
        choices = f'did you mean {meant}' if meant else f'choose one of {", ".join(known)}'
        raise UsageError(f"unknown backbone '{name}': {choices}")
    cls = FAMILIES[family]
    cls.resolve_arch(arch)
    options = _parse_arguments(spec, arguments) if comma else {}
    of_arch = {key: options.pop(key) for key in ARCH_DEFAULTS if key in options}
    fits = not of_arch
    if act is not None:
        of_arch.setdefault('act', act)
    takes = [name for name in inspect.signature(cls.__init__).parameters if name not in ('self', 'arch')]
    for key in options:
        if key not in takes:
            meant = nearest(key, [*takes, *ARCH_DEFAULTS])
            hint = f'it is written {meant}' if meant else f'choose from {", ".join(takes)}'
            raise UsageError(f"'{spec}': {cls.__name__} takes no argument '{key}': {hint}")
    config = dict(type=f'mmmeta.{cls.__name__}', arch=dict(base=arch, **of_arch) if of_arch else arch)
    if fits:
        config['init_cfg'] = dict(type='Pretrained', checkpoint=checkpoint)
    return {**config, **options}


def _parse_arguments(spec: str, arguments: str) -> dict[str, Any]:
    """Arguments after the name, which are names and Python values."""
    try:
        # The line break ends a comment, which would hide what follows the arguments.
        call = ast.parse(f'f({arguments}\n)', mode='eval').body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            raise ValueError('more than arguments')
        named = [keyword for keyword in call.keywords if keyword.arg]
        options = {keyword.arg or '': ast.literal_eval(keyword.value) for keyword in named}
        if call.args or not options or len(options) < len(call.keywords):
            raise ValueError('no name, or one twice')
    # The last three of deep nesting, and of lists as keys.
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise UsageError(
            f"'{spec}': arguments are names and Python values, each name once, such as window=13 or "
            "border='truncate'"
        ) from error
    return options


def build_backbone(spec: str) -> nn.Module:
    """Build a backbone that returns features at several strides, from its specification on a command line.

    Args:
        spec (str): One of ours as :func:`backbone_config` takes it: with published weights, which are loaded,
            if it begins with ``mmmeta://``, else with random ones; one of timm's,
            such as ``timm/caformer_s18``, or ``timm/identityformer_s12`` and ``timm/randformer_s12``, which
            are timm's blocks with these mixers; or the backbone of one of MMPretrain's, such as
            ``mmpretrain/poolformer-s12_3rdparty_32xb128_in1k``, with the outputs of that classifier.

    Returns:
        nn.Module: The backbone in eval mode; timm's and MMPretrain's have random weights.

    Raises:
        UsageError: There is no such backbone, the package is not installed, or weights cannot be loaded.
    """
    name = spec.partition(',')[0]
    package, _, foreign = name.rpartition('/')
    if package in ('timm', 'mmpretrain'):
        if find_spec(package) is None:
            raise UsageError(f"'{spec}' needs {package}, which is not installed: pip install {package}")
        return {'timm': _timm_features, 'mmpretrain': _mmpretrain_backbone}[package](foreign)
    config = backbone_config(spec)
    if not spec.startswith(SCHEME):
        config.pop('init_cfg', None)
        return MODELS.build(config).eval()
    if 'init_cfg' not in config:
        raise UsageError(f"'{spec}': weights of another architecture do not fit, leave {SCHEME} out")
    backbone = MODELS.build(config)
    backbone.init_weights()
    return backbone.eval()


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


def _timm_metaformer(arch: dict[str, Any]) -> nn.Module:
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
