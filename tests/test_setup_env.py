"""The set-up of the environment; nothing is installed here."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT


def load():
    """tools/setup_env.py as a module."""
    spec = importlib.util.spec_from_file_location('setup_env', ROOT / 'tools/setup_env.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def setup_env(tmp_path, monkeypatch):
    """tools/setup_env.py on an empty checkout, with pip and the compiler recorded instead of run."""
    module = load()
    venv = tmp_path / '.venv'
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    monkeypatch.setattr(module, 'VENV', venv)
    monkeypatch.setattr(module, 'STATE', venv / 'setup.json')
    monkeypatch.setattr(module, 'CACHE', tmp_path / '.cache')
    monkeypatch.setattr(module, 'NEEDED_GB', 0)
    module.calls = []
    wheel = tmp_path / 'mmcv-2.1.0.whl'
    monkeypatch.setattr(
        module, 'make_venv', lambda python, state: (venv.mkdir(), module.calls.append('venv'))
    )
    monkeypatch.setattr(module, 'starts', lambda: True)
    monkeypatch.setattr(module, 'pip', lambda *arguments: module.calls.append(f'pip {arguments[0]}'))
    monkeypatch.setattr(
        module, 'build_mmcv', lambda rebuild=False: module.calls.append(f'compile {rebuild}') or wheel
    )
    monkeypatch.setattr(module, 'prove_mmcv', lambda: True)
    return module


INSTALL = ['pip install', 'compile False', 'compile False', 'pip install', 'pip install']
OTHERS = ['pip install', 'pip install', 'pip check']


def test_builds_once(setup_env, capsys):
    assert setup_env.main() == 0
    assert setup_env.calls == ['venv', *INSTALL, *OTHERS]
    assert 'compiling MMCV, 1 or 2 minutes on two cores' in capsys.readouterr().out
    setup_env.calls.clear()
    assert setup_env.main() == 0
    assert setup_env.calls == []
    assert capsys.readouterr().out == ''


class TestChangedRequirements:
    @pytest.fixture
    def outdated(self, setup_env, tmp_path, monkeypatch):
        """A complete environment with a file of its user's, and requirements that changed since."""
        assert setup_env.main() == 0
        setup_env.calls.clear()
        (setup_env.VENV / 'precious').touch()
        (tmp_path / 'requirements').mkdir()
        (tmp_path / 'requirements/new.txt').write_text('new==1\n')
        monkeypatch.setattr(setup_env, 'REQUIREMENTS', tmp_path / 'requirements')
        return setup_env

    def test_update_in_place(self, outdated, capsys):
        capsys.readouterr()
        assert outdated.main() == 0
        assert outdated.calls == [*INSTALL, *OTHERS]
        assert 'the requirements have changed: updating .venv in place' in capsys.readouterr().out
        assert (outdated.VENV / 'precious').exists()
        outdated.calls.clear()
        assert outdated.main() == 0
        assert outdated.calls == []

    def test_a_failed_update_goes_on(self, outdated, monkeypatch, capsys):
        def fail():
            raise outdated.SetupError('no network')

        install_others = outdated.install_others
        monkeypatch.setattr(outdated, 'install_others', fail)
        assert outdated.main() == 1
        monkeypatch.setattr(outdated, 'install_others', install_others)
        outdated.calls.clear()
        assert outdated.main() == 0
        assert outdated.calls == OTHERS
        assert (outdated.VENV / 'precious').exists()

    def test_an_interrupted_update_asks_for_a_rebuild(self, outdated, monkeypatch, capsys):
        def interrupted():
            raise KeyboardInterrupt

        monkeypatch.setattr(outdated, 'install_torch', interrupted)
        assert outdated.main() == 130
        capsys.readouterr()
        assert outdated.main() == 1
        error = capsys.readouterr().err
        assert error.startswith('error: an update of .venv was interrupted') and error.count('\n') == 1
        assert 'call `make clean setup`' in error
        assert (outdated.VENV / 'precious').exists()

    def test_an_interpreter_that_is_gone(self, outdated, monkeypatch, capsys):
        script = load()
        for name in ('VENV', 'VENV_PYTHON'):
            monkeypatch.setattr(script, name, getattr(outdated, name))
        monkeypatch.setattr(outdated, 'starts', script.starts)
        assert outdated.main() == 1
        assert 'does not start, or is not at home in' in capsys.readouterr().err
        assert outdated.calls == []

    def test_a_link_is_left_alone(self, outdated, tmp_path, capsys):
        outdated.VENV.rename(tmp_path / 'elsewhere')
        outdated.VENV.symlink_to(tmp_path / 'elsewhere')
        assert outdated.main() == 1
        assert 'is a link to' in capsys.readouterr().err
        assert outdated.calls == []
        assert (tmp_path / 'elsewhere/precious').exists()


