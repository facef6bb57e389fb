"""What an arch is: its keys, their defaults, and their validation."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

from mmmeta.models.layers import NORMS, build_activation
from mmmeta.models.layers.checks import check, is_integer, is_number, parse_cfg
from mmmeta.models.layers.norms import parse_norm
from mmmeta.utils.errors import UsageError

# The keys of an `arch` dict, with the values of arXiv:2210.13452 that hold where it does not set them.
ARCH_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    dict(
        depths=None,
        dims=None,
        token_mixers=None,
        norm=dict(type='LN', eps=1e-6, bias=False),
        embed_norm=dict(type='LN', eps=1e-6, bias=False),
        act='StarReLU',
        bias=False,
        mlp_ratio=4,
        res_scale='last_two',
        layer_scale_init=None,
        pool_size=3,
        head_dim=32,
        stem=dict(kernel_sizes=(7,), strides=(4,), paddings=(2,), dims=()),
    )
)


STAGE_SETTINGS = ('dims', 'token_mixers', 'norm', 'res_scale', 'layer_scale_init')
# What a value may be, for settings that are neither names nor dicts.
ARCH_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = MappingProxyType(
    dict(
        bias=(lambda value: isinstance(value, bool), 'True or False'),
        mlp_ratio=(lambda value: is_number(value) and value > 0, 'a positive number'),
        res_scale=(
            lambda value: isinstance(value, bool),
            "True or False, for each stage or for all, or 'last_two'",
        ),
        layer_scale_init=(
            lambda value: value is None or is_number(value),
            'a finite number or None, for each stage or for all',
        ),
        pool_size=(lambda value: is_integer(value) and value % 2 == 1, 'an odd, positive integer'),
        head_dim=(is_integer, 'a positive integer'),
    )
)
# Smallest entry of what the stem's convolutions have.
STEM_LEAST = MappingProxyType(dict(kernel_sizes=1, strides=1, paddings=0, dims=1))


def resolve_arch(
    arch: str | dict, family: str, settings: Mapping[str, Any], table: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return an arch as a complete, validated dict with one entry for each stage where that applies.

    Args:
        arch (str | dict): A name of ``table``, or a dict with keys of :data:`ARCH_DEFAULTS` and ``base``, a
            name of ``table`` whose values hold where the dict sets none.
        family (str): Name of the backbone, for the errors.
        settings (Mapping): What the family sets differently from :data:`ARCH_DEFAULTS`.
        table (Mapping): The members of the family: name to ``depths``, ``dims`` and other settings.

    Raises:
        UsageError: A name is unknown, a key is unknown or missing, or a value does not fit.
    """
    if not isinstance(arch, (str, Mapping)):
        raise UsageError(f'arch={arch!r} of {family}: give the name of a member or a dict')
    given = {'base': arch} if isinstance(arch, str) else dict(arch)
    base = given.pop('base', None)
    if base is not None and not (isinstance(base, str) and base in table):
        choices = f'choose one of {", ".join(table)}, or give' if table else 'give'
        raise UsageError(f"unknown arch '{base}' of {family}: {choices} a dict")
    member = {} if base is None else table[base]
    unknown = sorted(map(str, {*settings, *member, *given} - set(ARCH_DEFAULTS)))
    if unknown:
        hint = '; output_norm is an argument of the backbone' if 'output_norm' in unknown else ''
        raise UsageError(
            f'unknown key {", ".join(unknown)} in the arch of {family}: '
            f'choose from base, {", ".join(ARCH_DEFAULTS)}{hint}'
        )
    arch = {**ARCH_DEFAULTS, **settings, **member, **given}
    missing = [key for key in ('depths', 'dims', 'token_mixers') if arch[key] is None]
    if missing:
        raise UsageError(f'the arch of {family} lacks {", ".join(missing)}: give them, or a base')

    for key in ('depths', 'dims'):
        arch[key] = _positive_ints(key, arch[key])
    num_stages = len(arch['depths'])
    if arch['res_scale'] == 'last_two':
        arch['res_scale'] = [i >= num_stages - 2 for i in range(num_stages)]
    for key in STAGE_SETTINGS:
        arch[key] = _per_stage(key, arch[key], num_stages)
    for norm in arch['norm']:
        check('arch norm', norm, norm is not None, f'{", ".join(NORMS)}, or a dict: a block needs a norm')
        parse_norm(norm)
    for token_mixer in arch['token_mixers']:
        parse_cfg('token mixer', token_mixer)
    build_activation(arch['act'])
    for key, (is_valid, allowed) in ARCH_CHECKS.items():
        for value in arch[key] if key in STAGE_SETTINGS else (arch[key],):
            check(f'arch {key}', value, is_valid(value), allowed)
    if int(arch['mlp_ratio'] * min(arch['dims'])) < 1:
        raise UsageError(
            f'arch mlp_ratio={arch["mlp_ratio"]} leaves the MLP no channels of {min(arch["dims"])}: '
            'give a larger one'
        )
    arch['stem'] = _resolve_stem(arch['stem'])
    return arch


