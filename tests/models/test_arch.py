"""Archs and arguments of backbones: valid ones build, invalid ones are refused by one sentence."""

import math
import random

import pytest
import torch

from mmmeta import models
from mmmeta.models import FAMILIES
from mmmeta.utils.errors import UsageError

NAN, INF = math.nan, math.inf
NO_NUMBER = (None, 'abc', '', (), [], {}, NAN, INF, -INF, 10**400, True, object())
NO_INTEGER = (*NO_NUMBER, 1.5, 0, -1)
NO_BOOL = (None, 'abc', '', 0, 1, NAN, (), {})
NO_CFG = (0, 3.5, [], (), {}, True, {1: 2}, 'Relu6', dict(eps=1), *(dict(type=t) for t in (None, 3, ['LN'])))
# What each key of an arch may not be.
INVALID = dict(
    base=(0, 3, [], {}, ('s12',), 's17', '', True, NAN),
    depths=(*NO_INTEGER, (1, 0, 1, 1), (1, 2.0, 1, 1), ('1',) * 4, 'abcd', (True,) * 4, (1,) * 3),
    dims=(*NO_INTEGER, (8, -8, 8, 8), (8, NAN, 8, 8), 'abcd', (8,) * 5),
    token_mixers=(
        *NO_CFG,
        ('identity',) * 3,
        ('identity', None, 'identity', 'identity'),
        *(dict(type='pooling', pool_size=value) for value in (*NO_INTEGER, 2)),
        *(dict(type='sep_conv', kernel_size=value) for value in (*NO_INTEGER, 4)),
        *(dict(type='sep_conv', expansion_ratio=value) for value in (*NO_NUMBER, 0, -2, 1e-9)),
        *(dict(type='attention', head_dim=value) for value in (*NO_INTEGER, 7)),
        *(dict(type='random_mixing', num_tokens=value) for value in (*NO_INTEGER, 50)),
    ),
    norm=(*NO_CFG, None, ('LN',) * 3, *(dict(type='LN', eps=value) for value in (*NO_NUMBER, 0, -1)), 'IN'),
    embed_norm=(*NO_CFG, *(dict(type='GN1', bias=value) for value in NO_BOOL), dict(type='BN', eps=NAN)),
    act=(
        *NO_CFG,
        None,
        *(dict(type='StarReLU', scale=value) for value in NO_NUMBER),
        *(dict(type='StarReLU', bias_learnable=value) for value in NO_BOOL),
    ),
    bias=NO_BOOL,
    mlp_ratio=(*NO_NUMBER, 0, -4, 1e-9, (4, 4, 4, 4)),
    res_scale=(*NO_BOOL, 'last', (True,) * 3, (True, 1, True, True)),
    layer_scale_init=(*(value for value in NO_NUMBER if value is not None), (1e-5, NAN, None, None)),
    pool_size=(*NO_INTEGER, 2, 4),
    head_dim=NO_INTEGER,
    stem=(
        *('', 'abc', 0, None, [], [1], NAN, dict(kernel=3), {1: 2}),
        *(dict(kernel_sizes=value) for value in (*NO_INTEGER, (0,), (NAN,), (3, 3), '7')),
        *(dict(strides=value) for value in (*NO_INTEGER, (0,), (-4,), (4.0,))),
        *(dict(paddings=value) for value in (*NO_INTEGER, (-1,), ('2',))),
        *(dict(dims=value) for value in (None, 8, 'ab', (8,), (0,), {})),
        dict(kernel_sizes=(), strides=(), paddings=()),
    ),
    unknown=(1, None),
)
# The same for arguments of the constructor.
INVALID_ARGUMENTS = dict(
    arch=(None, 0, 3.5, [], (), True, 's17', '', {1: 2}, object()),
    in_channels=NO_INTEGER,
    out_indices=(3, 'abc', (), (4,), (-1,), (1, 0), (0, 0), (0.0,), (True,), {0, 1}, NAN, ('0',)),
    frozen_stages=(7, 5, -2, 1.0, 'a', None, True, NAN, ()),
    norm_eval=(*NO_BOOL, True),
    drop_path_rate=(*NO_NUMBER, 1, 2, -0.1),
    window=(
        *(0, -1, 'a', '', 2, NAN, True, {}, [], ()),
        (3, 3),
        (None, None, 0, None),
        (3, None, None, None),
    ),
    border=(None, 'x', 3, [], ''),
    window_mode=(None, 'x', 3, {}, ''),
    backend=(None, 'x', 3, [], ''),
    with_cp=NO_BOOL,
    out_stride=(0, -8, 3, 64, 'a', 8.0, True, NAN, ()),
    output_norm=(*(cfg for cfg in NO_CFG if cfg is not True), 1, '', dict(type='LN', eps='a')),
)
KEYS = [('arch', key) for key in INVALID] + [('argument', key) for key in INVALID_ARGUMENTS]
CASES = [
    (kind, key, i)
    for kind, key in KEYS
    for i in range(len((INVALID if kind == 'arch' else INVALID_ARGUMENTS)[key]))
]


