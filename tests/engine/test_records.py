"""What of a config was changed, and where a run came from."""

import subprocess

from conftest import ROOT

from mmmeta.engine.records import collect_versions, diff_configs, flatten, get_commit


def test_leaves_have_the_keys_of_cfg_options():
    config = dict(
        model=dict(type='A', sizes=(1, 2)),
        pipeline=[dict(type='B'), dict(type='C', scales=[(1, 2), (3, 4)])],
        steps=[8, 11],
    )
    assert flatten(config) == {
        'model.type': 'A',
        'model.sizes': [1, 2],
        'pipeline.0.type': 'B',
        'pipeline.1.type': 'C',
        'pipeline.1.scales.0': [1, 2],
        'pipeline.1.scales.1': [3, 4],
        'steps': [8, 11],
    }


def test_changes():
    before = dict(a=1, b=dict(c=(1, 2), d='x'), e=[dict(f=1)])
    assert diff_configs(before, dict(a=1, b=dict(c=[1, 2], d='x'), e=[dict(f=1)])) == {}
    after = dict(a=2, b=dict(c=[1, 2]), e=[dict(f=1), dict(f=2)])
    assert diff_configs(before, after) == {'a': 2, 'b.d': None, 'e.1.f': 2}


def test_a_section_that_was_emptied_is_a_change():
    assert diff_configs(dict(a=dict(b=1)), dict(a={})) == {'a.b': None}


def test_origin():
    versions = collect_versions()
    assert {'python', 'torch', 'mmengine', 'mmmeta'} <= set(versions)
    command = ['git', '-C', str(ROOT), 'rev-parse', '--short=12', 'HEAD']
    head = subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    assert (get_commit() or '').removesuffix('-dirty') == (head or '')
