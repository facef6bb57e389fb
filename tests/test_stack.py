"""What import mmmeta says of the packages around it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from forked import Script

from mmmeta import __version__
from mmmeta.utils import stack

BLOCKER = """
import importlib.abc, importlib.util, sys
BLOCKED = {blocked!r}
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in BLOCKED or name.partition('.')[0] in BLOCKED:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Blocker())
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in BLOCKED else find_spec(name, *rest)
"""


LACKS = 'lacks: pip install mmengine, or use the interpreter of an environment that has it'


def python(code, path=None):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(str(p) for p in (path, ROOT) if p))
    return subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)


def fake_distribution(folder: Path, name: str, version: str, summary: str = 'of somebody') -> None:
    info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(
        f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {summary}\n'
    )


def test_backbones_need_torch_and_mmengine_alone():
    blocked = {'mmdet', 'mmseg', 'mmpretrain', 'mmcv', 'timm', 'torchvision', 'cv2', 'mmcv.ops'}
    code = BLOCKER.format(blocked=blocked) + (
        'import torch, mmmeta\n'
        'from mmmeta.models import CAFormer\n'
        'from mmengine.registry import MODELS\n'
        'model = MODELS.build(dict(type="mmmeta.CAFormer", arch="s18", out_indices=(3,)))\n'
        'assert isinstance(model, CAFormer)\n'
        'print(tuple(model(torch.randn(1, 3, 64, 64))[0].shape))\n'
    )
    result = python(code)
    assert result.stdout.strip() == '(1, 512, 2, 2)', result.stderr


# All that the package could import beside the standard library, NumPy and Pillow.
OTHERS = {'torch', 'torchvision', 'timm', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'cv2', 'yaml'}
OTHERS |= {'matplotlib', 'rich', 'huggingface_hub', 'safetensors', 'onnxruntime', 'openvino'}


@pytest.mark.parametrize(
    'use',
    ['mmmeta.registry', 'from mmmeta.models import CAFormer', 'import mmmeta.apis', 'import mmmeta.errors'],
)
def test_mmengine_missing(use):
    """The package can be imported; what needs MMEngine says that it is missing."""
    result = python(f'{BLOCKER.format(blocked=OTHERS)}import mmmeta\nprint(mmmeta.__version__)\n{use}\n')
    assert result.stdout.strip() == __version__
    if use == 'import mmmeta.errors':  # a former name of what needs nothing
        assert result.returncode == 0
        return
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith(f'mmmeta needs MMEngine, which {sys.executable} {LACKS}')


def test_the_runtime_needs_numpy_and_pillow_alone(tmp_path):
    code = BLOCKER.format(blocked=OTHERS) + (
        'from mmmeta.runtime import RuntimeProblem, load\n'
        'try:\n'
        f'    load({str(tmp_path / "a.onnx")!r})\n'
        'except RuntimeProblem as error:\n'
        '    print(error)\n'
    )
    result = python(code)
    assert result.returncode == 0, result.stderr
    assert "a.onnx'" in result.stdout


def test_mmengine_missing_for_a_command_line(tmp_path):
    python = tmp_path / 'bin/python'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', tmp_path], check=True)
    result = subprocess.run([python, '-m', 'mmmeta', 'list'], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == f'error: mmmeta needs MMEngine, which {python} {LACKS}\n'


@pytest.mark.parametrize('module', ['mmmeta', 'mmmeta.cli.launch', 'mmmeta.runtime.run'])
def test_fork_over_official_for_a_command_line(tmp_path, module):
    fake_distribution(tmp_path, 'onedl-mmengine', '0.10.9')
    env = dict(os.environ, PYTHONPATH=os.pathsep.join((str(tmp_path), str(ROOT))))
    result = subprocess.run([sys.executable, '-m', module], env=env, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith('error: ') and 'are installed over each other' in result.stderr


def test_the_runtime_of_a_command_line_needs_no_mmengine(tmp_path):
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', tmp_path], check=True)
    (tmp_path / 'lib/python').mkdir()
    for name in ('numpy', 'PIL', 'numpy.libs', 'pillow.libs'):
        found = Path(np.__file__).parents[1] / name
        if found.exists():
            (tmp_path / 'lib/python' / name).symlink_to(found)
    result = subprocess.run(
        [tmp_path / 'bin/python', '-m', 'mmmeta.runtime.run', 'a.onnx', 'b.png'],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(tmp_path / 'lib/python')),
        capture_output=True,
        text=True,
    )
    assert result.stderr.endswith("error: there is no image or folder 'b.png'\n")


def test_fork_over_official_is_named(tmp_path):
    fake_distribution(tmp_path, 'onedl-mmengine', '0.10.9')
    result = python('import mmmeta', tmp_path)
    assert result.returncode == 1
    message = result.stderr.splitlines()[-1]
    assert 'onedl-mmengine 0.10.9 are installed over each other' in message
    assert (
        "both provide the module 'mmengine'. Uninstall them (pip uninstall -y mmengine onedl-mmengine)"
        in message
    )


# What Windows lacks; hidden once the libraries are loaded, which look for it themselves.
WITHOUT_POSIX = """
import builtins, importlib, os, pkgutil, signal, sys
import torch.distributed.run, matplotlib.pyplot, mmengine.runner
POSIX = {'fcntl', 'grp', 'posix', 'pty', 'pwd', 'resource', 'syslog', 'termios', 'tty'}
os.environ['USER'] = 'somebody'  # PyTorch would ask os.getuid
for name in ('SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGKILL', 'SIGALRM', 'SIGQUIT'):
    delattr(signal, name)
