"""The set-up of the environment; nothing is installed here."""

import dataclasses
import errno
import functools
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
from conftest import ROOT


def load():
    """tools/setup_env.py as a module, with an mmcv_wheel of its own."""
    modules = []
    for name in ('mmcv_wheel', 'setup_env'):
        spec = importlib.util.spec_from_file_location(name, ROOT / f'tools/{name}.py')
        modules.append(importlib.util.module_from_spec(spec))
        with mock.patch.dict(sys.modules, mmcv_wheel=modules[0]):
            spec.loader.exec_module(modules[-1])
    return modules[1]


@pytest.fixture
def setup_env(tmp_path, monkeypatch):
    """tools/setup_env.py on an empty checkout, with pip and the compiler recorded instead of run."""
    module = load()
    venv = tmp_path / '.venv'
    for part in (module, module.mmcv_wheel):
        monkeypatch.setattr(part, 'ROOT', tmp_path)
        monkeypatch.setattr(part, 'CACHE', tmp_path / '.cache')
    monkeypatch.setattr(module, 'VENV', venv)
    monkeypatch.setattr(module, 'VENV_PYTHON', venv / 'bin/python')
    monkeypatch.setattr(module, 'STATE', venv / 'setup.json')
    monkeypatch.setattr(module, 'NEEDED_GB', 0)
    module.calls, module.proofs, module.torch = [], iter(()), torch_of()
    wheel = tmp_path / 'mmcv-2.1.0.whl'
    wheel.touch()

    def make_venv(python, state):
        venv.mkdir()
        module.write_state(state)
        module.calls.append('venv')

    def build_wheel(torch, archs, source, anew=False):
        module.calls.append(' '.join(('compile', source, *archs, *(['anew'] if anew else []))))
        return wheel

    monkeypatch.setattr(module, 'make_venv', make_venv)
    monkeypatch.setattr(module, 'starts', lambda: True)
    monkeypatch.setattr(module, 'pip', lambda *arguments: module.calls.append(f'pip {arguments[0]}'))
    monkeypatch.setattr(module.mmcv_wheel, 'probe_torch', functools.cache(lambda executable: module.torch))
    monkeypatch.setattr(module.mmcv_wheel, 'build_wheel', build_wheel)
    monkeypatch.setattr(module, 'prove_wheel', lambda wheel, devices: next(module.proofs, True))
    monkeypatch.setattr(module.mmcv_wheel, 'unusable_gpu', lambda: None)
    return module


def torch_of(version='2.12.1+cu130', cuda='13.0', archs=(), hip=None, home=None, python='3.11'):
    """What a PyTorch says of itself."""
    return load().mmcv_wheel.Torch(Path('python'), python, version, cuda, hip, home, '/site', archs)


COMPILE = 'compile mmcv==2.1.0'
OTHERS, MMCV = ['pip install', 'pip uninstall', 'pip install'], ['pip install', 'pip check']
INSTALL = ['pip install', *OTHERS, COMPILE, *MMCV]


def test_builds_once(setup_env, capsys):
    assert setup_env.main({}) == 0
    assert setup_env.calls == ['venv', *INSTALL]
    assert 'compiling MMCV and running it, 1 minute on two cores' in capsys.readouterr().out
    setup_env.calls.clear()
    assert setup_env.main({}) == 0
    assert setup_env.calls == []
    assert capsys.readouterr().out == ''


