#!/usr/bin/env python3
"""Build the virtual environment of this checkout; does nothing if it is up to date.

Needs Python 3.10 to 3.13, a C++ compiler and, the first time, a package index. A first set-up that was
interrupted is repaired by the next call; an environment that was complete is updated in place and never
deleted. Only the standard library is used here.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import mmcv_wheel
from mmcv_wheel import CACHE, PLAIN, REQUIREMENTS, ROOT, SUPPORTED, SetupError, check_compiler, say

VENV = ROOT / '.venv'
STATE = VENV / 'setup.json'
VENV_PYTHON = VENV / 'bin/python'
NEEDED_GB = 8
ANEW = 'to build it anew, call `make clean setup`'
PINNED = ('build', 'mminstall', 'runtime', 'optional', 'deploy', 'tests', 'docs')
# What the maintained fork has in the place of the official packages.
STACKS = {
    'official': {},
    'onedl': {
        'mmengine': 'onedl-mmengine==0.10.12',
        'mmcv': 'onedl-mmcv==2.3.6',
        'mmdet': 'onedl-mmdetection==3.5.1',
        'mmsegmentation': 'onedl-mmsegmentation==1.4.2',
        'mmpretrain': 'onedl-mmpretrain==1.3.6',
    },
}

PROBE = """
import os, sys, sysconfig
headers = os.path.join(sysconfig.get_path('include'), 'Python.h')
print('%d.%d' % sys.version_info[:2], os.path.isfile(headers))
"""
# The files of PyTorch and of what it needs that is large: top-level names in the folder where they are.
KEPT_PROBE = """
import json, re
from importlib.metadata import distributions, version
large = re.compile(r'(torch|torchvision|(pytorch[-_])?triton|nvidia[-_].*|cuda[-_].*)$')
entries = {}
for distribution in distributions():
    if large.match(distribution.metadata['Name'] or ''):
        for file in distribution.files or ():
            name = file.parts[0]
            if name not in ('..', '__pycache__'):
                entries[name] = str(distribution.locate_file(name))
versions = {}
for name in ('torch', 'torchvision'):
    try:
        versions[name] = version(name)
    except ImportError:
        pass
print(json.dumps(dict(versions=versions, entries=entries)))
"""


@dataclass(frozen=True)
class Options:
    """What the environment was asked to have; later calls keep it.

    Args:
        torch (str | None): ``'keep'`` takes the PyTorch that the interpreter has. Default: None, the one in
            ``requirements/build.txt``.
        stack (str): ``'official'``, or ``'onedl'`` for the maintained fork.
        cuda (str | None): ``'1'`` demands CUDA operators, ``'0'`` does without. Default: None, which is for a
            GPU that can be used.
        archs (str | None): Compute capabilities to compile for. Default: None, those of the GPUs here.
    """

    torch: str | None = None
    stack: str = 'official'
    cuda: str | None = None
    archs: str | None = None


def find_python(kept: bool = False) -> str:
    """An interpreter of a supported version that can compile extensions, from uv if there is no other.

    Args:
        kept (bool): Whether it has to have PyTorch. Default: False.

    Raises:
        SetupError: There is none.
    """
    candidates = [os.environ.get('PYTHON'), sys.executable, *(f'python{version}' for version in SUPPORTED)]
    seen, without_headers = [], None
    for candidate in filter(None, candidates):
        path = shutil.which(candidate)
        if path is None:
            continue
        probe = subprocess.run([path, '-c', PROBE], capture_output=True, text=True)
        version, _, headers = probe.stdout.strip().partition(' ')
        if probe.returncode or version not in SUPPORTED:
            seen.append(version or path)
        elif headers != 'True':
            without_headers = without_headers or (path, version)
        elif kept and 'torch' not in kept_torch(path)['versions']:
            seen.append(f'{path} without torch')
        else:
            return path
    found = f' (found {", ".join(dict.fromkeys(seen))})' if seen else ''
    if kept:
        raise SetupError(
            f'TORCH=keep needs an interpreter of Python 3.10 to 3.13 that has torch{found}: activate its '
            'environment, or set PYTHON=/path/to/it'
        )
    if uv := shutil.which('uv'):
        version = SUPPORTED[0]
        say(f'no Python that fits is here{found}: uv installs Python {version} into a folder of its own')
        installed = subprocess.run([uv, 'python', 'install', version])
        answer = subprocess.run([uv, 'python', 'find', version], capture_output=True, text=True)
        if installed.returncode or answer.returncode or not answer.stdout.strip():
            raise SetupError(
                f'`uv python install {version}` failed; see the output above; install Python 3.10 to 3.13 '
                'yourself, or set PYTHON=/path/to/it'
            )
        return answer.stdout.strip()
    if without_headers:
        path, version = without_headers
        raise SetupError(
            f'{path} has no Python.h, which compiling MMCV needs: install its headers '
            f'(apt-get install python{version}-dev), or uv, which brings a Python that has them'
        )
    raise SetupError(
        f'Python 3.10, 3.11, 3.12 or 3.13 is needed{found}: install one, or uv, which brings it, or set '
        'PYTHON=/path/to/it'
    )


def kept_torch(python: str) -> dict:
    """Versions of PyTorch and TorchVision that an interpreter has, and the paths of their files by name."""
    probe = subprocess.run([python, '-c', KEPT_PROBE], capture_output=True, text=True)
    if probe.returncode:
        raise SetupError(f'{python} cannot list its packages: {probe.stderr.strip().splitlines()[-1:]}')
    return json.loads(probe.stdout)


def fingerprint(python: str, options: Options = Options()) -> str:
    """Hash of everything that the environment is built from."""
    digest = hashlib.sha256(f'{python} {VENV.resolve()} {platform.machine()}'.encode())
    for path in sorted(REQUIREMENTS.glob('*.txt')):
        digest.update(path.read_bytes())
    if options.torch:
        digest.update(json.dumps(kept_torch(python), sort_keys=True).encode())
    if options.stack != 'official':
        digest.update(json.dumps(STACKS[options.stack]).encode())
    return digest.hexdigest()


def pip(*arguments) -> None:
    """Run the environment's pip."""
    mmcv_wheel.pip(VENV_PYTHON, *arguments)


