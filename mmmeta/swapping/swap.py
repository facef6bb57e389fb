"""Put a MetaFormer into a config of any OpenMMLab package."""

import copy
import os
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from mmmeta.config.backbones import GLOBAL_ATTENTION, WINDOW, backbone_config
from mmmeta.config.inspection import bare_model, bare_type, preprocessor_of, scope_of
from mmmeta.config.wiring import parameter_names
from mmmeta.utils.errors import UsageError
from mmmeta.utils.resources import resource_root
from mmmeta.utils.stack import INSTALL
from mmmeta.validation.names import check_types
from mmmeta.validation.wiring import check_anchors, check_wiring

from . import recipe
from .maps import build_ours, wire_classifier, wire_dense
from .tied import check_tied, missing_package

STAGES = 4
SCOPES = tuple(INSTALL)


@dataclass
class Swapped:
    """A config with another backbone.

    Attributes:
        cfg (Config): The config.
        reasons (dict[tuple, str]): Why a value differs, by the last keys of its path.
    """

    cfg: Config
    reasons: dict[tuple, str] = field(default_factory=dict)


def swap(
    cfg: Config, backbone: str, train_size: tuple[int, int] | None = None, keep_optimizer: bool = False
) -> Config:
    """Put a MetaFormer into a config, with all that depends on it.

    Args:
        cfg (Config): A config of MMDetection, MMSegmentation or MMPretrain, such as
            :func:`~mmmeta.apis.load_config` returns it. It is not changed.
        backbone (str): Such as ``'caformer_s36'``, with arguments such as
            ``'caformer_s18,window=13,drop_path_rate=0.2'``, or published weights such as
            ``'mmmeta://caformer_s18_in21ft1k'``.
        train_size (tuple[int, int] | None): Height and width of training images, multiples of 32. Defaults
            to None, as they are.
        keep_optimizer (bool): Whether the optimiser and its schedule stay as they are. Defaults to False.

    Returns:
        Config: The config.

    Raises:
        UsageError: The backbone does not exist or does not fit, or the method is made of its own.
    """
    return swap_with_reasons(cfg, backbone, train_size, keep_optimizer).cfg


def check_swappable(cfg: Config) -> None:
    """Check that a config is one that another backbone can be put into.

    Raises:
        UsageError: It is not.
    """
    name = f"'{cfg.filename}'" if cfg.filename else 'the config'
    if not isinstance(cfg.get('model'), dict):
        raise UsageError(f'{name} has no model: it is a part of a config')
    if not isinstance(cfg.model.get('type', ''), str):
        raise UsageError(
            f'{name} is a config of pure Python (its types are classes): give one in text, as those are that '
            'OpenMMLab installs'
        )
    if cfg.get('default_scope') not in SCOPES:
        kind = 'a config of MMCV 1' if 'data' in cfg or 'img_norm_cfg' in cfg else 'a config'
        raise UsageError(
            f'{name} is {kind} with default_scope={cfg.get("default_scope")!r}: write the package that its '
            f"types are of, such as default_scope='mmdet' ({', '.join(SCOPES)})"
        )
    installed_by = next((scope for scope in SCOPES if f'/{scope}/.mim/' in str(cfg.filename)), None)
    if installed_by not in (None, cfg.default_scope):
        raise UsageError(
            f'{name} is a config of {cfg.default_scope} that {installed_by} installs, and where MMEngine '
            f'looks for the types of files that inherit from it: take one that {cfg.default_scope} installs'
        )
    check_tied(cfg)
    teacher = bare_model(cfg).get('teacher_config')
    if isinstance(teacher, str) and not os.path.isfile(teacher):
        raise UsageError(
            f"model.teacher_config='{teacher}' of this config is not there: run this where it is, in a "
            'checkout of MMDetection'
        )
    missing = missing_package(cfg)
    if missing:
        package, part = missing
        package = dict(skimage='scikit-image').get(package, package)
        raise UsageError(f"{part} in this config needs the package '{package}': pip install {package}")
    init_default_scope(cfg.default_scope)
    unknown = next((finding for finding in check_types(cfg) if finding.key.endswith('.type')), None)
    if unknown is not None:
        raise UsageError(unknown.text)


