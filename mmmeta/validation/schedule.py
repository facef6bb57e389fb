"""Parts of a run that belong together: loaders, loops, samplers, schedulers, checkpoints."""

import math
from collections.abc import Iterator

from mmengine.config import Config

from mmmeta.config.inspection import iter_dicts
from mmmeta.engine.schedules import LearningRates, follow_schedule

from .finding import Finding
from .names import formers_of

# What a runner wants together, or not at all.
TOGETHER = (
    ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    ('val_dataloader', 'val_cfg', 'val_evaluator'),
    ('test_dataloader', 'test_cfg', 'test_evaluator'),
)
# Schedulers whose rate reaches its end at `end`.
DECAYING = ('PolyLR', 'CosineAnnealingLR')
# By how much an end may lie beyond the training: more is that of another schedule.
SLACK = 1.5
# By how much the highest rate may differ from that of the optimizer.
FACTOR = 2


def check_together(cfg: Config) -> Iterator[Finding]:
    """Loaders without a loop or a metric, and the other way round."""
    if not any(cfg.get(keys[0]) for keys in TOGETHER):  # a part of a config
        return
    for keys in TOGETHER:
        there = [key for key in keys if cfg.get(key) is not None]
        # What a former key stands for is said by that.
        missing = [key for key in keys if key not in there]
        missing = [key for key in missing if not any(one in cfg for one in formers_of(key))]
        if there and missing and 'default_scope' in cfg:
            yield Finding(
                missing[0],
                f'{" and ".join(there)} {"are" if len(there) > 1 else "is"} there, and '
                f'{" and ".join(missing)} {"are" if len(missing) > 1 else "is"} not: give all, or none',
                is_fatal=True,
            )


def _counts_epochs(loop: dict) -> bool | None:
    """Whether a loop counts epochs; None of loops of other kinds."""
    name = str(loop.get('type', 'EpochBased' if loop.get('by_epoch', True) else 'IterBased'))
    name = name.rpartition('.')[2]
    return True if name.startswith('EpochBased') else False if name.startswith('IterBased') else None


def check_schedule(cfg: Config) -> Iterator[Finding]:
    """Schedulers, checkpoints and samplers that count other things than the loop."""
    loop = cfg.get('train_cfg')
    by_epoch = _counts_epochs(loop) if isinstance(loop, dict) else None
    if by_epoch is None:
        return
    last = loop.get('max_epochs' if by_epoch else 'max_iters')
    schedulers = cfg.get('param_scheduler') or []
    single = isinstance(schedulers, dict)
    for i, scheduler in enumerate([schedulers] if single else schedulers):
        key = 'param_scheduler' if single else f'param_scheduler.{i}'
        if isinstance(scheduler, dict):
            yield from _check_scheduler(key, scheduler, by_epoch, last)
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if not by_epoch and checkpoint.get('by_epoch', True) and checkpoint.get('interval', -1) > 0:
        yield Finding(
            'default_hooks.checkpoint.by_epoch',
            'default_hooks.checkpoint counts epochs, and an IterBasedTrainLoop has none, so that the only '
            'checkpoint is written at the end: write default_hooks.checkpoint.by_epoch=False',
            is_warning=True,
        )
    sampler = (cfg.get('train_dataloader') or {}).get('sampler') or {}
    if by_epoch and sampler.get('type') == 'InfiniteSampler':
        yield Finding(
            'train_dataloader.sampler.type',
            "train_dataloader.sampler.type='InfiniteSampler' never ends an epoch, and the loop counts them: "
            "write 'DefaultSampler'",
        )


def _check_scheduler(key: str, scheduler: dict, by_epoch: bool, last: int | None) -> Iterator[Finding]:
    name, counts = str(scheduler.get('type')), scheduler.get('by_epoch', True)
    # A rate that waits for a metric acts after validations, by epochs alone.
    acts = scheduler.get('convert_to_iter_based') or name.startswith('ReduceOnPlateau')
    if counts and not by_epoch and not acts:
        yield Finding(
            f'{key}.by_epoch',
            f'{key} ({name}) counts epochs, and an IterBasedTrainLoop has none, so that it never acts: write '
            f'{key}.by_epoch=False',
        )
        return
    end, milestones = scheduler.get('end'), scheduler.get('milestones')
    if counts != by_epoch or not isinstance(last, int):
        return
    unit = 'max_epochs' if by_epoch else 'max_iters'
    if name in DECAYING and isinstance(end, int) and end > SLACK * last:
        yield Finding(
            f'{key}.end',
            f'{key}.end={end} of {name}, and train_cfg.{unit}={last}: the learning rate is far from its end '
            f'when training ends; write {key}.end={last}',
            is_warning=True,
        )
    elif isinstance(milestones, (list, tuple)) and milestones and min(milestones) >= last:
        yield Finding(
            f'{key}.milestones',
            f'{key}.milestones={list(milestones)}, and train_cfg.{unit}={last}: none is reached; write '
            'earlier ones',
            is_warning=True,
        )


def learning_rates(cfg: Config, images: int) -> LearningRates | None:
    """Return learning rates on one process, or None if the loop or the optimizer is of another kind.

    Args:
        cfg (Config): The config.
        images (int): Images of the training set.
    """
    loop, loader = cfg.get('train_cfg'), cfg.get('train_dataloader') or {}
    by_epoch = _counts_epochs(loop) if isinstance(loop, dict) else None
    base = ((cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr')
    last = (loop or {}).get('max_epochs' if by_epoch else 'max_iters')
    schedulers = cfg.get('param_scheduler') or []
    is_single = isinstance(schedulers, (list, tuple)) or 'type' in schedulers  # else by optimizer
    if by_epoch is None or not (images and isinstance(base, (int, float)) and isinstance(last, int)):
        return None
    if not is_single or not last:
        return None
    batches = images / (loader.get('batch_size') or 1)
    epoch_length = max(math.floor(batches) if loader.get('drop_last') else math.ceil(batches), 1)
    iterations = last * epoch_length if by_epoch else last
    return follow_schedule(schedulers, base, iterations, epoch_length, by_epoch)


def check_learning_rates(cfg: Config, images: int, facts: list[str]) -> Iterator[Finding]:
    """A rate that never comes near that of the optimizer, or leaves it far behind."""
    rates = learning_rates(cfg, images)
    if rates is None:
        return
    facts.append(f'learning rate: {rates}')
    if rates.base <= 0 or rates.base / FACTOR <= rates.highest <= rates.base * FACTOR:
        return
    types = {str(one.get('type')) for one in iter_dicts(cfg.get('param_scheduler'))}
    if 'OneCycleLR' in types:  # has a highest rate of its own
        return
    yield Finding(
        'param_scheduler',
        f'the learning rate is {rates.highest:.3g} at most, and optim_wrapper.optimizer.lr={rates.base:g}: '
        'shorten the warm-up in param_scheduler, take out milestones at its beginning, or train longer',
        is_warning=True,
    )
