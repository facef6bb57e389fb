#!/usr/bin/env python3
"""Build the virtual environment of this checkout; does nothing if it is up to date.

Needs Python 3.10 to 3.12, a C++ compiler and, the first time, a package index. A first set-up that was
interrupted is repaired by the next call; an environment that was complete is updated in place and never
deleted. Only the standard library is used here.
"""

import argparse
import fcntl
import functools
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
STATE = VENV / 'setup.json'
CACHE = ROOT / '.cache'
VENV_PYTHON = VENV / 'bin/python'
REQUIREMENTS = ROOT / 'requirements'
NEEDED_GB = 8
ANEW = 'to build it anew, call `make clean setup`'
# Build logs, by whether sources are grouped.
LOGS = {True: 'mmcv-build-grouped.log', False: 'mmcv-build.log'}
PLAIN = 'compiling each of its sources by itself, about 7 minutes on two cores'
PINNED = ('build', 'mminstall', 'runtime', 'optional', 'deploy', 'tests', 'docs')
SUPPORTED = ('3.12', '3.11', '3.10')

PROBE = """
import os, sys, sysconfig
headers = os.path.join(sysconfig.get_path('include'), 'Python.h')
print('%d.%d' % sys.version_info[:2], os.path.isfile(headers))
"""
TORCH_PROBE = """
import sys, torch
from torch.utils.cpp_extension import CUDA_HOME
print(f'py{sys.version_info[1]}-torch{torch.__version__}', torch.cuda.is_available(), CUDA_HOME is not None)
"""
# Sources of MMCV 2.1 that cannot share a file with others: the first one defines macros min and max, the
# rest define functions of the same names.
UNGROUPED = ('psamask.cpp', 'roi_align.cpp', 'roi_align_rotated.cpp', 'rotated_feature_align.cpp')
# Check that every operator of the sources exists, and compare those of detectors with known results:
# NMS of five boxes, two of which overlap a better one; TorchVision's RoIAlign; convolutions, for deformable
# ones without offsets; the mean of a constant, for attention.
PROOF = """
import re, sys
from pathlib import Path
import torch
from torch.nn.functional import conv2d
from torch.testing import assert_close
from torchvision.ops import roi_align as roi_align_of_torchvision
import mmcv._ext
from mmcv.ops import deform_conv2d, modulated_deform_conv2d, nms, roi_align
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch)

sources = [path.read_text() for path in Path(mmcv._ext.__file__).parent.rglob('pytorch/**/pybind.cpp')]
entries = {name for text in sources for name in re.findall(r'm\\.def\\(\\s*"(\\w+)"', text)}
missing = sorted(entries - set(dir(mmcv._ext)))
assert not missing, f'mmcv._ext has no {missing}'
boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [20, 21, 30, 31], [50, 50, 60, 60.]])
scores = torch.tensor([0.9, 0.8, 0.7, 0.95, 0.5])
for device in sys.argv[1:]:
    torch.manual_seed(0)
    _, kept = nms(boxes.to(device), scores.to(device), 0.5)
    assert kept.tolist() == [3, 0, 4], (device, kept)
    x, weight = torch.randn(1, 2, 8, 8, device=device), torch.randn(4, 2, 3, 3, device=device)
    rois = torch.tensor([[0, 0.5, 1, 6, 7]], device=device)
    aligned = roi_align(x, rois, (3, 3), 1.0, 2, 'avg', True)
    tolerance = dict(rtol=0, atol=1e-2)  # GPUs may multiply in TF32
    assert_close(aligned, roi_align_of_torchvision(x, rois, (3, 3), 1.0, 2, aligned=True), **tolerance)
    offsets, ones = torch.zeros(1, 18, 8, 8, device=device), torch.ones(1, 9, 8, 8, device=device)
    expected = conv2d(x, weight, padding=1)
    assert_close(deform_conv2d(x, offsets, weight, 1, 1), expected, **tolerance)
    assert_close(modulated_deform_conv2d(x, offsets, ones, weight, None, 1, 1), expected, **tolerance)
    # (batch, positions, heads, channels); (batch, queries, heads, levels, points) and x, y
    value = torch.ones(1, 64, 2, 4, device=device)
    shapes = torch.tensor([[8, 8]], device=device)
    places = 0.2 + 0.6 * torch.rand(1, 3, 2, 1, 4, 2, device=device)
    weights = torch.full(places.shape[:-1], 0.25, device=device)
    if device == 'cpu':  # PyTorch's operators, as in MMCV's module
        attended = multi_scale_deformable_attn_pytorch(value, shapes, places, weights)
    else:
        attend = MultiScaleDeformableAttnFunction.apply
        attended = attend(value, shapes, shapes.new_zeros(1), places, weights, 1)
    assert_close(attended, torch.ones(1, 3, 8, device=device), **tolerance)
"""


