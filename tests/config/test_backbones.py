"""Backbones as command lines name them."""

import contextlib
import random

import pytest

from mmmeta.config.backbones import backbone_config
from mmmeta.utils.errors import UsageError

REFUSED = "': arguments are names and Python values, each name once, such as window=13 or border='truncate'"


@pytest.mark.parametrize(
    'arguments',
    [
        *('window=13) + f(a=1', 'window=13)(border=1', 'window=13) #', 'window=13, window=7', '**{}', '*[1]'),
        *('window=print(1)', 'window={[]: 1}', 'window=1 if 1 else 2', 'window="\0"', 'window', '', '('),
        *('window=' + '(' * 10**4, 'window=' + '-' * 10**5 + '1', 'window=' + '9' * 10**5, 'window=\ud800'),
    ],
    ids=lambda arguments: ascii(arguments[:20]),
)
def test_arguments_that_are_something_else_are_refused(arguments):
    with pytest.raises(UsageError) as error:
        backbone_config(f'caformer_s18,{arguments}')
    assert str(error.value) == f"'caformer_s18,{arguments}{REFUSED}"


def test_hostile_specifications_evaluate_nothing(monkeypatch):
    """Whatever tokens stand in it: a config of plain values, or one sentence."""
    monkeypatch.setattr('builtins.eval', lambda *_: pytest.fail('evaluated'))
    tokens = [
        *('caformer_s18', 'poolformer_s12', 'mmmeta://', 'timm/', 'window', 'act', 'depths', 'é', 'a', 'x=1'),
        *(',', '=', '(', ')', '[', ']', '{', '}', '+', '-', '*', '**', '.', ':', ':=', '#', '\n', '\\', '\0'),
        *('13', '1e999', '1j', 'None', "'GELU'", '[1, 2]', "b'x'", '...', '"', "'", ' if ', ' for i in x'),
        *('f(', 'lambda: 0', 'yield', '__import__("os")', 'pytest.fail()', '{}', '%s', '9' * 5000, '\ud800'),
    ]
    draw = random.Random(0)
    for _ in range(3000):
        start = draw.choice(['', 'caformer_s18,', 'caformer_s18,window=', 'mmmeta://caformer_s18,act='])
        spec = start + ''.join(draw.choices(tokens, k=draw.randint(0, 8)))
        with contextlib.suppress(UsageError):
            assert backbone_config(spec)['type'].startswith('mmmeta.')
