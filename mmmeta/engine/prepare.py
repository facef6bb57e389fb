"""What every run has: the one place where hooks and loops are put into its config."""

from collections.abc import Iterable
from typing import Any

from mmengine.config import Config

# Default hooks of MMEngine that ours extend, as its runner sets them where a config does not.
EXTENDED_HOOKS: dict[str, dict[str, Any]] = dict(
    checkpoint=dict(type='CheckpointHook', interval=1), logger=dict(type='LoggerHook')
)
# Among hooks of one priority the order is that of a run.
CUSTOM_HOOKS = (
    'mmmeta.AgreementHook',
    'mmmeta.MeanLossHook',
    'mmmeta.CompleteWeightsHook',
    'mmmeta.DivergenceHook',
    'mmmeta.RunRecordHook',
    'mmmeta.StopHook',
)
DETECTION_HOOKS = ('mmmeta.CocoCheckHook', 'mmmeta.NothingDetectedHook')
# Those that hold for one run, with its arguments; a config that a run has written has them too.
RUN_HOOKS = ('mmmeta.RunRecordHook', 'mmmeta.SignOfLifeHook', 'mmmeta.CheckLabelsHook')


def type_name(cfg: Any) -> str | None:
    """Return the name under ``type``, which may be a class; None for an object that is built already."""
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    return getattr(kind, '__name__', kind)


def prepare(cfg: Config, hooks: Iterable[dict] | None = None) -> list[str]:
    """Give a config the hooks and the loop that every run has, unless it has others in their place.

    Args:
        cfg (Config): The config. It is changed.
        hooks (Iterable[dict] | None): Configs of the hooks of this run alone, of those in ``RUN_HOOKS``; they
            take the place of what the config has of these. Defaults to None: those of the config.

    Returns:
        list[str]: Types that were added; nothing the second time.
    """
    added = [*_extend_default_hooks(cfg), *_extend_loop(cfg)]
    names = CUSTOM_HOOKS + DETECTION_HOOKS * (cfg.get('default_scope') == 'mmdet')
    wanted = {name: dict(type=name) for name in names} | {hook['type']: hook for hook in hooks or ()}
    given = cfg.get('custom_hooks') or []
    if hooks is not None:
        given = [hook for hook in given if type_name(hook) not in RUN_HOOKS]
    missing = [name for name in wanted if name not in map(type_name, given)]
    if missing or hooks is not None:
        cfg.custom_hooks = [*given, *(wanted[name] for name in missing)]
    return added + missing


def _extend_default_hooks(cfg: Config) -> list[str]:
    """Replace default hooks of MMEngine by those that extend them; others, and None, are left."""
    default_hooks, added = dict(cfg.get('default_hooks') or {}), []
    for key, default in EXTENDED_HOOKS.items():
        hook, name = default_hooks.get(key, default), default['type']
        if type_name(hook) == name:
            default_hooks[key] = {**hook, 'type': f'mmmeta.{name}'}
            added.append(f'mmmeta.{name}')
    cfg.default_hooks = default_hooks
    return added


def _extend_loop(cfg: Config) -> list[str]:
    """Replace a training loop of MMEngine by the one that extends it."""
    train_cfg = dict(cfg.get('train_cfg') or {})
    for loop, by_epoch in (('IterBasedTrainLoop', False), ('EpochBasedTrainLoop', True)):
        if type_name(train_cfg) == loop or train_cfg.get('by_epoch') is by_epoch:
            train_cfg.pop('by_epoch', None)
            cfg.train_cfg = {**train_cfg, 'type': f'mmmeta.{loop}'}
            return [f'mmmeta.{loop}']
    return []