class SetupError(Exception):
    """A problem that the user has to fix; the message names the remedy."""


def say(message: str) -> None:
    """Print a progress message."""
    print(f'[setup] {message}', flush=True)


def find_python() -> str:
    """An interpreter of a supported version that can compile extensions."""
    candidates = [os.environ.get('PYTHON'), sys.executable, *(f'python{version}' for version in SUPPORTED)]
    seen = []
    for candidate in filter(None, candidates):
        path = shutil.which(candidate)
        if path is None:
            continue
        probe = subprocess.run([path, '-c', PROBE], capture_output=True, text=True)
        version, _, headers = probe.stdout.strip().partition(' ')
        if probe.returncode or version not in SUPPORTED:
            seen.append(version or path)
        elif headers != 'True':
            raise SetupError(
                f'{path} has no Python.h, which compiling MMCV needs: install its headers '
                f'(apt-get install python{version}-dev)'
            )
        else:
            return path
    found = f' (found {", ".join(dict.fromkeys(seen))})' if seen else ''
    raise SetupError(f'Python 3.10, 3.11 or 3.12 is needed{found}: install one, or set PYTHON=/path/to/it')


def fingerprint(python: str) -> str:
    """Hash of everything that the environment is built from."""
    digest = hashlib.sha256(f'{python} {VENV.resolve()} {platform.machine()}'.encode())
    for path in sorted(REQUIREMENTS.glob('*.txt')):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(command: list, **options) -> None:
    """Run a command in the foreground."""
    result = subprocess.run([str(part) for part in command], cwd=ROOT, **options)
    if result.returncode:
        name = ' '.join(str(part) for part in command[1:5])
        raise SetupError(f'{name} failed (exit status {result.returncode}); see the output above; try again')


def pip(*arguments) -> None:
    """Run the environment's pip."""
    run([VENV_PYTHON, '-m', 'pip', '--disable-pip-version-check', *arguments])


@functools.cache
def probe_torch() -> tuple[str, bool]:
    """The tag of a build of MMCV that fits Python and torch, and whether it gets CUDA operators."""
    probe = subprocess.run([VENV_PYTHON, '-c', TORCH_PROBE], capture_output=True, text=True)
    if probe.returncode:
        reason = (probe.stderr.splitlines() or [f'exit status {probe.returncode}'])[-1]
        raise SetupError(f'torch cannot be imported ({reason}): call `make clean setup`')
    tag, gpu, nvcc = probe.stdout.split()
    if (gpu, nvcc) == ('True', 'False'):
        say('there is a GPU, but no nvcc: MMCV gets its CPU operators only. Segmentation and classification')
        say('run on the GPU without; for detection install the CUDA toolkit, call `make clean setup`')
    cuda = (gpu, nvcc) == ('True', 'True')
    return f'{tag}-{"cuda" if cuda else "cpu"}', cuda


def group_sources(source: Path) -> None:
    """Combine MMCV's CPU sources into two files: parsing torch's headers takes most of the time.

    MMCV's ``setup.py`` compiles ``*.cpp`` of both folders, so included files move to a subfolder. It is
    done in the order of names: those of the two files put what takes longest first.

    Args:
        source (Path): The unpacked sources of MMCV.
    """
    operators = source / 'mmcv/ops/csrc/pytorch'
    for folder, ungrouped in ((operators, ()), (operators / 'cpu', UNGROUPED)):
        grouped = folder / 'grouped'
        grouped.mkdir()
        paths = sorted(path for path in folder.glob('*.cpp') if path.name not in ungrouped)
        for path in paths:
            path.rename(grouped / path.name)
        lines = (f'#include "grouped/{path.name}"\n' for path in paths)
        (folder / 'all.cpp').write_text('#include <torch/extension.h>\n' + ''.join(lines))


def run_with_progress(command: list, log: Path, env: dict) -> None:
    """Run a command that calls ninja, and report its progress every ten seconds."""
    start = last_report = time.monotonic()
    with open(log, 'a') as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(0.5)
                if time.monotonic() - last_report >= 10:
                    last_report = time.monotonic()
                    steps = re.findall(r'^\s*\[(\d+)/(\d+)\]', log.read_text(errors='replace'), re.M)
                    done = f', {steps[-1][0]} of {steps[-1][1]} files' if steps else ''
                    say(f'compiling MMCV: {(last_report - start) / 60:.1f} min{done}')
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        tail = '\n'.join(log.read_text(errors='replace').splitlines()[-15:])
        raise SetupError(f'MMCV could not be compiled; the end of {log}:\n{tail}')