def _positive_ints(name: str, value: Any) -> tuple[int, ...]:
    """``value`` as a tuple, if it is a non-empty sequence of positive integers."""
    if not (isinstance(value, (list, tuple)) and value and all(map(is_integer, value))):
        raise UsageError(f'arch {name}={value}: give a sequence of positive integers, one for each stage')
    return tuple(value)


def _per_stage(name: str, value: Any, num_stages: int) -> tuple:
    """One value for each stage: a list or tuple is taken as it is, anything else is repeated."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,) * num_stages
    if len(values) != num_stages:
        raise UsageError(
            f'arch {name}={value} has {len(values)} entries for {num_stages} stages: '
            'give one for each stage, or a single value for all of them'
        )
    return values


def _resolve_stem(given: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """Kernel sizes, strides, paddings and inner widths of the stem's convolutions."""
    allowed = 'a dict of kernel_sizes, strides, paddings and dims, sequences of integers'
    check('arch stem', given, isinstance(given, Mapping) and {*given} <= {*STEM_LEAST}, allowed)
    stem = {**ARCH_DEFAULTS['stem'], **given}
    for key, least in STEM_LEAST.items():
        valid = isinstance(stem[key], (list, tuple)) and all(is_integer(value, least) for value in stem[key])
        check(f'arch stem {key}', stem[key], valid, f'a sequence of integers, each at least {least}')
    lengths = {len(stem[key]) for key in ('kernel_sizes', 'strides', 'paddings')} | {len(stem['dims']) + 1}
    if len(lengths) != 1 or 0 in lengths:
        raise UsageError(
            f'arch stem={stem}: give kernel_sizes, strides and paddings of the same length, and dims '
            'with one entry less'
        )
    return stem


def mixer_name(token_mixer: str | dict) -> str | None:
    """The ``type`` of a token mixer."""
    return token_mixer.get('type') if isinstance(token_mixer, dict) else token_mixer


def resolve_windows(window: Any, token_mixers: Sequence[str | dict]) -> tuple:
    """Return a window or None for each stage; a single one applies to all stages with attention.

    Args:
        window (int | Sequence | None): The backbone's argument.
        token_mixers (Sequence[str | dict]): The token mixer of each stage.

    Raises:
        UsageError: A stage without attention has a window, or the number of windows is not that of stages.
    """
    attends = [mixer_name(mixer) == 'attention' for mixer in token_mixers]
    if not isinstance(window, (list, tuple)):
        if window is not None and not any(attends):
            raise UsageError(f'window={window} without an attention mixer in any stage: leave it out')
        return tuple(window if attend else None for attend in attends)
    if len(window) != len(attends):
        raise UsageError(
            f'window={window} has {len(window)} entries for {len(attends)} stages: give one for each stage, '
            'None where there is none, or a single number for all stages with attention'
        )
    for i, (entry, attend) in enumerate(zip(window, attends, strict=True)):
        if entry is not None and not attend:
            raise UsageError(
                f'window={window}: stage {i} has no attention, its token mixer is '
                f"'{mixer_name(token_mixers[i])}'; give None there"
            )
    return tuple(window)


def resolve_strides(out_stride: Any, stem_strides: Sequence[int], num_stages: int) -> tuple[int, ...]:
    """Return the stride of each stage's output.

    Args:
        out_stride (int | None): The backbone's argument.
        stem_strides (Sequence[int]): Strides of the stem's convolutions.
        num_stages (int): Number of stages.

    Raises:
        UsageError: No stage has that stride.
    """
    strides = [prod(stem_strides) * 2**i for i in range(num_stages)]
    if out_stride is None:
        return tuple(strides)
    if type(out_stride) is not int or out_stride not in strides:
        raise UsageError(
            f'out_stride={out_stride}: choose the stride of a stage, {", ".join(map(str, strides))}'
        )
    return tuple(min(stride, out_stride) for stride in strides)


def check_out_indices(out_indices: Sequence[int], num_stages: int) -> None:
    """Check which stages are to be returned.

    Raises:
        UsageError: They are not stages, each at most once, in ascending order.
    """
    indices = list(out_indices) if isinstance(out_indices, Sequence) else None
    valid = bool(indices) and all(type(i) is int and 0 <= i < num_stages for i in indices)
    if not valid or indices != sorted(set(indices)):
        raise UsageError(
            f'out_indices={out_indices}: choose from the stages {tuple(range(num_stages))}, '
            'each at most once, in ascending order'
        )