def valid_arch(rng):
    """A family and an arch of it, of up to four stages."""
    family = rng.choice(sorted(cls.__name__ for cls in FAMILIES.values()))
    num_stages = rng.randint(1, 4)

    def per_stage(choose):
        values = [choose() for _ in range(num_stages)]
        return rng.choice((values[0], values, tuple(values)))

    def mixer():
        name = rng.choice(('identity', 'pooling', 'sep_conv', 'attention'))
        options = dict(
            pooling=dict(pool_size=rng.choice((1, 3, 5))),
            sep_conv=dict(kernel_size=rng.choice((1, 3, 7)), expansion_ratio=rng.choice((0.5, 1, 2.0))),
            attention=dict(head_dim=rng.choice((8, 16))),
            random_mixing=dict(num_tokens=rng.choice((1, 4, 49))),
        )
        name = rng.choice((name, 'random_mixing'))
        return dict(type=name, **options.get(name, {}))

    def norm():
        name = rng.choice(('LN', 'GN1', 'BN'))
        return rng.choice((name, dict(type=name, eps=rng.choice((1e-6, 1e-3, 1)), bias=rng.random() < 0.5)))

    count = rng.randint(1, 3)
    keys = dict(
        norm=per_stage(norm),
        embed_norm=rng.choice((None, norm())),
        act=rng.choice(
            ('StarReLU', 'SquaredReLU', 'ReLU', 'GELU', 'SiLU', dict(type='StarReLU', bias_learnable=False))
        ),
        bias=rng.random() < 0.5,
        mlp_ratio=rng.choice((0.5, 1, 2.5, 4)),
        res_scale=rng.choice(('last_two', per_stage(lambda: rng.random() < 0.5))),
        layer_scale_init=per_stage(lambda: rng.choice((None, 0, 1e-5, 1))),
        pool_size=rng.choice((1, 3, 7)),
        head_dim=rng.choice((8, 16)),
        stem=dict(
            kernel_sizes=[rng.choice((1, 3, 7)) for _ in range(count)],
            strides=[rng.choice((1, 2)) for _ in range(count)],
            paddings=[rng.choice((0, 1, 3)) for _ in range(count)],
            dims=[rng.choice((1, 8)) for _ in range(count - 1)],
        ),
    )
    required = dict(
        depths=[rng.randint(1, 3) for _ in range(num_stages)],
        dims=[16 * rng.randint(1, 3) for _ in range(num_stages)],
        token_mixers=per_stage(mixer),
    )
    return family, {**required, **{key: value for key, value in keys.items() if rng.random() < 0.5}}


def invalid(case, rng):
    """A family and arguments with one invalid value."""
    kind, key, i = case
    base = 's12'
    family = 'PoolFormer'
    value = (INVALID if kind == 'arch' else INVALID_ARGUMENTS)[key][i]
    if key in ('head_dim', 'window', 'out_stride', 'border', 'window_mode', 'backend') or rng.random() < 0.5:
        base, family = 's18', 'CAFormer'
    if kind == 'arch':
        return family, dict(arch={'base': base, key: value})
    if key == 'norm_eval' and value is True:  # without batch norms
        family, base = 'PoolFormer', 's12'
    return family, {'arch': base, key: value}


def check_refusals(cases, seed):
    rng = random.Random(seed)
    for case in cases:
        family, arguments = invalid(case, rng)
        with torch.device('meta'), pytest.raises(UsageError) as caught:
            raise AssertionError((case, getattr(models, family)(**arguments).arch))
        assert '\n' not in str(caught.value), case


def check_buildable(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        family, arch = valid_arch(rng)
        with torch.device('meta'):
            model = getattr(models, family)(arch, in_channels=rng.choice((1, 3, 4)))
        assert len(model.stages) == len(arch['depths'])


def test_invalid_values_are_refused():
    check_refusals(random.Random(0).sample(CASES, 200), 0)


def test_valid_archs_are_built():
    check_buildable(200, 0)


@pytest.mark.nightly
def test_all_invalid_values_are_refused():
    for seed in range(4):
        check_refusals(CASES, seed)


@pytest.mark.nightly
def test_thousands_of_valid_archs_are_built():
    check_buildable(3000, 1)
