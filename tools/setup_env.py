#!/usr/bin/env python3
"""Build the virtual environment of this checkout, once; with it in place this takes no time.

Needs Python 3.10 to 3.12, a C++ compiler and, the first time, a package index. What was interrupted is
repaired by the next call. Only the standard library is used here.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
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
PINNED = ('build', 'mminstall', 'runtime', 'optional', 'tests', 'docs')
SUPPORTED = ('3.12', '3.11', '3.10')

PROBE = """
import os, sys, sysconfig
headers = os.path.join(sysconfig.get_path('include'), 'Python.h')
print('%d.%d' % sys.version_info[:2], os.path.isfile(headers))
"""
# A suppression of five boxes, two of which overlap a better one.
PROOF = """
import sys, torch
from mmcv.ops import nms
boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [20, 21, 30, 31], [50, 50, 60, 60.]])
scores = torch.tensor([0.9, 0.8, 0.7, 0.95, 0.5])
for device in sys.argv[1:]:
    _, kept = nms(boxes.to(device), scores.to(device), 0.5)
    assert kept.tolist() == [3, 0, 4], (device, kept)
"""


class SetupError(Exception):
    """Something that the user has to mend; the message says what."""


def say(message: str) -> None:
    """Tell what is being done."""
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
    """What the environment is made from."""
    digest = hashlib.sha256(f'{python} {VENV} {platform.machine()}'.encode())
    for path in sorted(REQUIREMENTS.glob('*.txt')):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(command: list, **options) -> None:
    """Run a command in the foreground."""
    result = subprocess.run([str(part) for part in command], cwd=ROOT, **options)
    if result.returncode:
        name = ' '.join(str(part) for part in command[1:5])
        raise SetupError(
            f'{name} failed (exit status {result.returncode}); the reason stands above; try again'
        )


def pip(*arguments) -> None:
    """Run the environment's pip."""
    run([VENV_PYTHON, '-m', 'pip', '--disable-pip-version-check', *arguments])


def cuda_ops() -> bool:
    """Whether CUDA operators can be compiled and used here."""
    code = 'import torch; from torch.utils.cpp_extension import CUDA_HOME; '
    code += 'print(torch.cuda.is_available(), CUDA_HOME is not None)'
    output = subprocess.run([VENV_PYTHON, '-c', code], capture_output=True, text=True).stdout.split()
    if output == ['True', 'False']:
        say('there is a GPU, but no nvcc: MMCV gets its CPU operators only. Segmentation and classification')
        say('run on the GPU without; for detection install the CUDA toolkit, remove .venv, try again')
    return output == ['True', 'True']


def build_mmcv(use_cache: bool = True) -> Path:
    """Compile MMCV with its operators into a wheel of this checkout's cache, and return it."""
    cuda = cuda_ops()
    tag = subprocess.run(
        [VENV_PYTHON, '-c', 'import sys, torch; print(f"py{sys.version_info[1]}-torch{torch.__version__}")'],
        capture_output=True,
        text=True,
    ).stdout.strip()
    folder = CACHE / f'mmcv-{tag}-{"cuda" if cuda else "cpu"}'
    wheels = sorted(folder.glob('mmcv-*.whl'))
    if wheels and use_cache:
        return wheels[0]
    shutil.rmtree(folder, ignore_errors=True)
    draft = folder.with_suffix('.part')
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    version = re.search(r'^(mmcv==.+)$', (REQUIREMENTS / 'mminstall.txt').read_text(), re.M)[1]
    command = [VENV_PYTHON, '-m', 'pip', '--disable-pip-version-check', 'wheel', '-v', '--no-deps']
    command += ['--no-build-isolation', '-w', draft, version, *([] if use_cache else ['--no-cache-dir'])]
    env = dict(os.environ, MMCV_WITH_OPS='1', PATH=f'{VENV}/bin{os.pathsep}{os.environ["PATH"]}')
    if not cuda:
        env['CUDA_VISIBLE_DEVICES'] = ''
    log = CACHE / 'mmcv-build.log'
    start = told = time.monotonic()
    with open(log, 'w') as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(0.5)
                if time.monotonic() - told >= 20:
                    told = time.monotonic()
                    steps = re.findall(r'^\s*\[(\d+)/(\d+)\]', log.read_text(errors='replace'), re.M)
                    done = f', {steps[-1][0]} of {steps[-1][1]} files' if steps else ''
                    say(f'compiling MMCV: {(told - start) / 60:.1f} min{done}')
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        tail = '\n'.join(log.read_text(errors='replace').splitlines()[-15:])
        raise SetupError(f'MMCV could not be compiled; the end of {log}:\n{tail}')
    draft.rename(folder)
    return next(folder.glob('mmcv-*.whl'))