for name in ('fork', 'getuid', 'killpg', 'setpgrp', 'setsid'):
    delattr(os, name)
import_module = builtins.__import__
def without_posix(name, globals=None, *rest, **options):
    if name in POSIX and (globals or {}).get('__name__', '').startswith('mmmeta'):
        raise ModuleNotFoundError(f'No module named {name!r}', name=name)
    return import_module(name, globals, *rest, **options)
builtins.__import__ = without_posix
import mmmeta
modules = [m.name for m in pkgutil.walk_packages(mmmeta.__path__, 'mmmeta.')]
for name in modules:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        assert error.name.startswith(('mm', 'triton')), (name, error)
print(len(modules))
"""


def test_every_module_is_imported_without_posix(tmp_path):
    (tmp_path / 'script.py').write_text(f'import sys\nsys.path.insert(0, {str(ROOT)!r})\n{WITHOUT_POSIX}')
    script = Script(['script.py'], tmp_path, os.environ)
    output, errors = script.communicate(300)
    assert script.returncode == 0, errors
    assert int(output.split()[-1]) > 80


def test_a_work_directory_without_file_locks(tmp_path, monkeypatch):
    lock = pytest.importorskip('mmmeta.engine.lock')
    monkeypatch.setattr(lock, 'fcntl', None)
    with pytest.warns(UserWarning, match='cannot be locked on this system'), lock.locked(tmp_path) as path:
        assert path.is_file()
    assert not path.exists()


OTHER_PROJECT = (
    f'mmmeta 0.4.4 in {sys.prefix} is another project, whose files lie in the same folder as those of '
    'mmmetaformer: pip uninstall -y mmmeta mmmetaformer, then install mmmetaformer again'
)


@pytest.mark.parametrize('command', ['-m mmmeta', '-m mmmeta list', 'tools/train.py a.py'])
@pytest.mark.parametrize('is_over_ours', [False, True])
def test_the_distribution_of_another_project(tmp_path, command, is_over_ours):
    """Its name is that of our package; where it came last, its __init__.py is the one that runs."""
    fake_distribution(tmp_path, 'mmmeta', '0.4.4')
    if is_over_ours:
        shutil.copytree(ROOT / 'mmmeta', tmp_path / 'mmmeta', ignore=shutil.ignore_patterns('__pycache__'))
        (tmp_path / 'mmmeta/__init__.py').write_text('')
    env = dict(os.environ, PYTHONPATH=os.pathsep.join((str(tmp_path), str(ROOT))))
    command = [sys.executable, *command.replace('tools', f'{ROOT}/tools').split()]
    result = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, f'error: {OTHER_PROJECT}\n')


def test_the_distribution_of_another_project_is_imported(tmp_path):
    fake_distribution(tmp_path, 'mmmeta', '0.4.4')
    result = python('import mmmeta', tmp_path)
    assert result.stderr.splitlines()[-1] == f'mmmeta.utils.stack.StackError: {OTHER_PROJECT}'


def test_ours_had_its_name_once(tmp_path):
    fake_distribution(tmp_path, 'mmmeta', '0.1.0', 'MetaFormer backbones')
    assert python('import mmmeta', tmp_path).returncode == 0


def test_mmdet_beside_an_mmcv_without_operators_is_told(tmp_path):
    fake_distribution(tmp_path, 'mmdet', '3.3.0')
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').write_text('')
    result = python('import mmmeta', tmp_path)
    assert result.returncode == 0
    assert 'no detector can be built: install it with MMCV_WITH_OPS=1 pip install' in result.stderr.replace(
        '\n', ''
    )


class TestRequire:
    @pytest.fixture
    def installed(self, monkeypatch):
        """Pretend that distributions of these versions are installed."""

        def install(**versions):
            monkeypatch.setattr(
                stack, 'package_folder', lambda name: Path(name) if name in versions else None
            )
            monkeypatch.setattr(stack, '_installed', lambda module: {module: versions[module]})
            monkeypatch.setattr(stack, 'has_mmcv_ops', lambda: versions.get('ops', False))

        return install

    def test_a_stack_that_works(self, installed):
        installed(mmdet='3.3.0', mmcv='2.1.0', ops=True)
        stack.require('mmdet')

    def test_missing_package(self, installed):
        installed(mmcv='2.1.0')
        with pytest.raises(
            stack.StackError, match="needs the package 'mmdet', which is not installed: pip install"
        ):
            stack.require('mmdet')

    def test_missing_mmcv(self, installed):
        installed(mmseg='1.2.2')
        with pytest.raises(
            stack.StackError, match="'mmseg' needs MMCV, which is not installed: MMCV_WITH_OPS=1"
        ):
            stack.require('mmseg')

    def test_mmcv_without_operators(self, installed):
        installed(mmdet='3.3.0', mmcv='2.1.0')
        with pytest.raises(
            stack.StackError, match='a detector needs compiled operators, which this MMCV lacks'
        ):
            stack.require('mmdet')

    def test_mmcv_too_new_for_the_official_packages(self, installed, monkeypatch):
        installed(mmseg='1.2.2', mmcv='2.2.0')
        monkeypatch.setattr(
            stack, '_installed', lambda m: {'mmsegmentation': '1.2.2'} if m == 'mmseg' else {'mmcv': '2.2.0'}
        )
        with pytest.raises(stack.StackError, match=r"'mmseg' needs MMCV 2.0 or 2.1, found mmcv 2.2.0"):
            stack.require('mmseg')


@pytest.mark.parametrize(('distribution', 'found'), [('onedl-', 'mmseg'), ('', 'mmsegmentation')])
def test_configs_of_the_fork(monkeypatch, distribution, found):
    """Its MMEngine looks for a distribution named mmsegmentation, which the fork's is not."""
    names = pytest.importorskip('mmengine.config.utils').MODULE2PACKAGE
    monkeypatch.setitem(names, 'mmseg', 'mmsegmentation')
    monkeypatch.setattr(stack, '_installed', lambda module: {f'{distribution}mmsegmentation': '1.4.2'})
    stack.find_configs_of_fork()
    assert names['mmseg'] == found