def test_a_link_to_an_environment_that_is_up_to_date(setup_env, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    setup_env.VENV.symlink_to(tmp_path / 'elsewhere')
    python = sys.executable
    setup_env.write_state(dict(python=python, fingerprint=setup_env.fingerprint(python), done=[], ready=True))
    assert setup_env.main() == 0
    assert setup_env.calls == []


@pytest.mark.parametrize('kind', ['file', 'dangling', 'loop', 'venv', 'empty', 'garbage', 'list'])
def test_what_this_script_did_not_make_is_left_alone(kind, setup_env, tmp_path, capsys):
    venv = setup_env.VENV
    if kind == 'file':
        venv.write_text('mine')
    elif kind in ('dangling', 'loop'):
        venv.symlink_to(venv if kind == 'loop' else tmp_path / 'nowhere')
    else:
        (venv / 'bin').mkdir(parents=True)
        states = dict(empty='', garbage='{', list='[1]')
        if kind in states:
            setup_env.STATE.write_text(states[kind])
    assert setup_env.main() == 1
    error = capsys.readouterr().err
    assert error.startswith(f'error: {venv} is not an environment that this set-up made, and is left alone')
    assert error.count('\n') == 1
    assert setup_env.calls == []
    assert os.path.lexists(venv)


def test_interrupted_while_pip_ran_starts_with_an_empty_environment(setup_env, monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    install_others = setup_env.install_others
    monkeypatch.setattr(setup_env, 'install_others', interrupted)
    assert setup_env.main() == 130
    assert 'interrupted; the next call continues' in capsys.readouterr().err
    monkeypatch.setattr(setup_env, 'install_others', install_others)
    setup_env.calls.clear()
    assert setup_env.main() == 0
    assert setup_env.calls == ['venv', *INSTALL, *OTHERS]


def test_interrupted_while_compiling_goes_on_there(setup_env, monkeypatch):
    build_mmcv = setup_env.build_mmcv

    def interrupted(rebuild=False):
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
        'compile False',
        'compile False',
        'compile True',
    ]
    assert 'the operators of this MMCV do not run: compiling each of its sources' in capsys.readouterr().out


def test_a_step_that_fails_says_so(setup_env, monkeypatch, capsys):
    def fail(*arguments):
        setup_env.run(['false', 'a', 'b'])

    monkeypatch.setattr(setup_env, 'pip', fail)
    assert setup_env.main() == 1
    assert capsys.readouterr().err.startswith('error: a b failed (exit status 1); see the output above')


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


def test_half_an_environment_is_built_anew(setup_env, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    make_venv = load()
    with monkeypatch.context() as patch:
        for name in ('ROOT', 'VENV', 'STATE', 'NEEDED_GB', 'check_compiler'):
            patch.setattr(make_venv, name, getattr(setup_env, name))
        patch.setattr(make_venv, 'check_compiler', lambda: None)
        patch.setattr(setup_env, 'make_venv', make_venv.make_venv)
        run = setup_env.subprocess.run
        patch.setattr(
            subprocess,
            'run',
            lambda command, **options: (interrupted if 'venv' in command else run)(command, **options),
        )
        assert setup_env.main() == 130
    assert setup_env.VENV.exists()
    assert setup_env.main() == 0
    assert setup_env.calls[0] == 'venv'
    assert 'the first set-up of the environment was interrupted: building it' in capsys.readouterr().out


def test_no_compiler(monkeypatch, tmp_path, capsys):
    module = load()
    monkeypatch.setattr(module, 'VENV', tmp_path / '.venv')
    monkeypatch.setattr(module, 'NEEDED_GB', 0)
    monkeypatch.setenv('CXX', 'no-such-compiler -O3')
    with pytest.raises(module.SetupError, match="no C.. compiler 'no-such-compiler -O3' on PATH"):
        module.make_venv(sys.executable, {})
    assert not module.VENV.exists()
    monkeypatch.delenv('CXX')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(module.SetupError, match="no C.. compiler 'c..' on PATH: install one"):
        module.check_compiler()


def test_sources_are_grouped(tmp_path):
    module = load()
    operators = tmp_path / 'mmcv/ops/csrc/pytorch'
    (operators / 'cpu').mkdir(parents=True)
    names = ('nms.cpp', 'roi_align.cpp')
    for path in [operators / name for name in names] + [operators / 'cpu' / name for name in names]:
        path.write_text(f'// {path.name}')
    module.group_sources(tmp_path)
    left = sorted(path.relative_to(operators).as_posix() for path in operators.glob('**/*.cpp'))
    assert left == [
        'all.cpp',
        'cpu/all.cpp',
        'cpu/grouped/nms.cpp',
        'cpu/roi_align.cpp',
        'grouped/nms.cpp',
        'grouped/roi_align.cpp',
    ]
    assert (operators / 'all.cpp').read_text().splitlines() == [
        '#include <torch/extension.h>',
        '#include "grouped/nms.cpp"',
        '#include "grouped/roi_align.cpp"',
    ]
    assert '#include "grouped/nms.cpp"' in (operators / 'cpu/all.cpp').read_text()


class TestCompiling:
    @pytest.fixture
    def module(self, tmp_path, monkeypatch):
        """tools/setup_env.py with the attempts to compile recorded; those in ``fails`` fail."""
        module = load()
        monkeypatch.setattr(module, 'CACHE', tmp_path)
        monkeypatch.setattr(module, 'probe_torch', lambda: ('py11-torch2-cpu', False))
        monkeypatch.setattr(module, 'check_compiler', lambda: None)
        module.attempts, module.fails = [], set()

        def compile_mmcv(folder, cuda, grouped, rebuild=False):
            module.attempts.append((grouped, rebuild))
            if grouped in module.fails:
                raise module.SetupError('MMCV could not be compiled')
            folder.mkdir()
            (folder / 'mmcv-2.1.0.whl').touch()
            return folder / 'mmcv-2.1.0.whl'

        monkeypatch.setattr(module, 'compile_mmcv', compile_mmcv)
        return module

    def test_grouped_and_once(self, module, tmp_path):
        for _ in range(2):
            assert module.build_mmcv() == tmp_path / 'mmcv-py11-torch2-cpu/mmcv-2.1.0.whl'
        assert module.attempts == [(True, False)]

    def test_each_by_itself_where_that_fails(self, module, capsys):
        module.fails = {True}
        assert module.build_mmcv().name == 'mmcv-2.1.0.whl'
        assert module.attempts == [(True, False), (False, False)]
        output = capsys.readouterr().out
        assert 'MMCV does not compile with its sources grouped (see ' in output
        assert output.count('\n') == 1

    def test_neither(self, module):
        module.fails = {True, False}
        with pytest.raises(module.SetupError, match='MMCV could not be compiled'):
            module.build_mmcv()

    def test_anew(self, module):
        module.build_mmcv(rebuild=True)
        assert module.attempts == [(False, True)]

    def test_with_cuda(self, module, monkeypatch):
        monkeypatch.setattr(module, 'probe_torch', lambda: ('py11-torch2-cuda', True))
        module.build_mmcv()
        assert module.attempts == [(False, False)]


def test_the_proof_runs_here():
    pytest.importorskip('mmcv.ops', reason='this MMCV has no operators')
    proof = load().PROOF
    variants = [
        proof,
        proof.replace('[3, 0, 4]', '[3, 0]'),
        proof.replace('entries - set', '{"an_entry"} | entries - set'),
        proof.replace('conv2d(x, weight, padding=1)', 'conv2d(x, weight, padding=1) + 0.1'),
    ]
    assert len(set(variants)) == 4
    code = (
        f'for variant in {variants}:\n'
        '    try:\n'
        '        print(exec(variant, {}))\n'
        '    except AssertionError as error:\n'
        '        print(repr(error))\n'
    )
    env = dict(os.environ, CUDA_VISIBLE_DEVICES='')
    output = subprocess.run([sys.executable, '-c', code, 'cpu'], env=env, capture_output=True, text=True)
    found = output.stdout.splitlines()
    assert found[0] == 'None', output.stderr
    assert found[1] == "AssertionError(('cpu', tensor([3, 0, 4])))"
    assert found[2] == """AssertionError("mmcv._ext has no ['an_entry']")"""
    assert 'Tensor-likes are not close' in found[3]