def prove_mmcv() -> bool:
    """Run an operator of the installed MMCV."""
    devices = ['cpu', 'cuda'] if cuda_ops() else ['cpu']
    return subprocess.run([VENV_PYTHON, '-c', PROOF, *devices]).returncode == 0


def install_mmcv() -> None:
    """Install MMCV and prove that its operators run; compile it anew if they do not."""
    for use_cache in (True, False):
        wheel = build_mmcv(use_cache)
        pip('install', '--force-reinstall', '--no-deps', wheel)
        pip('install', wheel, *(part for name in PINNED for part in ('-c', REQUIREMENTS / f'{name}.txt')))
        if prove_mmcv():
            return
        say('the operators of this MMCV do not run (built for another torch?): compiling it anew')
    raise SetupError(f'the operators of MMCV do not run after compiling it: see {CACHE / "mmcv-build.log"}')


def install_others() -> None:
    """Install the packages that need no compiling, and this one."""
    pip('install', *(part for name in PINNED for part in ('-r', REQUIREMENTS / f'{name}.txt')))
    pip('install', '--no-deps', '--no-build-isolation', '-e', ROOT)
    pip('check')


def make_venv(python: str) -> None:
    """Create an empty environment."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED_GB:
        raise SetupError(f'{free:.1f} GB are free and about {NEEDED_GB} GB are needed: make room')
    if not (shutil.which('c++') or shutil.which('g++')):
        raise SetupError('no C++ compiler (c++ or g++) on PATH: install one (apt-get install g++)')
    result = subprocess.run([python, '-m', 'venv', VENV], capture_output=True, text=True)
    if result.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        raise SetupError(
            f'{python} cannot make a virtual environment: install its venv module '
            '(apt-get install python3-venv)'
        )


def write_state(state: dict) -> None:
    """Record how far the set-up is."""
    draft = STATE.with_suffix('.part')
    draft.write_text(json.dumps(state))
    draft.replace(STATE)


def build_environment() -> None:
    """Bring the environment into the state that this checkout needs."""
    try:
        state = json.loads(STATE.read_text())
    except (OSError, ValueError):
        state = {}
    if state.get('ready') and state['fingerprint'] == fingerprint(state['python']):
        return
    python = find_python()
    start = time.monotonic()
    print_of_this = fingerprint(python)
    if VENV.exists() and (state.get('fingerprint') != print_of_this or state.get('running')):
        say('the environment is incomplete or out of date: building it again')
        shutil.rmtree(VENV)
        state = {}
    if not VENV.exists():
        say(f'building .venv with {python}: about 14 minutes on two cores, 12 of them for compiling MMCV')
        make_venv(python)
        state = dict(fingerprint=print_of_this, python=python, done=[])
        write_state(state)

    # A pip that was interrupted may leave half a package that it takes for a whole one, so the environment is
    # made anew then; compiling does not touch it.
    steps = (
        ('torch', True, 'torch and the build tools, about 1 minute and 5 GB', install_torch),
        ('wheel', False, 'compiling MMCV with its operators, about 12 minutes on two cores', build_mmcv),
        ('mmcv', True, 'MMCV, and a run of one of its operators', install_mmcv),
        ('others', True, 'the rest of the OpenMMLab stack and mmmeta, some seconds', install_others),
    )
    for number, (name, touches, description, step) in enumerate(steps, 1):
        if name in state['done']:
            continue
        say(f'{number}/{len(steps)} {description}')
        write_state(dict(state, running=name if touches else None))
        step()
        state['done'].append(name)
        write_state(state)
    write_state(dict(state, ready=True))
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
            print('error: interrupted; the next call goes on', file=sys.stderr)
            return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
