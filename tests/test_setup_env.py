"""The set-up of the environment; nothing is installed here."""

import importlib.util
import json
import os

import pytest
from conftest import ROOT


@pytest.fixture
def setup_env(tmp_path, monkeypatch):
    """tools/setup_env.py on an empty checkout, with pip and the compiler recorded instead of run."""
    spec = importlib.util.spec_from_file_location('setup_env', ROOT / 'tools/setup_env.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    venv = tmp_path / '.venv'
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    monkeypatch.setattr(module, 'VENV', venv)
    monkeypatch.setattr(module, 'STATE', venv / 'setup.json')
    monkeypatch.setattr(module, 'CACHE', tmp_path / '.cache')
    monkeypatch.setattr(module, 'NEEDED_GB', 0)
    module.calls = []
    wheel = tmp_path / 'mmcv-2.1.0.whl'
    monkeypatch.setattr(module, 'make_venv', lambda python: (venv.mkdir(), module.calls.append('venv')))
    monkeypatch.setattr(module, 'pip', lambda *arguments: module.calls.append(f'pip {arguments[0]}'))
    monkeypatch.setattr(
        module, 'build_mmcv', lambda use_cache=True: module.calls.append(f'compile {use_cache}') or wheel
    )
    monkeypatch.setattr(module, 'prove_mmcv', lambda: True)
    return module


INSTALL = ['pip install', 'compile True', 'compile True', 'pip install', 'pip install']
OTHERS = ['pip install', 'pip install', 'pip check']


def test_builds_once(setup_env, capsys):
    assert setup_env.main() == 0
    assert setup_env.calls == ['venv', *INSTALL, *OTHERS]
    assert 'compiling MMCV with its operators, about' in capsys.readouterr().out
    setup_env.calls.clear()
    assert setup_env.main() == 0
    assert setup_env.calls == []
    assert capsys.readouterr().out == ''


def test_changed_requirements_build_again(setup_env, tmp_path, monkeypatch):
    setup_env.main()
    setup_env.calls.clear()
    (tmp_path / 'requirements').mkdir()
    (tmp_path / 'requirements/new.txt').write_text('new==1\n')
    monkeypatch.setattr(setup_env, 'REQUIREMENTS', tmp_path / 'requirements')
    setup_env.main()
    assert setup_env.calls[0] == 'venv'


def test_interrupted_while_pip_ran_starts_with_an_empty_environment(setup_env, monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    install_others = setup_env.install_others
    monkeypatch.setattr(setup_env, 'install_others', interrupted)
    assert setup_env.main() == 130
    assert 'interrupted; the next call goes on' in capsys.readouterr().err
    monkeypatch.setattr(setup_env, 'install_others', install_others)
    setup_env.calls.clear()
    assert setup_env.main() == 0
    assert setup_env.calls == ['venv', *INSTALL, *OTHERS]


def test_interrupted_while_compiling_goes_on_there(setup_env, monkeypatch):
    build_mmcv = setup_env.build_mmcv

    def interrupted(use_cache=True):
        raise KeyboardInterrupt

    monkeypatch.setattr(setup_env, 'build_mmcv', interrupted)
    assert setup_env.main() == 130
    assert setup_env.calls == ['venv', 'pip install']
    assert json.loads(setup_env.STATE.read_text())['done'] == ['torch']
    monkeypatch.setattr(setup_env, 'build_mmcv', build_mmcv)
    setup_env.calls.clear()
    assert setup_env.main() == 0
    assert setup_env.calls == [*INSTALL[1:], *OTHERS]


def test_an_mmcv_that_does_not_run_is_compiled_anew(setup_env, monkeypatch, capsys):
    proofs = iter([False, True])
    monkeypatch.setattr(setup_env, 'prove_mmcv', lambda: next(proofs))
    assert setup_env.main() == 0
    assert [call for call in setup_env.calls if call.startswith('compile')] == [
        'compile True',
        'compile True',
        'compile False',
    ]
    assert 'the operators of this MMCV do not run' in capsys.readouterr().out


def test_a_step_that_fails_says_so(setup_env, monkeypatch, capsys):
    def fail(*arguments):
        setup_env.run(['false', 'a', 'b'])

    monkeypatch.setattr(setup_env, 'pip', fail)
    assert setup_env.main() == 1
    assert capsys.readouterr().err.startswith('error: a b failed (exit status 1); the reason stands above')


def test_no_python_that_fits(setup_env, monkeypatch, tmp_path, capsys):
    fake = tmp_path / 'python'
    fake.write_text('#!/bin/sh\necho 3.13 True\n')
    fake.chmod(0o755)
    monkeypatch.setenv('PYTHON', str(fake))
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(setup_env.sys, 'executable', str(fake))
    assert setup_env.main() == 1
    assert capsys.readouterr().err == (
        'error: Python 3.10, 3.11 or 3.12 is needed (found 3.13): install one, or set PYTHON=/path/to/it\n'
    )
    fake.write_text('#!/bin/sh\necho 3.11 False\n')
    assert setup_env.main() == 1
    assert f'{fake} has no Python.h, which compiling MMCV needs' in capsys.readouterr().err


def test_the_proof_runs_here():
    pytest.importorskip('mmcv.ops', reason='this MMCV has no operators')
    import subprocess
    import sys

    spec = importlib.util.spec_from_file_location('setup_env', ROOT / 'tools/setup_env.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    env = dict(os.environ, CUDA_VISIBLE_DEVICES='')
    assert subprocess.run([sys.executable, '-c', module.PROOF, 'cpu'], env=env).returncode == 0
    wrong = module.PROOF.replace('[3, 0, 4]', '[3, 0]')
    assert subprocess.run([sys.executable, '-c', wrong, 'cpu'], env=env, capture_output=True).returncode == 1