def swap_with_reasons(
    cfg: Config, backbone: str, train_size: tuple[int, int] | None = None, keep_optimizer: bool = False
) -> Swapped:
    """As :func:`swap`, with the reasons for what differs."""
    given = backbone_config(backbone)
    check_swappable(cfg)
    cfg = copy.deepcopy(cfg)
    model, scope = bare_model(cfg), scope_of(cfg)
    reasons = _keep_settings(model.backbone, given)
    ours = build_ours(given)
    if train_size:
        recipe.put_training_size(cfg, train_size)
    if 'head' in model or ('decode_head' not in model and scope == 'mmpretrain' and 'roi_head' not in model):
        chosen, out_stride = wire_classifier(model, ours), None
    else:
        chosen, out_stride = wire_dense(model, ours, scope)
    built = dict(type=given.pop('type'), arch=given.pop('arch'))
    if chosen != list(range(len(ours.dims))):
        built['out_indices'] = given.pop('out_indices', tuple(chosen))
        reasons['backbone', 'out_indices'] = 'What is read; other stages would have norms without gradients.'
    if out_stride is not None:
        built['out_stride'] = given.pop('out_stride', out_stride)
        reasons['backbone', 'out_stride'] = 'The head wants fine maps.'
    name, arch = bare_type(built), built['arch']
    rate = _drop_path_rate(name.lower(), arch if isinstance(arch, str) else arch['base'])
    if rate:
        built['drop_path_rate'] = given.pop('drop_path_rate', rate)
        reasons['backbone', 'drop_path_rate'] = 'As in ImageNet training.'
    if name == 'CAFormer' and 'window' not in given and recipe.largest_side(cfg) > GLOBAL_ATTENTION:
        built['window'] = WINDOW
        reasons['backbone', 'window'] = (
            f'Images may exceed {GLOBAL_ATTENTION} pixels: attention in windows takes less memory.'
        )
    init = given.pop('init_cfg', None)
    built.update(given)
    if init is not None:
        built['init_cfg'] = init
    model.backbone = ConfigDict(built)
    build_ours(built)  # with what was added
    reasons.update(recipe.take_out_weights(cfg))
    if init is not None and ours.in_channels == 3:
        reasons.update(recipe.put_pixels(cfg))
    _import_ours(cfg)
    _check(cfg)
    if not keep_optimizer:
        reasons.update(recipe.put_optimizer(cfg, parameter_names(model, scope)))
    return Swapped(cfg, reasons)


def _keep_settings(original: dict, given: dict[str, Any]) -> dict[tuple, str]:
    """Give the other backbone what a user set of the original for reasons that hold for both, in place.

    Returns:
        dict[tuple, str]: Why, by the key.
    """
    reasons = {}
    if original.get('in_channels', 3) != 3:
        given.setdefault('in_channels', original['in_channels'])
    if original.get('with_cp'):
        given.setdefault('with_cp', True)
    frozen = original.get('frozen_stages', -1)
    # All stages, as in linear evaluation; what else is frozen is for the original's weights.
    if isinstance(frozen, int) and frozen >= STAGES and 'frozen_stages' not in given:
        given['frozen_stages'] = STAGES
        reasons['backbone', 'frozen_stages'] = 'All of it, as in the original.'
    return reasons


def _drop_path_rate(family: str, size: str) -> float:
    """Stochastic depth of a member in ImageNet training; none of PoolFormer, whose authors used none here."""
    if family == 'poolformer':
        return 0.0
    path = resource_root() / 'configs/imagenet' / f'{family}_{size}_in1k.py'
    return Config.fromfile(path).model.backbone.drop_path_rate


def _import_ours(cfg: Config) -> None:
    """Import mmmeta, which registers the backbones; leave out what only the other backbone was in."""
    imports = dict(cfg.get('custom_imports') or {})
    names: Any = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    if 'mmmeta' not in names:
        cfg.custom_imports = ConfigDict(imports=[*names, 'mmmeta'], allow_failed_imports=False)


def _check(cfg: Config) -> None:
    """Check that all parts fit.

    Raises:
        UsageError: One does not.
    """
    key, preprocessor = preprocessor_of(cfg)
    mean, channels = preprocessor.get('mean'), bare_model(cfg).backbone.get('in_channels', 3)
    if mean and len(mean) not in (1, channels):
        raise UsageError(
            f'in_channels={channels} of the backbone, and {key}.mean={list(mean)}: give the config as many '
            'means first'
        )
    for check in (check_wiring, check_anchors):
        for finding in check(cfg):
            if not finding.is_warning:
                raise UsageError(f'no other backbone is put into this config by itself: {finding.text}')
