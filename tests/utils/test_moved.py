"""Former paths of modules."""

import re
from importlib import import_module
from importlib.util import find_spec

import pytest

from mmmeta.utils.moved import PRIVATE, PUBLIC

# The public names of rooms that moved as a whole.
FACES = {
    'mmmeta.apis.checking': (
        *('SAMPLE', 'Finding', 'check', 'check_config', 'check_dataset', 'check_while_reading'),
        *('name_damaged_maps', 'our_backbone'),
    ),
    'mmmeta.apis.creating': ('METHODS', 'Created', 'new'),
    'mmmeta.apis.swapping': ('swap',),
    'mmmeta.deploy.runtime': ('Description', 'Network', 'Prediction', 'RuntimeProblem', 'load'),
    'mmmeta.errors': ('UsageError',),
}


@pytest.mark.parametrize('old', PUBLIC)
def test_public_ones_work_and_warn(old, monkeypatch):
    monkeypatch.delitem(import_module('sys').modules, old, raising=False)
    new = PUBLIC[old]
    with pytest.warns(DeprecationWarning, match=re.escape(f"'{old}' has moved") + '.*' + re.escape(new)):
        module = import_module(old)
    for name in FACES.get(old, ()):
        assert getattr(module, name) is getattr(import_module(new), name)


@pytest.mark.parametrize('old', [*PRIVATE, 'mmmeta.apis.checking.labels'])
def test_others_name_the_new_path(old):
    new = PRIVATE.get(old, 'mmmeta.validation.labels')
    with pytest.raises(ModuleNotFoundError, match=re.escape(f"'{old}' has moved: import '{new}'")):
        import_module(old)
    assert find_spec(new)


def test_a_module_that_never_was_is_missing_as_ever():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'mmmeta\.apis\.nothing'"):
        import_module('mmmeta.apis.nothing')