class TestChangedRequirements:
    @pytest.fixture
    def outdated(self, setup_env, tmp_path, monkeypatch):
        """A complete environment with a file of its user's, and requirements that changed since."""
        assert setup_env.main({}) == 0
        setup_env.calls.clear()
        (setup_env.VENV / 'precious').touch()
        shutil.copytree(ROOT / 'requirements', tmp_path / 'requirements')
        (tmp_path / 'requirements/new.txt').write_text('new==1\n')
        monkeypatch.setattr(setup_env, 'REQUIREMENTS', tmp_path / 'requirements')
        return setup_env

    def test_update_in_place(self, outdated, capsys):
        capsys.readouterr()
        assert outdated.main({}) == 0
        assert outdated.calls == INSTALL
        assert 'the requirements have changed: updating .venv in place' in capsys.readouterr().out
        assert (outdated.VENV / 'precious').exists()
        outdated.calls.clear()
        assert outdated.main({}) == 0
        assert outdated.calls == []

    def test_a_failed_update_goes_on(self, outdated, monkeypatch, capsys):
        def fail(options):
            raise outdated.SetupError('no network')

        install_others = outdated.install_others
        monkeypatch.setattr(outdated, 'install_others', fail)
        assert outdated.main({}) == 1
        monkeypatch.setattr(outdated, 'install_others', install_others)
        outdated.calls.clear()
        assert outdated.main({}) == 0
        assert outdated.calls == [*OTHERS, COMPILE, *MMCV]
        assert (outdated.VENV / 'precious').exists()

    def test_an_interrupted_update_asks_for_a_rebuild(self, outdated, monkeypatch, capsys):
        monkeypatch.setattr(outdated, 'install_torch', interrupted)
        assert outdated.main({}) == 130
        capsys.readouterr()
        assert outdated.main({}) == 1
        error = capsys.readouterr().err
        assert error.startswith('error: an update of .venv was interrupted') and error.count('\n') == 1
        assert 'call `make clean setup`' in error
        assert (outdated.VENV / 'precious').exists()

    def test_an_interpreter_that_is_gone(self, outdated, monkeypatch, capsys):
        script = load()
        for name in ('VENV', 'VENV_PYTHON'):
            monkeypatch.setattr(script, name, getattr(outdated, name))
        monkeypatch.setattr(outdated, 'starts', script.starts)
        assert outdated.main({}) == 1
        assert 'does not start, or is not at home in' in capsys.readouterr().err
        assert outdated.calls == []

    def test_a_link_is_left_alone(self, outdated, tmp_path, capsys):
        outdated.VENV.rename(tmp_path / 'elsewhere')
        outdated.VENV.symlink_to(tmp_path / 'elsewhere')
        assert outdated.main({}) == 1
        assert 'is a link to' in capsys.readouterr().err
        assert outdated.calls == []
        assert (tmp_path / 'elsewhere/precious').exists()