def compile_mmcv(folder: Path, cuda: bool, grouped: bool, rebuild: bool = False) -> Path:
    """Compile MMCV with its operators into a wheel in ``folder``, and return it."""
    draft = folder.with_name(f'{folder.name}.part')
    wheels = draft / 'wheels'
    shutil.rmtree(draft, ignore_errors=True)
    wheels.mkdir(parents=True)
    log = CACHE / LOGS[grouped]
    log.unlink(missing_ok=True)
    pip_command = [VENV_PYTHON, '-m', 'pip', '--disable-pip-version-check']
    options = ['-v', '--no-deps', '--no-build-isolation']
    source = re.search(r'^(mmcv==.+)$', (REQUIREMENTS / 'mminstall.txt').read_text(), re.M)[1]
    env = dict(os.environ, MMCV_WITH_OPS='1', PATH=f'{VENV}/bin{os.pathsep}{os.environ["PATH"]}')
    if not cuda:
        env['CUDA_VISIBLE_DEVICES'] = ''
        # CPPFLAGS are added to Python's own CFLAGS, whose debug symbols take two fifths of the time.
        env['CPPFLAGS'] = f'{env.get("CPPFLAGS", "")} -g0'
    if grouped:
        env.setdefault('MAX_JOBS', str(os.cpu_count()))  # up to 2.3 GB each; MMCV would start at least four
        command = [*pip_command, 'download', *options, '--no-binary', 'mmcv', '-d', draft, source]
        run_with_progress(command, log, env)
        (archive,) = draft.glob('mmcv-*.tar.gz')
        shutil.unpack_archive(archive, draft)
        source = draft / archive.name.removesuffix('.tar.gz')
        group_sources(source)
    if rebuild:  # pip keeps wheels by the name of their source alone, whatever torch they were compiled with
        options.append('--no-cache-dir')
    run_with_progress([*pip_command, 'wheel', *options, '-w', wheels, source], log, env)
    shutil.rmtree(folder, ignore_errors=True)
    wheels.rename(folder)
    shutil.rmtree(draft)
    return next(folder.glob('mmcv-*.whl'))


def build_mmcv(rebuild: bool = False) -> Path:
    """The wheel of MMCV in this checkout's cache, compiled with its operators if it is not there.

    Args:
        rebuild (bool): Whether to recompile it in any case, each source separately.
    """
    tag, cuda = probe_torch()
    folder = CACHE / f'mmcv-{tag}'
    wheels = sorted(folder.glob('mmcv-*.whl'))
    if wheels and not rebuild:
        return wheels[0]
    check_compiler()
    if not cuda and not rebuild:
        try:
            return compile_mmcv(folder, cuda, grouped=True)
        except SetupError:
            say(f'MMCV does not compile with its sources grouped (see {CACHE / LOGS[True]}): {PLAIN}')
    return compile_mmcv(folder, cuda, grouped=False, rebuild=rebuild)


def prove_mmcv() -> bool:
    """Run operators of the installed MMCV."""
    devices = ['cpu', 'cuda'] if probe_torch()[1] else ['cpu']
    return subprocess.run([VENV_PYTHON, '-c', PROOF, *devices]).returncode == 0


def install_mmcv() -> None:
    """Install MMCV and verify that its operators run; recompile it if they do not."""
    pins = [part for name in PINNED for part in ('-c', REQUIREMENTS / f'{name}.txt')]
    wheel = build_mmcv()
    # Whatever torch the one that is there was compiled with: its version is the same.
    pip('install', '--force-reinstall', '--no-deps', wheel)
    pip('install', wheel, *pins)
    if not prove_mmcv():
        say(f'the operators of this MMCV do not run: {PLAIN}')
        pip('install', '--force-reinstall', '--no-deps', build_mmcv(rebuild=True))
        if not prove_mmcv():
            raise SetupError(
                f'the operators of MMCV do not run after compiling it: see {CACHE / LOGS[False]}'
            )


def install_others() -> None:
    """Install the packages that need no compiling, and this one."""
    pip('install', *(part for name in PINNED for part in ('-r', REQUIREMENTS / f'{name}.txt')))
    pip('install', '--no-deps', '--no-build-isolation', '-e', ROOT)
    pip('check')


def check_compiler() -> None:
    """Check that there is the C++ compiler that PyTorch's build of extensions starts."""
    compiler = os.environ.get('CXX') or 'c++'
    if shutil.which(shlex.split(compiler)[0]) is None:
        raise SetupError(
            f"there is no C++ compiler '{compiler}' on PATH: install one (apt-get install g++) or set CXX"
        )


def starts() -> bool:
    """Whether the environment's interpreter starts, and the environment was not moved."""
    try:
        moved = f'{VENV}/bin' not in (VENV / 'bin/pip').read_text()  # scripts name their interpreter
        return not moved and subprocess.run([VENV_PYTHON, '-c', ''], capture_output=True).returncode == 0
    except OSError:
        return False