def requirements(options: Options, *names: str) -> list[str]:
    """The requirements in files, with those of another stack or of a PyTorch that is kept instead of them."""
    instead = dict(STACKS[options.stack])
    if options.torch:
        kept = kept_torch(str(VENV_PYTHON))['versions']
        instead |= {
            name: f'{name}=={kept[name]}' if name in kept else name for name in ('torch', 'torchvision')
        }
    lines = (line for name in names for line in (REQUIREMENTS / f'{name}.txt').read_text().splitlines())
    needed = [line.strip() for line in lines if line.strip() and not line.startswith('#')]
    return [instead.get(re.split(r'[^\w-]', line)[0], line) for line in needed]


def mmcv_source(options: Options) -> str:
    """MMCV or the fork's, and its version."""
    return next(line for line in requirements(options, 'mminstall') if 'mmcv==' in line)


def install_torch(options: Options) -> None:
    """Install what compiling MMCV needs; a PyTorch that is kept is linked, and never written to."""
    if options.torch:
        state = json.loads(STATE.read_text())
        kept = kept_torch(state['python'])
        (site,) = VENV.glob('lib/python3.*/site-packages')
        for name, path in kept['entries'].items():
            if not os.path.lexists(site / name):
                (site / name).symlink_to(path)
    pip('install', *requirements(options, 'build'))
    mmcv_wheel.probe_torch.cache_clear()


def install_others(options: Options) -> None:
    """Install the packages that need no compiling, and this one."""
    needed = requirements(options, *PINNED)
    needed.remove(mmcv_source(options))
    pip('install', *needed)
    # Of a checkout from before the distribution was renamed.
    pip('uninstall', '-y', '-qq', 'mmmeta')
    pip('install', '--no-deps', '--no-build-isolation', '-e', ROOT)


def build_mmcv(options: Options) -> Path:
    """Compile MMCV, unless the cache has its wheel, and run its operators before anything is installed.

    Where grouped sources do not compile, or the operators do not run, each source is compiled by itself;
    where no CUDA operators can be had and none were demanded, those of CPUs.

    Raises:
        SetupError: Nothing that runs can be compiled.
    """
    torch = mmcv_wheel.probe_torch(VENV_PYTHON)
    source = mmcv_source(options)
    archs = mmcv_wheel.choose_archs(torch, options.cuda, options.archs)
    demanded = options.cuda == '1' or options.archs
    for chosen in (archs, ()) if archs and not demanded else (archs,):
        devices = ['cpu', 'cuda'] if chosen and torch.archs else ['cpu']
        try:
            wheel = mmcv_wheel.build_wheel(torch, chosen, source)
            if not prove_wheel(wheel, devices):
                say(f'the operators of this MMCV do not run: {PLAIN}')
                wheel = mmcv_wheel.build_wheel(torch, chosen, source, anew=True)
                if not prove_wheel(wheel, devices):
                    raise SetupError(
                        f'the operators of MMCV do not run after compiling it: see {CACHE}/mmcv-build.log'
                    )
            return wheel
        except SetupError as error:
            if not chosen or demanded:
                raise
            say(f'{error}. Until then MMCV gets its CPU operators only: no detector runs on the GPU')
    raise AssertionError


