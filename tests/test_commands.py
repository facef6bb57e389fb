"""The commands of the pages, as a reader runs them, and the interpreters that they find."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TIMEOUT, run_command
from forked import Script
from PIL import Image

from mmmeta.datasets import generate_ade20k

SYSTEM = '/usr/local/bin:/usr/bin:/bin'
TOOLS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('tools/**/*.py'))
TOOLS = [
    path for path in TOOLS if not path.endswith(('/setup_env.py', '/mmcv_wheel.py', '/check_interpreter.py'))
]
WORK = 'work_dirs/upernet_caformer_s18_shapes'
# What the beginning of a command gets in addition, where the whole would take minutes.
SHORTER = {
    f'python tools/train.py configs/demo/{Path(WORK).name}.py': '--cfg-options train_cfg.max_iters=1 '
    'default_hooks.logger.interval=1 default_hooks.checkpoint.save_optimizer=False',
}
# The error that the beginning of a command ends with, where there is neither ADE20K nor a network.
SHORTER.update(
    {
        'python tools/generate_dataset.py data/shapes': '--num-train 8 --num-val 2 --size 64',
        'python -m mmmeta new': '--weights none --size 64 --epochs 1',
        'python tools/train.py my_upernet': '--cfg-options train_cfg.max_iters=1 '
        'default_hooks.checkpoint.save_optimizer=False',
    }
)
ERRORS = {
    'tools/dist_train.sh': "the data of train_dataloader are missing: looked for images or annotations in '",
    'tools/dist_test.sh': "the data of test_dataloader are missing: looked for images or annotations in '",
    'python tools/image_demo.py picture.jpg caformer_s18': "cannot get '",
}


def of_beginning(table, command):
    return next((value for beginning, value in table.items() if command.startswith(beginning)), None)


def commands_of(page):
    """The commands of a page's shell snippets but those that build and run everything."""
    for snippet in re.findall(r'^```bash\n(.+?)^```', (ROOT / page).read_text(), re.M | re.S):
        for command in snippet.replace('\\\n', ' ').splitlines():
            if not re.match('make (demo|demo-det|test)\\b', command):
                yield re.sub(' +', ' ', re.sub(' +# .*', '', command))


@pytest.fixture
def checkout(tmp_path):
    """A checkout in which the environment of these tests is .venv, and nothing was run yet."""
    folder = tmp_path / 'checkout'
    shutil.copytree(ROOT / 'tools', folder / 'tools', symlinks=True)
    for name in ('mmmeta', 'configs'):
        (folder / name).symlink_to(ROOT / name)
    (folder / '.venv').symlink_to(sys.prefix)
    return folder


def run(checkout, script, **variables):
    """Run a script in a shell that has nothing but the system's commands."""
    env = dict(HOME=str(checkout.parent), PATH=SYSTEM, CUDA_VISIBLE_DEVICES='', **variables)
    return run_command(['bash', '-c', script], checkout, env, TIMEOUT)


def run_activated(checkout, line, **variables):
    """Run a line of a page in the activated environment, ``python`` in a fork that has PyTorch loaded."""
    if not line.startswith('python '):
        return run(checkout, f'source .venv/bin/activate\n{line}', **variables)
    words = run(checkout, f'printf "%s\\0" {line}').stdout.split('\0')[1:-1]
    env = dict(HOME=str(checkout.parent), PATH=f'{checkout}/.venv/bin:{SYSTEM}', CUDA_VISIBLE_DEVICES='')
    script = Script(words, checkout, {**env, **variables})
    outputs = script.communicate(TIMEOUT)
    return subprocess.CompletedProcess(line, script.returncode, *outputs)


def make_own_data(folder):
    """Images with masks, objects and classes, which nobody has split."""
    from mmmeta.datasets import generate_coco, generate_imagenet

    coco = generate_coco(folder / 'source', 8, 1, 64)
    shutil.copytree(coco / 'train2017', folder / 'images')
    shutil.copy(coco / 'annotations/instances_train2017.json', folder / 'objects.json')
    (folder / 'masks').mkdir()
    for path in (folder / 'images').iterdir():
        with Image.open(path) as image:
            image.convert('L').point(lambda value: (value > 99) + (value > 180)).save(
                folder / 'masks' / f'{path.stem}.png'
            )
    classes = generate_imagenet(folder / 'source', 36, 18, 64)
    shutil.copytree(classes / 'train', folder / 'classes')