def test_a_link_to_an_environment_that_is_up_to_date(setup_env, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    setup_env.VENV.symlink_to(tmp_path / 'elsewhere')
    python = sys.executable
    setup_env.write_state(dict(python=python, fingerprint=setup_env.fingerprint(python), done=[], ready=True))
    assert setup_env.main({}) == 0
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
    assert setup_env.main({}) == 1
    error = capsys.readouterr().err
    assert error.startswith(f'error: {venv} is not an environment that this set-up made, and is left alone')
    assert error.count('\n') == 1
    assert setup_env.calls == []
    assert os.path.lexists(venv)


def test_interrupted_while_pip_ran_starts_with_an_empty_environment(setup_env, monkeypatch, capsys):
    install_others = setup_env.install_others
    monkeypatch.setattr(setup_env, 'install_others', interrupted)
    assert setup_env.main({}) == 130
    assert 'interrupted; the next call continues' in capsys.readouterr().err
    monkeypatch.setattr(setup_env, 'install_others', install_others)
    setup_env.calls.clear()
    assert setup_env.main({}) == 0
    assert setup_env.calls == ['venv', *INSTALL]


def test_interrupted_while_compiling_goes_on_there(setup_env, monkeypatch):
    build_mmcv = setup_env.build_mmcv
    monkeypatch.setattr(setup_env, 'build_mmcv', interrupted)
    assert setup_env.main({}) == 130
    assert setup_env.calls == ['venv', 'pip install', *OTHERS]
    assert json.loads(setup_env.STATE.read_text())['done'] == ['torch', 'others']
    monkeypatch.setattr(setup_env, 'build_mmcv', build_mmcv)
    setup_env.calls.clear()
    assert setup_env.main({}) == 0
    assert setup_env.calls == [COMPILE, *MMCV]


def test_a_wheel_that_is_gone_is_compiled_anew(setup_env, monkeypatch, tmp_path):
    install_mmcv = setup_env.install_mmcv
    monkeypatch.setattr(setup_env, 'install_mmcv', interrupted)
    assert setup_env.main({}) == 130
    (tmp_path / 'mmcv-2.1.0.whl').unlink()
    state = json.loads(setup_env.STATE.read_text())
    setup_env.write_state(dict(state, running=None))
    setup_env.calls.clear()
    monkeypatch.setattr(setup_env, 'install_mmcv', install_mmcv)
    assert setup_env.main({}) == 0
    assert setup_env.calls == [COMPILE, *MMCV]


def test_an_mmcv_that_does_not_run_is_compiled_anew_and_not_installed(setup_env, capsys):
    setup_env.proofs = iter([False, True])
    assert setup_env.main({}) == 0
    assert setup_env.calls[-4:] == [COMPILE, f'{COMPILE} anew', *MMCV]
    assert 'the operators of this MMCV do not run: compiling each of its sources' in capsys.readouterr().out


def test_an_mmcv_that_never_runs(setup_env, capsys):
    setup_env.proofs = iter([False, False])
    assert setup_env.main({}) == 1
    assert setup_env.calls[-2:] == [COMPILE, f'{COMPILE} anew']
    assert 'the operators of MMCV do not run after compiling it: see' in capsys.readouterr().err


class TestGPUs:
    def test_a_gpu_gets_cuda_operators(self, setup_env):
        setup_env.torch = torch_of(archs=('8.6', '9.0'))
        assert setup_env.main({}) == 0
        assert [call for call in setup_env.calls if 'compile' in call] == [f'{COMPILE} 8.6 9.0']

    def test_those_of_cpus_where_that_fails(self, setup_env, capsys):
        setup_env.torch = torch_of(archs=('9.0',))
        setup_env.proofs = iter([False, False, True])
        assert setup_env.main({}) == 0
        compiled = [call for call in setup_env.calls if 'compile' in call]
        assert compiled == [f'{COMPILE} 9.0', f'{COMPILE} 9.0 anew', COMPILE]
        assert 'MMCV gets its CPU operators only: no detector runs on the GPU' in capsys.readouterr().out

    def test_not_where_they_are_demanded(self, setup_env, capsys):
        setup_env.proofs = iter([False, False])
        assert setup_env.main(dict(archs='9.0')) == 1
        assert [call for call in setup_env.calls if 'compile' in call] == [
            f'{COMPILE} 9.0',
            f'{COMPILE} 9.0 anew',
        ]

    def test_asked_for_later(self, setup_env, capsys):
        """Only MMCV is installed again, and the next call keeps it."""
        assert setup_env.main({}) == 0
        setup_env.calls.clear()
        assert setup_env.main(dict(cuda='1', archs='9.0')) == 0
        assert setup_env.calls == [f'{COMPILE} 9.0', *MMCV]
        assert 'other operators of MMCV are asked for' in capsys.readouterr().out
        setup_env.calls.clear()
        assert setup_env.main({}) == 0
        assert setup_env.calls == []

    @pytest.mark.parametrize(
        ('torch', 'cuda', 'archs', 'message'),
        [
            ({}, '2', None, 'CUDA=2 is not 0 or 1'),
            ({}, '1', None, 'there is no GPU here: name the compute capability of the one to compile for'),
            ({}, None, 'sm_90', "ARCHS='sm_90' has to list compute capabilities, such as 8.0"),
            ({}, None, ';', "ARCHS=';' has to list compute capabilities"),
            (
                {},
                None,
                '9.0;7.0',
                r'ARCHS has 7.0, and CUDA 13.0 of torch 2.12.1\+cu130 begins at 7.5: leave it',
            ),
            (dict(cuda=None, version='2.12.1+cpu'), '1', None, r'torch 2.12.1\+cpu was built without CUDA'),
            (
                dict(archs=('7.0',)),
                '1',
                None,
                'the GPU has compute capability 7.0, and CUDA 13.0 begins at 7.5',
            ),
        ],
    )
    def test_what_cannot_be_compiled(self, torch, cuda, archs, message):
        module = load().mmcv_wheel
        with pytest.raises(module.SetupError, match=message) as error:
            module.choose_archs(torch_of(**torch), cuda, archs)
        assert '\n' not in str(error.value)

    def test_a_wrong_list_is_refused_first(self, setup_env, capsys):
        assert setup_env.main(dict(archs='H100')) == 1
        assert capsys.readouterr().err.startswith("error: ARCHS='H100' has to list compute capabilities")
        assert setup_env.calls == []
        command = [sys.executable, ROOT / 'tools/mmcv_wheel.py', '--archs', 'H100']
        result = subprocess.run(command, capture_output=True, text=True)
        assert (result.returncode, result.stdout) == (1, '')
        assert result.stderr.startswith("error: ARCHS='H100' has to list compute capabilities")

    def test_lists(self):
        choose = load().mmcv_wheel.choose_archs
        assert choose(torch_of(), '1', '8.0;8.6 9.0+PTX') == ('8.0', '8.6', '9.0+PTX')
        assert choose(torch_of(archs=('7.0', '8.0'))) == ('8.0',)
        assert choose(torch_of(archs=('8.0',)), '0') == ()
        assert choose(torch_of()) == ()
        assert choose(torch_of(version='2.7.0+cu126', cuda='12.6'), None, '7.0') == ('7.0',)

    def test_a_driver_that_is_too_old(self, tmp_path, monkeypatch, capsys):
        smi = tmp_path / 'nvidia-smi'
        smi.write_text('#!/bin/sh\necho NVIDIA A100, 535.183.01\n')
        smi.chmod(0o755)
        monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
        module = load().mmcv_wheel
        assert module.choose_archs(torch_of()) == ()
        message = capsys.readouterr().out
        assert 'there is a NVIDIA A100 with driver 535.183.01, which torch 2.12.1+cu130 cannot use' in message
        assert 'CUDA 13.0 needs driver 580 or newer; update the driver, or take' in message
        assert message.endswith('Until then MMCV gets its CPU operators only: no detector runs on the GPU\n')
        assert message.count('\n') == 1
        with pytest.raises(module.SetupError, match='needs driver 580'):
            module.choose_archs(torch_of(), '1')

    @pytest.fixture
    def toolkit(self, tmp_path):
        """The folder of a toolkit with an nvcc of some version."""

        def make(release, *headers):
            home = tmp_path / release
            for name in ('bin/nvcc', *(f'include/{header}' for header in headers)):
                (home / name).parent.mkdir(parents=True, exist_ok=True)
                (home / name).write_text(
                    f'#!/bin/sh\necho Cuda compilation tools, release {release}, V{release}.1\n'
                )
                (home / name).chmod(0o755)
            return str(home)

        return make

    def test_an_nvcc_that_fits(self, toolkit):
        module = load().mmcv_wheel
        home = toolkit('13.2', 'cuda_runtime.h', 'cusparse.h')
        assert module.find_toolkit(torch_of(home=home)) == Path(home)

    def test_an_nvcc_of_another_version(self, toolkit):
        module = load().mmcv_wheel
        torch = torch_of('2.7.1+cu128', '12.8', home=toolkit('13.0', 'cuda_runtime.h', 'cusparse.h'))
        with pytest.raises(module.SetupError) as error:
            module.find_toolkit(torch)
        assert str(error.value).startswith(
            'torch 2.7.1+cu128 was built with CUDA 12.8, and there is no nvcc of that version (the one in '
        )
        assert str(error.value).endswith(
            'is of CUDA 13.0): install the CUDA toolkit 12.8 and set CUDA_HOME, or take torch with CUDA '
            '13.0, whose compiler is fetched'
        )

    def test_the_compiler_from_the_package_index(self, toolkit, tmp_path, monkeypatch):
        """Beside the headers and libraries of PyTorch's dependencies, which are linked."""
        module = load().mmcv_wheel
        monkeypatch.setattr(module, 'CACHE', tmp_path / 'cache')
        site = tmp_path / 'site/nvidia/cu13'
        (site / 'include').mkdir(parents=True)
        (site / 'include/cusparse.h').touch()
        (site / 'lib').mkdir()
        (site / 'lib/libcudart.so.13').touch()
        commands = []

        def pip(executable, *arguments):
            commands.append(arguments)
            for name in ('bin/nvcc', 'include/nvvm.h', 'lib/libnvvm.so.4'):
                path = arguments[4] / 'nvidia/cu13' / name
                path.parent.mkdir(parents=True)
                path.touch()

        monkeypatch.setattr(module, 'pip', pip)
        torch = dataclasses.replace(torch_of(home=toolkit('13.0')), site=f'{site.parents[1]}')
        home = module.find_toolkit(torch)
        assert module.find_toolkit(torch) == home
        assert len(commands) == 1
        assert commands[0][5:] == module.COMPILERS['13.0']
        assert (home / 'include/cusparse.h').is_file()
        assert (home / 'lib/libcudart.so').resolve() == site / 'lib/libcudart.so.13'
        assert sorted(path.name for path in (site / 'include').iterdir()) == ['cusparse.h']


def interrupted(*arguments, **options):
    raise KeyboardInterrupt


def test_a_step_that_fails_says_so(setup_env, monkeypatch, capsys):
    def fail(*arguments):
        setup_env.mmcv_wheel.run(['false', 'a', 'b'])

    monkeypatch.setattr(setup_env, 'pip', fail)
    assert setup_env.main({}) == 1
    assert capsys.readouterr().err.startswith('error: a b failed (exit status 1); see the output above')


@pytest.fixture
def interpreter(tmp_path, monkeypatch, setup_env):
    """A function that writes the one interpreter on PATH, which reports what it is given."""
    (tmp_path / 'bin').mkdir()
    fake = tmp_path / 'bin/python'
    monkeypatch.setenv('PYTHON', str(fake))
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    monkeypatch.setattr(setup_env.sys, 'executable', str(fake))

    def write(report, name='python'):
        (tmp_path / 'bin' / name).write_text(f'#!/bin/sh\n{report}\n')
        (tmp_path / 'bin' / name).chmod(0o755)
        return tmp_path / 'bin' / name

    return write


def test_no_python_that_fits(setup_env, interpreter, capsys):
    interpreter('echo 3.14 True')
    assert setup_env.main({}) == 1
    assert capsys.readouterr().err == (
        'error: Python 3.10, 3.11, 3.12 or 3.13 is needed (found 3.14): install one, or uv, which brings it, '
        'or set PYTHON=/path/to/it\n'
    )
    fake = interpreter('echo 3.11 False')
    assert setup_env.main({}) == 1
    assert f'{fake} has no Python.h, which compiling MMCV needs' in capsys.readouterr().err


@pytest.mark.parametrize('report', ['echo 3.14 True', 'echo 3.13 False'])
def test_uv_brings_a_python(setup_env, interpreter, capsys, report):
    interpreter(report)
    uv = 'echo "$*" >>"${0%/*}/log"; test "$2" = find && echo /uv/python3.12; exit 0'
    log = interpreter(uv, 'uv').with_name('log')
    assert setup_env.main({}) == 0
    assert log.read_text() == 'python install 3.12\npython find 3.12\n'
    assert json.loads(setup_env.STATE.read_text())['python'] == '/uv/python3.12'
    assert 'uv installs Python 3.12 into a folder of its own' in capsys.readouterr().out


def test_uv_without_a_network(setup_env, interpreter, capsys):
    interpreter('echo 3.9 True')
    interpreter('exit 1', 'uv')
    assert setup_env.main({}) == 1
    assert capsys.readouterr().err == (
        'error: `uv python install 3.12` failed; see the output above; install Python 3.10 to 3.13 yourself, '
        'or set PYTHON=/path/to/it\n'
    )
    assert setup_env.calls == []


class TestKeepingPyTorch:
    @pytest.fixture
    def kept(self, setup_env, tmp_path, monkeypatch):
        """An interpreter that has torch 2.11, and packages of its own beside it."""
        site = tmp_path / 'site'
        for name, version in (('torch', '2.11.0+cu130'), ('nvidia_nccl_cu13', '2.28.9'), ('numpy', '2.0.0')):
            info = site / f'{name}-{version}.dist-info'
            info.mkdir(parents=True)
            (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
            top = name.partition('_')[0]
            (site / top).mkdir()
            (site / top / '__init__.py').touch()  # from Python 3.12 on, missing files are not listed
            (info / 'RECORD').write_text(
                f'{top}/__init__.py,,\n{info.name}/METADATA,,\n../../../bin/{top},,\n'
            )
        monkeypatch.setenv('PYTHONPATH', str(site))
        python = tmp_path / 'python'
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without the packages of the tests
        python.chmod(0o755)
        monkeypatch.setenv('PYTHON', str(python))
        monkeypatch.setattr(setup_env, 'VENV_PYTHON', python)
        made = setup_env.make_venv

        def make_venv(python, state):
            made(python, state)
            (setup_env.VENV / 'lib/python3.11/site-packages').mkdir(parents=True)

        monkeypatch.setattr(setup_env, 'make_venv', make_venv)
        monkeypatch.setattr(setup_env, 'pip', lambda *arguments: setup_env.calls.append(arguments))
        return site

    def test_it_is_linked_and_required(self, setup_env, kept):
        assert setup_env.main(dict(torch='keep')) == 0
        site = setup_env.VENV / 'lib/python3.11/site-packages'
        assert (site / 'torch').resolve() == kept / 'torch'
        assert (site / 'nvidia').resolve() == kept / 'nvidia'
        assert not (site / 'numpy').exists()
        build = setup_env.calls[1]
        assert {'torch==2.11.0+cu130', 'setuptools==80.9.0'} <= set(build)
        assert not any(
            str(argument).startswith('torch==2.12') for call in setup_env.calls for argument in call
        )

    def test_it_is_not_taken_back(self, setup_env, kept, capsys):
        assert setup_env.main({}) == 0
        assert setup_env.main(dict(torch='keep')) == 1
        assert capsys.readouterr().err == (
            'error: .venv was built with TORCH=, and TORCH=keep needs another one: call `make clean setup '
            'TORCH=keep`\n'
        )

    def test_no_torch_to_keep(self, setup_env, interpreter, capsys):
        fake = interpreter('case "$2" in *importlib*) echo \'{"versions": {}}\';; *) echo 3.12 True;; esac')
        assert setup_env.main(dict(torch='keep')) == 1
        assert capsys.readouterr().err == (
            'error: TORCH=keep needs an interpreter of Python 3.10 to 3.13 that has torch (found '
            f'{fake} without torch): activate its environment, or set PYTHON=/path/to/it\n'
        )


def test_the_fork_in_the_place_of_the_official_packages(setup_env, monkeypatch):
    monkeypatch.setattr(setup_env, 'pip', lambda *arguments: setup_env.calls.append(arguments))
    assert setup_env.main(dict(stack='onedl')) == 0
    others = setup_env.calls[2]
    assert {'onedl-mmengine==0.10.12', 'onedl-mmdetection==3.5.1', 'timm==1.0.31'} <= set(others)
    assert not any(argument.startswith(('mmdet', 'mmengine', 'mmcv', 'onedl-mmcv')) for argument in others)
    assert 'compile onedl-mmcv==2.3.6' in setup_env.calls


def test_half_an_environment_is_built_anew(setup_env, monkeypatch, capsys):
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
        assert setup_env.main({}) == 130
    assert setup_env.VENV.exists()
    assert setup_env.main({}) == 0
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


@pytest.mark.parametrize('cuda', [False, True])
def test_sources_are_grouped(tmp_path, cuda):
    root = tmp_path / 'mmcv/ops/csrc/pytorch'
    names = ['nms.cpp', 'pybind.cpp', 'cpu/psamask.cpp', 'cpu/roi_align.cpp', 'cpu/voxelization.cpp']
    names += ['cuda/cudabind.cpp', 'cuda/filtered_lrelu.cu', 'cuda/iou3d_cuda.cu', 'cuda/nms_cuda.cu']
    names += ['cuda/sparse_indice.cu', 'cuda/tin_shift_cuda.cu']
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text('#include <torch/script.h>\n')
    module = load().mmcv_wheel
    module.group_sources(tmp_path, cuda)
    compiled = sorted(p.relative_to(root).as_posix() for p in root.rglob('*') if p.suffix in ('.cpp', '.cu'))
    left = [name for name in names if 'cuda/' in name]
    groups = [f'cuda/group{number}.cu' for number in (1, 2, 3, 4)]
    assert compiled == sorted(['group5.cpp', 'group6.cpp', *(groups if cuda else left)])
    entries = ['#include <torch/extension.h>', '#include "nms.cpp.hpp"', '#include "pybind.cpp.hpp"']
    entries += ['#include "cuda/cudabind.cpp.hpp"'] if cuda else []
    assert (root / 'group5.cpp').read_text().splitlines() == entries
    on_cpus = (root / 'group6.cpp').read_text()
    assert [line for line in on_cpus.splitlines() if line.startswith('#include "')] == [
        f'#include "cpu/{name}.cpp.hpp"' for name in ('roi_align', 'voxelization', 'psamask')
    ]
    assert '#define PreCalc PreCalc_of_cpu_roi_align_cpp\n' in on_cpus
    assert '#undef PreCalc\n' in on_cpus
    assert (root / 'nms.cpp.hpp').read_text() == '#include <torch/types.h>\n'
    if cuda:
        kernels = (root / 'cuda/group4.cu').read_text()
        assert kernels.startswith(
            '#include <pytorch_cuda_helper.hpp>\n#define EPS EPS_of_cuda_iou3d_cuda_cu\n'
        )
        assert kernels.endswith('#include "nms_cuda.cu.hpp"\n#undef MAXN\n#undef NMAX\n')


def test_exec_defines_locals():
    """As MMCV's setup.py expects; Python 3.13 gives each call of locals() a copy."""
    code = (
        'def version():\n'
        '    exec(compile("a = 1", "version.py", "exec"))\n'
        '    return locals()["a"]\n'
        'scope = {}\n'
        'exec("b = 2", scope)\n'
        'exec("c = 3\\ndef three(): return c")\n'
        'print(version(), scope["b"], three())\n'
    )
    code = f'{load().mmcv_wheel.EXEC_DEFINES_LOCALS}\ndel exec\n{code}'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout == '1 2 3\n', result.stderr


class TestCompiling:
    @pytest.fixture
    def module(self, tmp_path, monkeypatch):
        """tools/mmcv_wheel.py with the attempts to compile recorded; those in ``fails`` fail."""
        module = load().mmcv_wheel
        monkeypatch.setattr(module, 'CACHE', tmp_path)
        monkeypatch.setattr(module, 'check_compiler', lambda: None)
        monkeypatch.setattr(module, 'find_toolkit', lambda torch: None)
        module.attempts, module.fails = [], set()

        def compile_wheel(torch, archs, folder, grouped, source):
            module.attempts.append((grouped, *archs))
            if grouped in module.fails:
                raise module.CompileError('MMCV could not be compiled')
            folder.mkdir()
            (folder / 'mmcv-2.1.0.whl').touch()
            return folder / 'mmcv-2.1.0.whl'

        monkeypatch.setattr(module, 'compile_wheel', compile_wheel)
        return module

    def build(self, module, *archs, **options):
        return module.build_wheel(torch_of(), archs, 'mmcv==2.1.0', **options)

    def test_grouped_and_once(self, module, tmp_path):
        for _ in range(2):
            wheel = self.build(module)
            assert wheel == tmp_path / 'mmcv-py11-torch2.12.1+cu130-cpu/mmcv-2.1.0.whl'
        wheel = self.build(module, '8.0', '9.0')
        assert wheel.parent == tmp_path / 'mmcv-py11-torch2.12.1+cu130-cuda-8.0-9.0'
        assert module.attempts == [(True,), (True, '8.0', '9.0')]

    def test_each_by_itself_where_that_fails(self, module, capsys):
        module.fails = {True}
        assert self.build(module, '9.0').name == 'mmcv-2.1.0.whl'
        assert module.attempts == [(True, '9.0'), (False, '9.0')]
        output = capsys.readouterr().out
        assert 'MMCV does not compile with its sources grouped (see ' in output
        assert output.count('\n') == 1

    def test_neither(self, module):
        module.fails = {True, False}
        with pytest.raises(module.SetupError, match='MMCV could not be compiled'):
            self.build(module)

    def test_anew(self, module):
        self.build(module, anew=True)
        assert module.attempts == [(False,)]


def test_the_proof_runs_here():
    pytest.importorskip('mmcv.ops', reason='this MMCV has no operators')
    proof = load().mmcv_wheel.PROOF
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


# An interpreter that does in milliseconds what the set-up asks of one. Its pip leaves half a package behind
# where it is killed.
STAND_IN = """
import io, json, pathlib, sys, tarfile, time, zipfile
arguments, here = sys.argv[1:], pathlib.Path(__file__)
pause = lambda: time.sleep(0.03)
if arguments[0] == '-c':
    code = arguments[1]
    if 'Python.h' in code:
        print('3.11 True')
    elif 'hip' in code:
        none = dict.fromkeys(('cuda', 'hip', 'cuda_home'))
        print(json.dumps(dict(none, python='3.11', version='2.12.1', site='', archs=[])))
elif arguments[:2] == ['-m', 'venv']:
    folder = pathlib.Path(arguments[2], 'bin')
    folder.mkdir()
    pause()
    (folder / 'pip').write_text(f'#!{folder}/python')
    (folder / 'python').write_text(here.read_text())
    (folder / 'python').chmod(0o755)
elif 'download' in arguments:
    folder = pathlib.Path(arguments[arguments.index('-d') + 1])
    with tarfile.open(folder / 'mmcv-2.1.0.tar.gz', 'w:gz') as archive:
        info = tarfile.TarInfo('mmcv-2.1.0/mmcv/ops/csrc/pytorch/pybind.cpp')
        archive.addfile(info, io.BytesIO())
    pause()
elif 'wheel' in arguments:
    pause()
    folder = pathlib.Path(arguments[arguments.index('-w') + 1])
    with zipfile.ZipFile(folder / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl', 'w') as wheel:
        wheel.writestr('mmcv/__init__.py', '')
elif 'install' in arguments:
    log = here.parents[1] / 'log'
    (here.parents[1] / 'half').write_text('')
    pause()
    (here.parents[1] / 'half').unlink()
    with open(log, 'a') as file:
        file.write('installed\\n')
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose set-up runs as it is, with an interpreter that stands in."""
    root = tmp_path / 'checkout'
    for name in (
        'tools/setup_env.py',
        'tools/mmcv_wheel.py',
        *(f'requirements/{n}.txt' for n in load().PINNED),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (tmp_path / 'python').write_text(f'#!{sys.executable} -SE{STAND_IN}')
    (tmp_path / 'python').chmod(0o755)
    return root


def start(checkout, *arguments):
    """Start its set-up."""
    code = 'import setup_env, sys; setup_env.NEEDED_GB = 0; sys.exit(setup_env.main({}))'
    env = dict(os.environ, PYTHON=str(checkout.parent / 'python'), PYTHONPATH=str(checkout / 'tools'))
    command = [*arguments, sys.executable, '-S', '-c', code]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def is_ready(checkout):
    """Whether its environment is complete: all that is installed was installed in one go."""
    state = json.loads((checkout / '.venv/setup.json').read_text())
    log = (checkout / '.venv/log').read_text()
    return state['ready'] and not (checkout / '.venv/half').exists() and log.count('installed') == 4


def test_killed_at_any_point(checkout):
    """The next call repairs what is left, until one ends by itself."""
    draw = random.Random(0)
    for _ in range(10):
        process = start(checkout)
        for _ in range(draw.randrange(7)):
            process.stdout.readline()
        time.sleep(draw.uniform(0, 0.1))
        process.kill()
        process.communicate()
    process = start(checkout)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert is_ready(checkout)
    assert not [path for path in (checkout / '.cache').iterdir() if path.suffix in ('.part', '.rest')]


def test_two_calls_at_once(checkout):
    processes = [start(checkout) for _ in range(2)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum('ready after' in output for output, _ in outputs) == 1
    assert is_ready(checkout)


def test_a_checkout_that_cannot_be_written(checkout, monkeypatch, capsys):
    module = load()
    monkeypatch.setattr(module.mmcv_wheel, 'CACHE', checkout / '.cache')
    monkeypatch.setattr(module, 'VENV', checkout / '.venv')

    def mkdir(self, **options):
        raise OSError(errno.EROFS, 'Read-only file system', str(self))

    monkeypatch.setattr(module.mmcv_wheel.Path, 'mkdir', mkdir)
    assert module.main({}) == 1
    assert capsys.readouterr().err == (
        f'error: {checkout}/.cache cannot be written to: take a copy of the checkout that is yours\n'
    )


def test_a_disk_that_is_full(setup_env, monkeypatch, capsys):
    def write(state):
        raise OSError(errno.ENOSPC, 'No space left on device', str(setup_env.STATE))

    monkeypatch.setattr(setup_env, 'write_state', write)
    assert setup_env.main({}) == 1
    assert capsys.readouterr().err == (
        f'error: there is no room on the disk of {setup_env.STATE}: make room, and try again\n'
    )