def prove_wheel(wheel: Path, devices: list[str]) -> bool:
    """Run operators of a wheel that is not installed."""
    unpacked = CACHE / 'mmcv-proof'
    shutil.rmtree(unpacked, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    works = mmcv_wheel.prove(VENV_PYTHON, devices, unpacked)
    shutil.rmtree(unpacked)
    return works


def install_mmcv(options: Options) -> None:
    """Install the MMCV that was compiled and proved; its version does not tell for which PyTorch."""
    wheel = json.loads(STATE.read_text()).get('wheel')
    if wheel is None or not Path(wheel).exists():  # compiled before this was noted, or removed since
        wheel = build_mmcv(options)
    pip('install', '--force-reinstall', '--no-deps', wheel)
    pip('check')


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
    draft = CACHE / 'venv.part'  # never there without its record
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    (draft / STATE.name).write_text(json.dumps(dict(state, running='venv')))
    draft.rename(VENV)
    result = subprocess.run([python, '-m', 'venv', VENV], capture_output=True, text=True)
    if result.returncode:
        remove_venv()
        raise SetupError(
            f'{python} cannot make a virtual environment: install its venv module '
            '(apt-get install python3-venv)'
        )


def remove_venv() -> None:
    """Remove an environment that was never complete, at once."""
    rest = CACHE / 'venv.rest'
    shutil.rmtree(rest, ignore_errors=True)
    VENV.rename(rest)
    shutil.rmtree(rest)


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
        state['options'] = Options(**state.get('options', {}))
    except (OSError, ValueError, TypeError, KeyError):  # not there, or not what write_state writes
        valid = False
    if not valid:
        raise SetupError(
            f'{VENV} is not an environment that this set-up made, and is left alone: move it away, or '
            'install into it yourself (docs/install.md)'
        )
    return state


def merge_options(state: dict | None, wanted: dict) -> Options:
    """Add what is asked for to what the environment was asked to have.

    Raises:
        SetupError: It is complete, and would have to be another one.
    """
    recorded = state['options'] if state else Options()
    options = replace(recorded, **wanted)
    if state and state['was_ready']:
        for name in ('torch', 'stack'):
            now, then = getattr(options, name), getattr(recorded, name)
            if now != then:
                raise SetupError(
                    f'.venv was built with {name.upper()}={then or ""}, and {name.upper()}={now} needs '
                    f'another one: call `make clean setup {name.upper()}={now}`'
                )
    return options


def is_current(state: dict | None, options: Options) -> bool:
    """Whether the environment is what this checkout needs."""
    return bool(
        state
        and state.get('ready')
        and state['options'] == options
        and state['fingerprint'] == fingerprint(state['python'], options)
    )


def build_environment(wanted: dict) -> None:
    """Bring the environment into the state that this checkout needs."""
    state = read_state()
    options = merge_options(state, wanted)
    if is_current(state, options):
        return
    start = time.monotonic()
    python = state['python'] if state and state.get('was_ready') else find_python(bool(options.torch))
    print_of_this = fingerprint(python, options)
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
        elif state['options'] != options:
            say('other operators of MMCV are asked for: updating .venv in place')
            state = dict(state, done=['torch', 'others'], ready=False)
    elif state and (
        state['fingerprint'] != print_of_this or state['options'] != options or state.get('running')
    ):
        say('the first set-up of the environment was interrupted: building it again')
        remove_venv()
        state = None
    record = asdict(options)
    if state is None:
        say(f'building .venv with {python}: about 3 minutes on two cores, 1 of them for compiling MMCV')
        state = dict(fingerprint=print_of_this, python=python, done=[], options=record)
        make_venv(python, state)
    state = dict(state, options=record)

    # An interrupted pip may leave a partial package that it considers complete, so the environment has to be
    # rebuilt then; compiling does not touch it.
    steps = (
        ('torch', True, 'torch and the build tools, about 1 minute and 5 GB', install_torch),
        ('others', True, 'the OpenMMLab stack without MMCV, and mmmeta, half a minute', install_others),
        (
            'wheel',
            False,
            'compiling MMCV and running it, 1 minute on two cores, 5 with CUDA operators',
            build_mmcv,
        ),
        ('mmcv', True, 'MMCV, some seconds', install_mmcv),
    )
    for number, (name, touches, description, step) in enumerate(steps, 1):
        if name in state['done']:
            continue
        say(f'{number}/{len(steps)} {description}')
        write_state(dict(state, running=name if touches else None))
        try:
            outcome = step(options)
        except SetupError:
            if state.get('was_ready'):  # pip ended by itself, and undid what it could not finish
                write_state(dict(state, running=None))
            raise
        if name == 'wheel':
            state['wheel'] = str(outcome)
        state['done'].append(name)
        write_state(state)
    write_state(dict(state, ready=True, was_ready=True))
    say(f'ready after {(time.monotonic() - start) / 60:.1f} min; packages are in .venv')


def parse_arguments(arguments: list[str] | None = None) -> dict:
    """The options that were given, without those that were not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--torch', choices=['keep'], help='take the PyTorch that the interpreter has')
    parser.add_argument('--stack', choices=[*STACKS], help="OpenMMLab's packages, or those of the fork")
    parser.add_argument('--cuda', choices=['0', '1'], help='without CUDA operators, or with them in any case')
    parser.add_argument('--archs', help='compute capabilities to compile for, such as 8.0;9.0')
    return {name: value for name, value in vars(parser.parse_args(arguments)).items() if value}


def main(wanted: dict) -> int:
    """Build the environment unless it is there; one process at a time."""
    try:
        mmcv_wheel.parse_archs(wanted.get('archs'))
        state = read_state()
        if is_current(state, merge_options(state, wanted)):
            return 0
        with mmcv_wheel.lock():
            build_environment(wanted)
    except SetupError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('error: interrupted; the next call continues', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main(parse_arguments()))
