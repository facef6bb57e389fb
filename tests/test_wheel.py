"""The built wheel in an environment that has the stack, but not this checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, Tools

# What only maintainers run stays in the checkout.
IGNORED = ('__pycache__', '.pyc', 'gpu_report.py', 'model_zoo.py', 'zoo_coverage.py')


def run(*command, cwd=None):
    """Run a command that has to succeed, outside of the checkout; return its output."""
    env = {key: value for key, value in Tools.environment().items() if key != 'PYTHONPATH'}
    command = [str(part) for part in command]
    process = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-3000:]
    return process.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    # From a copy of what git has: a build leaves traces.
    files = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard', '-z'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    source = folder / 'source'
    for name in filter(None, files.stdout.split('\0')):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
            (source / name).chmod((ROOT / name).stat().st_mode)
    pip = (sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-q')
    run(*pip, '-w', folder, source)
    (path,) = folder.glob('*.whl')
    return path


@pytest.fixture(scope='module')
def python(wheel, tmp_path_factory):
    """The interpreter of an environment with the wheel, and the packages of this one beside it."""
    folder = tmp_path_factory.mktemp('environment')
    run(sys.executable, '-m', 'venv', '--without-pip', folder)
    python = folder / 'bin/python'
    run(sys.executable, '-m', 'pip', '--python', python, 'install', '-q', '--no-deps', wheel)
    site = run(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip()
    # Files that make packages of a checkout importable are not read from a folder that is named like this.
    (Path(site) / 'stack.pth').write_text(sysconfig.get_path('purelib'))
    return python


def test_it_holds_configs_tools_and_tables(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ('configs', 'tools'):
        there = {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob('*') if p.is_file()}
        there = {path for path in there if not any(part in path for part in IGNORED)}
        packed = {n.removeprefix('mmmeta/.mim/') for n in names if n.startswith(f'mmmeta/.mim/{folder}/')}
        assert packed == there
    assert {'mmmeta/.mim/model-index.yml', 'mmmeta/py.typed'} <= set(names)
    assert {name.partition('/')[0].partition('-')[0] for name in names} == {'mmmeta', 'mmmetaformer'}
    tables = {f'mmmeta/analysis/paper/{name}.csv' for name in ('ade20k', 'coco', 'imagenet', 'robustness')}
    templates = {path.relative_to(ROOT).as_posix() for path in ROOT.glob('mmmeta/scaffold/templates/*')}
    assert templates | tables | {'mmmeta/analysis/counts.csv'} <= set(names)


def test_it_trains_and_lists(python, ade_root, tmp_path):
    where = run(
        python, '-c', 'from mmmeta.utils.resources import resource_root; print(resource_root())', cwd=tmp_path
    )
    root = Path(where.strip())
    assert root.parts[-2:] == ('mmmeta', '.mim')
    assert not root.is_relative_to(ROOT)
    assert f'configs: {root}/configs' in run(python, '-m', 'mmmeta', 'list', 'retinanet', cwd=tmp_path)
    dims = [32, 32, 64, 64]
    (tmp_path / 'small.py').write_text(
        f"_base_ = '{root}/configs/demo/upernet_caformer_s18_shapes.py'\n"
        f"arch = dict(_delete_=True, base='s18', depths=(1, 1, 1, 1), dims={dims})\n"
        'model = dict(backbone=dict(arch=arch),\n'
        f'    decode_head=dict(in_channels={dims}, channels=16),\n'
        '    auxiliary_head=dict(in_channels=64, channels=16))\n'
        'train_cfg = dict(max_iters=2)\n'
    )
    loaders = (f'{name}_dataloader.dataset.data_root={ade_root}' for name in ('train', 'val'))
    train = (root / 'tools/dist_train.sh', 'small.py', '1')
    assert os.access(train[0], os.X_OK)
    run('env', f'PYTHON={python}', *train, '--work-dir', 'work', '--cfg-options', *loaders, cwd=tmp_path)
    assert (tmp_path / 'work/iter_2.pth').is_file()
    assert list((tmp_path / 'work').glob('*/record_train.json'))