def make_venv(python: str, state: dict) -> None:
    """Create an empty environment, with the record that it is being made."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED_GB:
        raise SetupError(f'{free:.1f} GB are free and about {NEEDED_GB} GB are needed: make room')
    check_compiler()
    VENV.mkdir()
    write_state(dict(state, running='venv'))
    result = subprocess.run([python, '-m', 'venv', VENV], capture_output=True, text=True)
    if result.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        raise SetupError(
            f'{python} cannot make a virtual environment: install its venv module '
            '(apt-get install python3-venv)'
        )


def write_state(state: dict) -> None:
    """Record the progress of the set-up."""
    draft = STATE.with_suffix('.part')
    draft.write_text(json.dumps(state))
    draft.replace(STATE)


def read_state() -> dict | None:
    """The recorded progress of the set-up; None if ``.venv`` is not there.

    Raises:
        SetupError: What is there was not made by this script, for this place.
    """
    if not os.path.lexists(VENV):
        return None
    try:
        state = json.loads(STATE.read_text())
        valid = isinstance(state['fingerprint'], str) and isinstance(state['python'], str)
        valid = valid and isinstance(state['done'], list)
        state.setdefault('was_ready', state.get('ready', False))
    except (OSError, ValueError, TypeError, KeyError):  # not there, or not what write_state writes
        valid = False
    if not valid:
        raise SetupError(
            f'{VENV} is not an environment that this set-up made, and is left alone: move it away, or '
            'install into it yourself (docs/install.md)'
        )
    return state


def build_environment() -> None:
    """Bring the environment into the state that this checkout needs."""
    state = read_state()
    if state and state.get('ready') and state['fingerprint'] == fingerprint(state['python']):
        return
    start = time.monotonic()
    python = state['python'] if state and state.get('was_ready') else find_python()
    print_of_this = fingerprint(python)
    if state and VENV.is_symlink():
        raise SetupError(
            f'{VENV} is a link to {VENV.resolve()}, which is not up to date with this checkout, and is left '
            'alone: update it where it was made, or remove the link'
        )
    if state and state.get('was_ready'):
        if state.get('running'):
            raise SetupError(f'an update of .venv was interrupted and may have left half a package: {ANEW}')
        if not starts():
            raise SetupError(f'{VENV_PYTHON} does not start, or is not at home in {VENV}: {ANEW}')
        if state['fingerprint'] != print_of_this:
            say('the requirements have changed: updating .venv in place')
            state = dict(state, fingerprint=print_of_this, done=[], ready=False)
    elif state and (state['fingerprint'] != print_of_this or state.get('running')):
        say('the first set-up of the environment was interrupted: building it again')
        shutil.rmtree(VENV)
        state = None
    if state is None:
        say(f'building .venv with {python}: about 3 minutes on two cores, 1.5 of them for compiling MMCV')
        state = dict(fingerprint=print_of_this, python=python, done=[])
        make_venv(python, state)
        write_state(state)

    # An interrupted pip may leave a partial package that it considers complete, so the environment has to be
    # rebuilt then; compiling does not touch it.
    steps = (
        ('torch', True, 'torch and the build tools, about 1 minute and 5 GB', install_torch),
        ('wheel', False, 'compiling MMCV, 1 or 2 minutes on two cores, 25 with CUDA operators', build_mmcv),
        ('mmcv', True, 'MMCV, and a run of its operators', install_mmcv),
        ('others', True, 'the rest of the OpenMMLab stack and mmmeta, some seconds', install_others),
    )
    for number, (name, touches, description, step) in enumerate(steps, 1):
        if name in state['done']:
            continue
        say(f'{number}/{len(steps)} {description}')
        write_state(dict(state, running=name if touches else None))
        try:
            step()
        except SetupError:
            if state.get('was_ready'):  # pip ended by itself, and undid what it could not finish
                write_state(dict(state, running=None))
            raise
        state['done'].append(name)
        write_state(state)
    write_state(dict(state, ready=True, was_ready=True))
    say(f'ready after {(time.monotonic() - start) / 60:.1f} min; packages are in .venv')


def install_torch() -> None:
    """Install what compiling MMCV needs."""
    pip('install', '-r', REQUIREMENTS / 'build.txt')


def main() -> int:
    """Build the environment unless it is there; one process at a time."""
    CACHE.mkdir(exist_ok=True)
    with open(CACHE / 'setup.lock', 'w') as lock:
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say('another process is building the environment: waiting for it')
                fcntl.flock(lock, fcntl.LOCK_EX)
            build_environment()
        except SetupError as error:
            print(f'error: {error}', file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print('error: interrupted; the next call continues', file=sys.stderr)
            return 130
    return 0


if __name__ == '__main__':
    argparse.ArgumentParser(description=__doc__).parse_args()
    sys.exit(main())