@pytest.mark.parametrize('page', ['README.md', 'docs/start.md', 'docs/your_data.md'])
def test_a_page_from_top_to_bottom(page, checkout):
    pytest.importorskip('mmseg', reason='the pages are about segmentation')
    if not (checkout / '.venv/bin/activate').is_file():
        pytest.skip('this is no virtual environment')
    generate_ade20k(checkout / 'data/shapes', num_train=8, num_val=2, size=64)
    Image.new('RGB', (96, 64), 'teal').save(checkout / 'picture.jpg')
    make_own_data(checkout / 'data')
    commands = list(commands_of(page))
    assert commands.count('source .venv/bin/activate') == 1
    offline = dict(HF_HUB_OFFLINE='1', http_proxy='http://127.0.0.1:9', https_proxy='http://127.0.0.1:9')
    for command in commands:
        line = command.replace('_ade20k.py 8', '_ade20k.py 1').replace('.pth 8', '.pth 1')  # all say the same
        line = f'{line} {of_beginning(SHORTER, command) or ""}'
        process = run_activated(checkout, line, OMP_NUM_THREADS='1', **offline)
        error = of_beginning(ERRORS, command)
        found = [line for line in process.stderr.splitlines() if line.startswith('error: ')]
        assert 'Traceback' not in process.stderr, process.stderr[-3000:]
        assert 'pkg_resources' not in process.stderr  # thirty lines of it, above all others
        assert (process.returncode == 0) == (error is None), f'{command}: {process.stderr[-3000:]}'
        assert len(found) == (error is not None) and all(f'error: {error}' in line for line in found), found
        for path in checkout.glob(f'{WORK}/iter_1.pth'):
            path.rename(path.with_name('iter_75.pth'))  # of the whole training


@pytest.fixture(scope='module')
def bare(tmp_path_factory):
    """An environment without packages."""
    folder = tmp_path_factory.mktemp('bare')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)
    return folder


class TestScripts:
    @pytest.fixture(autouse=True)
    def srun(self, checkout):
        """A stand-in of Slurm's command, which prints its arguments."""
        (checkout / 'srun').write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (checkout / 'srun').chmod(0o755)

    @staticmethod
    def start(checkout, *folders, **variables):
        path = os.pathsep.join(str(folder) for folder in (*folders, checkout, SYSTEM))
        process = run(checkout, f'PATH={path} tools/slurm_train.sh gpu job CONFIG', **variables)
        return process.stdout.splitlines(), process.stderr, process.returncode

    def test_python_on_the_path(self, checkout):
        arguments, _, _ = self.start(checkout, Path(sys.executable).parent)
        assert arguments[-5:-2] == ['python', '-u', f'{checkout}/tools/train.py']

    def test_the_checkouts_environment_where_that_lacks_the_packages(self, checkout, bare):
        for folders in ((), (bare / 'bin',)):
            arguments, _, _ = self.start(checkout, *folders)
            assert arguments[-5:-2] == [f'{checkout}/.venv/bin/python', '-u', f'{checkout}/tools/train.py']

    def test_the_one_that_is_named(self, checkout):
        arguments, _, _ = self.start(checkout, PYTHON=sys.executable)
        assert arguments[-5] == sys.executable

    @pytest.mark.parametrize('name', ['{bare}/bin/python', '/no/python'])
    def test_one_that_is_named_and_lacks_the_packages(self, checkout, bare, name):
        name = name.format(bare=bare)
        message = f"error: PYTHON='{name}' is no interpreter with MMEngine and mmmeta: unset it, or set it to"
        output, errors, status = self.start(checkout, Path(sys.executable).parent, PYTHON=name)
        assert (output, status) == ([], 1)
        assert errors.startswith(message) and errors.count('\n') == 1

    def test_none(self, checkout, bare):
        (checkout / '.venv').unlink()
        output, errors, status = self.start(checkout, bare / 'bin')
        assert (output, status) == ([], 1)
        assert errors == (
            f"error: neither 'python' on PATH nor '{checkout}/.venv/bin/python' has MMEngine and mmmeta: "
            'run make setup, or set PYTHON to an interpreter that has them\n'
        )


class TestTools:
    @staticmethod
    def start(checkout, python, tool):
        process = run(checkout, f'{python} {tool} CONFIG --some "a b"')
        assert process.returncode == 1
        assert process.stderr.count('\n') == 1
        return process.stderr

    @pytest.mark.parametrize('tool', TOOLS)
    def test_another_interpreter(self, checkout, bare, tool):
        python = f'{bare}/bin/python'
        if tool == 'tools/deployment/run.py':  # which needs nothing else
            needed = 'has no numpy: pip install numpy pillow onnxruntime'
            assert self.start(checkout, python, tool) == f'error: {python} {needed}\n'
            return
        assert self.start(checkout, python, tool) == (
            f'error: {python} has no mmengine and no mmmeta: use .venv/bin/python {tool} CONFIG '
            "--some 'a b', or first: source .venv/bin/activate\n"
        )

    def test_no_environment_or_half_of_one(self, checkout, bare):
        (checkout / '.venv').unlink()
        message = 'has no mmengine and no mmmeta: run make setup, or use the interpreter of an environment'
        assert message in self.start(checkout, f'{bare}/bin/python', 'tools/train.py')
        (checkout / '.venv').symlink_to(bare)
        assert message in self.start(checkout, '.venv/bin/python', 'tools/train.py')
