#!/usr/bin/env python3
"""Compile MMCV with its operators into a wheel (`make wheel-mmcv`), for this machine or another one.

CUDA operators are compiled without a GPU and without a toolkit: where no fitting nvcc is found, the compiler
comes from the package index. Only the standard library is used here.
"""

import argparse
import contextlib
import errno
import fcntl
import fnmatch
import functools
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / '.cache'
REQUIREMENTS = ROOT / 'requirements'
SUPPORTED = ('3.12', '3.11', '3.10', '3.13')
PLAIN = 'compiling each of its sources by itself'

# nvcc, its headers, and what it starts, by the CUDA of PyTorch. Without all pins the newest ones are mixed,
# and ptxas refuses what a newer NVVM wrote.
COMPILERS = {
    '13.0': (
        'nvidia-cuda-nvcc==13.0.88',
        'nvidia-cuda-crt==13.0.88',
        'nvidia-nvvm==13.0.88',
        'nvidia-cuda-cccl==13.0.85',
    )
}
# The lowest compute capability that the compilers of a major version of CUDA know, and its oldest driver.
LOWEST = {'13': (7.5, 580), '12': (5.0, 525)}

TORCH_PROBE = """
import json, sys, torch
from torch.utils.cpp_extension import CUDA_HOME
gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
print(json.dumps(dict(
    python='%d.%d' % sys.version_info[:2], version=torch.__version__, cuda=torch.version.cuda,
    hip=torch.version.hip, cuda_home=CUDA_HOME, site=torch.__path__[0] + '/..',
    archs=sorted({'%d.%d' % torch.cuda.get_device_capability(gpu) for gpu in gpus}),
)))
"""

# In MMCV's `setup.py`, `exec` defines a local variable, which Python 3.13 no longer lets it do (PEP 667).
EXEC_DEFINES_LOCALS = """
import builtins, sys
run = builtins.exec
def exec(source, globals=None, locals=None, /, **options):
    if globals is not None:
        return run(source, globals, locals, **options)
    frame = sys._getframe(1)
    if frame.f_locals is frame.f_globals:
        return run(source, frame.f_globals, **options)
    names = dict(frame.f_locals)
    run(source, frame.f_globals, names, **options)
    frame.f_locals.update(names)
builtins.exec = exec
"""

# Files that are compiled as one: its name, the headers before them, and their names. The first match takes a
# file. `torch/extension.h` takes nvcc three times as long as what kernels need; explicit instantiations keep
# the indices of sparse convolution away from what uses them; what takes longest is started first.
TYPES, TENSORS = 'torch/types.h', 'pytorch_cuda_helper.hpp'
GROUPS = (
    ('cuda/group1.cu', (TYPES, TENSORS), 'cuda/filtered_lrelu.cu'),
    (
        'cuda/group2.cu',
        (TYPES, TENSORS),
        'cuda/sparse_[imr]*.cu',
    ),
    (
        'cuda/group3.cu',
        (TYPES, TENSORS),
        'cuda/bias_act* cuda/correlation* cuda/diff_iou* cuda/fused_* cuda/psamask* cuda/scatter_points* '
        'cuda/sparse_pool* cuda/spconv_ops* cuda/tin_shift* cuda/upfirdn2d*',
    ),
    ('cuda/group4.cu', (TENSORS,), 'cuda/*.cu'),
    ('group5.cpp', ('torch/extension.h',), '*.cpp cuda/*.cpp'),
    # psamask.cpp, which defines macros min and max, is the last one.
    ('group6.cpp', ('torch/extension.h',), 'cpu/[!p]*.cpp cpu/p*.cpp'),
)
# Names that several of these files define: each file gets its own.
COLLISIONS = (
    ('EPS Point cross', 'cuda/convex_iou.cu cuda/min_area_polygons.cu cuda/iou3d_cuda.cu'),
    ('dis swap1 Jarvis', 'cuda/convex_iou.cu cuda/min_area_polygons.cu'),
    ('threadsPerBlock divideUP', 'cuda/nms_quadri_cuda.cu cuda/nms_rotated_cuda.cu'),
    ('BLOCK_DIM_X BLOCK_DIM_Y divideUP', 'cuda/box_iou_quadri_cuda.cu cuda/box_iou_rotated_cuda.cu'),
    ('Loc2Index', 'cuda/carafe_naive_cuda.cu'),
    ('check_pt_in_box3d lidar_to_local_coords', 'cuda/roiaware_pool3d_cuda.cu cuda/roipoint_pool3d_cuda.cu'),
    ('InternalType', 'cuda/upfirdn2d_kernel.cu cuda/filtered_lrelu.cu cuda/bias_act_cuda.cu'),
    (
        'PreCalc pre_calc_for_bilinear_interpolate bilinear_interpolate bilinear_interpolate_gradient add',
        'cpu/roi_align.cpp cpu/roi_align_rotated.cpp cpu/rotated_feature_align.cpp',
    ),
)
# Macros of headers that a later file defines with another value.
REDEFINED = ('MAXN', 'NMAX')
# What is replaced in the sources: headers that bring all of TorchScript, and a type that is declared twice.
EDITS = {
    '#include <torch/script.h>': '#include <torch/types.h>',
    '#include <torch/serialize/tensor.h>': '#include <torch/types.h>',
}
DECLARED_TWICE = 'typedef enum { SUM = 0, MEAN = 1, MAX = 2 } reduce_t;\n'

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

sources = [path.read_text() for path in Path(mmcv._ext.__file__).parent.rglob('pytorch/**/pybind.cpp*')]
entries = {name for text in sources for name in re.findall(r'm\\.def\\(\\s*"(\\w+)"', text)}
missing = sorted(entries - set(dir(mmcv._ext)))
assert entries and not missing, f'mmcv._ext has no {missing or "entries"}'
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


class CompileError(SetupError):
    """MMCV could not be compiled."""


def say(message: str) -> None:
    """Print a progress message."""
    print(f'[setup] {message}', flush=True)


@dataclass(frozen=True)
class Torch:
    """The PyTorch that MMCV is compiled for.

    Args:
        executable (Path): Interpreter of its environment.
        python (str): Version of Python, such as ``'3.12'``.
        version (str): Its version, such as ``'2.12.1+cu130'``.
        cuda (str | None): The CUDA that it was built with.
        hip (str | None): The HIP that it was built with.
        cuda_home (str | None): The toolkit that it finds.
        site (str): The folder that it was installed in.
        archs (tuple[str, ...]): Compute capabilities of the GPUs that it can use.
    """

    executable: Path
    python: str
    version: str
    cuda: str | None
    hip: str | None
    cuda_home: str | None
    site: str
    archs: tuple[str, ...]

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor = self.version.split('.')[:2]
        return int(major), int(minor)


@functools.cache
def probe_torch(executable: Path) -> Torch:
    """Ask the PyTorch of an environment what it was built for.

    Raises:
        SetupError: It cannot be imported.
    """
    probe = subprocess.run([executable, '-c', TORCH_PROBE], capture_output=True, text=True)
    if probe.returncode:
        reason = (probe.stderr.splitlines() or [f'exit status {probe.returncode}'])[-1]
        raise SetupError(f'torch cannot be imported ({reason}): call `make clean setup`')
    facts = json.loads(probe.stdout.splitlines()[-1])
    return Torch(executable, **dict(facts, archs=tuple(facts['archs'])))


def unusable_gpu() -> str | None:
    """Name and driver of the first NVIDIA GPU, as its driver reports them; None without one."""
    smi = shutil.which('nvidia-smi')
    if smi is None:
        return None
    query = [smi, '--query-gpu=name,driver_version', '--format=csv,noheader']
    answer = subprocess.run(query, capture_output=True, text=True)
    name, _, driver = (answer.stdout.splitlines() or [''])[0].partition(', ')
    return f'{name} with driver {driver}' if answer.returncode == 0 and driver else None


def parse_archs(archs: str | None) -> tuple[str, ...]:
    """Split a list of compute capabilities, such as ``'8.0;9.0+PTX'``.

    Raises:
        SetupError: There is something else in it.
    """
    chosen = tuple(dict.fromkeys(filter(None, re.split(r'[;,\s]+', archs or ''))))
    if archs and not (chosen and all(re.fullmatch(r'\d+\.\d[af]?(\+PTX)?', arch) for arch in chosen)):
        raise SetupError(
            f"ARCHS='{archs}' has to list compute capabilities, such as 8.0 (A100), 8.6 (RTX 3090), "
            '8.9 (RTX 4090), 9.0 (H100) or 12.0 (RTX 5090), with semicolons between them'
        )
    return chosen


def choose_archs(torch: Torch, cuda: str | None = None, archs: str | None = None) -> tuple[str, ...]:
    """Choose the compute capabilities that CUDA operators are compiled for; none for those of CPUs alone.

    Args:
        torch (Torch): The PyTorch to compile for.
        cuda (str | None): ``'1'`` demands CUDA operators, ``'0'`` does without. Default: None, which is for a
            GPU that can be used.
        archs (str | None): Compute capabilities for another machine, such as ``'8.0;9.0'``; they demand CUDA
            operators too. Default: None, those of the GPUs that are here.

    Raises:
        SetupError: A value is not one that is allowed, or what was demanded cannot be compiled.
    """
    if cuda not in (None, '', '0', '1'):
        raise SetupError(f'CUDA={cuda} is not 0 or 1: leave it out to compile for the GPUs that are here')
    if cuda == '0':
        return ()
    demanded = cuda == '1' or bool(archs)
    if torch.hip:
        return ()  # left to MMCV's own way
    if torch.cuda is None:
        if demanded:
            raise SetupError(
                f'torch {torch.version} was built without CUDA, for which no CUDA operators can be compiled: '
                'install a build with CUDA, or leave out CUDA and ARCHS'
            )
        return ()
    lowest, driver = LOWEST.get(torch.cuda.partition('.')[0], LOWEST['13'])
    older = "take PyTorch's build for CUDA 12.6 (docs/install.md)"
    if archs:
        chosen = parse_archs(archs)
        low = [arch for arch in chosen if float(arch.rstrip('+PTXaf')) < lowest]
        if low:
            raise SetupError(
                f'ARCHS has {low[0]}, and CUDA {torch.cuda} of torch {torch.version} begins at {lowest}: '
                f'leave it out, or {older}'
            )
        return chosen
    chosen = tuple(arch for arch in torch.archs if float(arch) >= lowest)
    problem = None
    if torch.archs and not chosen:
        problem = (
            f'the GPU has compute capability {torch.archs[0]}, and CUDA {torch.cuda} begins at {lowest}: '
            f'{older}'
        )
    elif not torch.archs and (gpu := unusable_gpu()):
        problem = (
            f'there is a {gpu}, which torch {torch.version} cannot use: CUDA {torch.cuda} needs driver '
            f'{driver} or newer; update the driver, or {older}'
        )
    elif demanded and not chosen:
        problem = (
            'there is no GPU here: name the compute capability of the one to compile for, such as ARCHS=9.0'
        )
    if problem and demanded:
        raise SetupError(problem)
    if problem:
        say(f'{problem}. Until then MMCV gets its CPU operators only: no detector runs on the GPU')
    return chosen


def nvcc_version(home: Path) -> str | None:
    """The CUDA of a toolkit; None if it has no compiler, or lacks headers that PyTorch includes."""
    if not all(
        (home / name).is_file() for name in ('bin/nvcc', 'include/cuda_runtime.h', 'include/cusparse.h')
    ):
        return None
    answer = subprocess.run([home / 'bin/nvcc', '--version'], capture_output=True, text=True)
    release = re.search(r'release (\d+\.\d+)', answer.stdout)
    return release[1] if release else None


def find_toolkit(torch: Torch) -> Path:
    """The folder of a CUDA toolkit that fits PyTorch, from the package index where none is installed.

    Raises:
        SetupError: There is none.
    """
    found = nvcc_version(Path(torch.cuda_home)) if torch.cuda_home else None
    if found and found.partition('.')[0] == torch.cuda.partition('.')[0]:
        say(f'nvcc of CUDA {found} in {torch.cuda_home} is used')
        return Path(torch.cuda_home)
    pins = COMPILERS.get(torch.cuda)
    if pins is None or sys.platform != 'linux':
        other = f' (the one in {torch.cuda_home} is of CUDA {found})' if found else ''
        raise SetupError(
            f'torch {torch.version} was built with CUDA {torch.cuda}, and there is no nvcc of that version'
            f'{other}: install the CUDA toolkit {torch.cuda} and set CUDA_HOME, or take torch with CUDA '
            f'{" or ".join(COMPILERS)}, whose compiler is fetched'
        )
    folder = CACHE / f'cuda-{torch.cuda}-{torch.python}-torch{torch.version}'
    nvidia = f'nvidia/cu{torch.cuda.partition(".")[0]}'
    home = folder / nvidia
    if folder.exists():
        return home
    say(f'fetching the compiler of CUDA {torch.cuda}: 100 MB, 270 MB on disk')
    draft = folder.with_name(f'{folder.name}.part')
    shutil.rmtree(draft, ignore_errors=True)
    pip(torch.executable, 'install', '-q', '--no-deps', '--target', draft, *pins)
    # The other headers and libraries are those of PyTorch's own dependencies.
    for name in ('include', 'lib'):
        for path in (Path(torch.site) / nvidia / name).resolve().iterdir():
            if not (draft / nvidia / name / path.name).exists():
                (draft / nvidia / name / path.name).symlink_to(path)
    for path in (draft / nvidia / 'lib').glob('lib*.so.*'):
        unversioned = path.with_name(f'{path.name.partition(".so")[0]}.so')
        if not unversioned.exists():
            unversioned.symlink_to(path.name)
    draft.rename(folder)
    return home


def group_sources(source: Path, cuda: bool) -> None:
    """Combine MMCV's sources into two files for CPUs and four for GPUs: headers take most of the time.

    MMCV's ``setup.py`` compiles ``*.cpp`` and ``*.cu`` of three folders, so included files get a suffix.

    Args:
        source (Path): The unpacked sources of MMCV.
        cuda (bool): Whether to group those of CUDA operators as well.
    """
    root = source / 'mmcv/ops/csrc/pytorch'
    left = [*root.glob('*.cpp'), *root.glob('cpu/*.cpp')]
    left += [*root.glob('cuda/*.cpp'), *root.glob('cuda/*.cu')] if cuda else []
    for path in (*left, *root.glob('spconv_utils.h')):
        text = path.read_text()
        for old, new in EDITS.items():
            text = text.replace(old, new)
        path.write_text(text.replace(DECLARED_TWICE, '') if path.name == 'cudabind.cpp' else text)
    names = sorted(path.relative_to(root).as_posix() for path in left)
    for target, headers, patterns in GROUPS:
        group = []
        for pattern in patterns.split():
            group += [n for n in names if fnmatch.fnmatch(n, pattern) and n.count('/') == pattern.count('/')]
            names = [name for name in names if name not in group]
        if not group:
            continue
        lines = [f'#include <{header}>' for header in headers]
        for name in group:
            (root / name).rename(root / f'{name}.hpp')
            own = [
                symbol for symbols, files in COLLISIONS if name in files.split() for symbol in symbols.split()
            ]
            suffix = re.sub(r'\W', '_', name)
            lines += [f'#define {symbol} {symbol}_of_{suffix}' for symbol in own]
            lines.append(f'#include "{os.path.relpath(root / name, (root / target).parent)}.hpp"')
            lines += [f'#undef {symbol}' for symbol in (*own, *(REDEFINED if name.endswith('.cu') else ()))]
        (root / target).write_text('\n'.join(lines) + '\n')


def run_with_progress(command: list, log: Path, env: dict) -> None:
    """Run a command that calls ninja, and report its progress every ten seconds."""
    start = last_report = time.monotonic()
    with open(log, 'a') as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(0.2)
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
        raise CompileError(f'MMCV could not be compiled; the end of {log}:\n{tail}')


def pip(executable: Path, *arguments) -> None:
    """Run an environment's pip."""
    run([executable, '-m', 'pip', '--disable-pip-version-check', *arguments])


def run(command: list, **options) -> None:
    """Run a command in the foreground."""
    result = subprocess.run([str(part) for part in command], cwd=ROOT, **options)
    if result.returncode:
        name = ' '.join(str(part) for part in command[1:5] if not str(part).startswith('-'))
        raise SetupError(f'{name} failed (exit status {result.returncode}); see the output above; try again')


def check_compiler() -> None:
    """Check that there is the C++ compiler that PyTorch's build of extensions starts."""
    compiler = os.environ.get('CXX') or 'c++'
    if shutil.which(shlex.split(compiler)[0]) is None:
        raise SetupError(
            f"there is no C++ compiler '{compiler}' on PATH: install one (apt-get install g++) or set CXX"
        )


def most_jobs(cuda: bool) -> int:
    """How many files to compile at once: a process takes up to 2.3 GB, one of nvcc 3.2 GB."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return max(1, min(os.cpu_count() or 1, int(memory / (3.5e9 if cuda else 2.5e9))))


def pinned_source() -> str:
    """MMCV and its version in the requirements."""
    return re.search(r'^(mmcv==.+)$', (REQUIREMENTS / 'mminstall.txt').read_text(), re.M)[1]


def compile_wheel(torch: Torch, archs: tuple[str, ...], folder: Path, grouped: bool, source: str) -> Path:
    """Compile MMCV with its operators.

    Args:
        torch (Torch): The PyTorch to compile for.
        archs (tuple[str, ...]): Compute capabilities; none for operators of CPUs alone.
        folder (Path): Folder to put the wheel into, which is replaced once there is one.
        grouped (bool): Whether to combine its sources into few files.
        source (str): MMCV and its version, as pip takes them.

    Returns:
        Path: The wheel.

    Raises:
        SetupError: It cannot be fetched or compiled.
    """
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    draft = folder.with_name(f'{folder.name}.part')
    wheels = draft / 'wheels'
    shutil.rmtree(draft, ignore_errors=True)
    wheels.mkdir(parents=True)
    log = CACHE / ('mmcv-build-grouped.log' if grouped else 'mmcv-build.log')
    log.unlink(missing_ok=True)
    pip_command = [torch.executable, '-m', 'pip', '--disable-pip-version-check']
    options = ['-v', '--no-deps', '--no-build-isolation']
    path = f'{torch.executable.parent}{os.pathsep}{os.environ["PATH"]}'  # where ninja is
    env = dict(os.environ, MMCV_WITH_OPS='1', PATH=path)
    env.setdefault('MAX_JOBS', str(most_jobs(bool(archs))))  # MMCV would start at least four
    # CPPFLAGS are added to Python's own CFLAGS, whose debug symbols take two fifths of the time.
    env['CPPFLAGS'] = f'{env.get("CPPFLAGS", "")} -g0'
    if int(torch.python.partition('.')[2]) >= 13:
        (draft / 'python').mkdir()
        (draft / 'python/sitecustomize.py').write_text(EXEC_DEFINES_LOCALS)
        env['PYTHONPATH'] = os.pathsep.join(filter(None, (str(draft / 'python'), env.get('PYTHONPATH'))))
    if archs:
        env |= dict(FORCE_CUDA='1', TORCH_CUDA_ARCH_LIST=';'.join(archs), CUDA_HOME=str(find_toolkit(torch)))
    elif not torch.hip:
        env['CUDA_VISIBLE_DEVICES'] = ''
    name = source.partition('==')[0]
    command = [*pip_command, 'download', *options, '--no-binary', name, '-d', draft, source]
    run_with_progress(command, log, env)
    (archive,) = draft.glob('*.tar.gz')
    shutil.unpack_archive(archive, draft)
    unpacked = draft / archive.name.removesuffix('.tar.gz')
    if torch.release >= (2, 14):  # whose headers demand it
        script = unpacked / 'setup.py'
        script.write_text(script.read_text().replace('-std=c++17', '-std=c++20'))
    if grouped:
        group_sources(unpacked, bool(archs))
    run_with_progress([*pip_command, 'wheel', *options, '-w', wheels, unpacked], log, env)
    shutil.rmtree(folder, ignore_errors=True)
    wheels.rename(folder)
    shutil.rmtree(draft)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    wheel = next(folder.glob('*.whl'))
    say(
        f'MMCV compiled in {time.monotonic() - start:.0f} s, {processor:.0f} s of processor, up to '
        f'{used.ru_maxrss / 1e6:.1f} GB a process; the wheel has {wheel.stat().st_size / 1e6:.1f} MB'
    )
    return wheel


def wheel_folder(torch: Torch, archs: tuple[str, ...], source: str) -> Path:
    """Folder in the cache of the wheel for this Python, PyTorch and these GPUs."""
    device = '-'.join(('cuda', *archs)) if archs else 'cpu'
    minor = torch.python.partition('.')[2]
    return CACHE / f'{source.partition("==")[0]}-py{minor}-torch{torch.version}-{device}'


def build_wheel(torch: Torch, archs: tuple[str, ...], source: str, anew: bool = False) -> Path:
    """Return the wheel of MMCV in the cache, compiled with its operators if it is not there.

    Args:
        torch (Torch): The PyTorch to compile for.
        archs (tuple[str, ...]): Compute capabilities; none for operators of CPUs alone.
        source (str): MMCV and its version, as pip takes them.
        anew (bool): Whether to recompile it in any case, each source separately. Default: False.
    """
    folder = wheel_folder(torch, archs, source)
    wheels = sorted(folder.glob('*.whl'))
    if wheels and not anew:
        return wheels[0]
    check_compiler()
    if archs:
        find_toolkit(torch)
    if not anew and not torch.hip:
        try:
            return compile_wheel(torch, archs, folder, True, source)
        except CompileError:
            log = CACHE / 'mmcv-build-grouped.log'
            say(f'MMCV does not compile with its sources grouped (see {log}): {PLAIN}')
    return compile_wheel(torch, archs, folder, False, source)


def prove(executable: Path, devices: list[str], folder: Path | None = None) -> bool:
    """Run operators of the installed MMCV, or of one that is unpacked in a folder.

    Args:
        executable (Path): Interpreter of the environment.
        devices (list[str]): ``'cpu'`` and ``'cuda'``, or the first of them.
        folder (Path | None): Folder of an MMCV that is not installed. Default: None.
    """
    env = dict(os.environ)
    if folder is not None:
        env['PYTHONPATH'] = os.pathsep.join(filter(None, (str(folder), env.get('PYTHONPATH'))))
    return subprocess.run([executable, '-c', PROOF, *devices], env=env).returncode == 0


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Hold the lock of the cache; errors of files get their remedy.

    Raises:
        SetupError: The disk is full, or the checkout cannot be written to.
    """
    try:
        CACHE.mkdir(exist_ok=True)
        with open(CACHE / 'setup.lock', 'w') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say('another process is building the environment: waiting for it')
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        where = f'{error.filename or ROOT}'
        if error.errno == errno.ENOSPC:
            raise SetupError(f'there is no room on the disk of {where}: make room, and try again') from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise SetupError(
                f'{where} cannot be written to: take a copy of the checkout that is yours'
            ) from error
        raise SetupError(f'{where}: {error.strerror}') from error
    except SetupError as error:
        if shutil.disk_usage(ROOT).free < 50e6:
            raise SetupError(f'the disk of {ROOT} is full: make room, and try again') from error
        raise


def make_environment(python: str, version: str | None) -> Path:
    """Make a small environment with a PyTorch to compile for, in the cache; return its interpreter.

    Args:
        python (str): An interpreter of the version to compile for.
        version (str | None): Version of PyTorch. Default: None, the one in the requirements.

    Raises:
        SetupError: There is no such interpreter, or no such PyTorch.
    """
    path = shutil.which(python)
    ask = "import sys, sysconfig; print('%d.%d' % sys.version_info[:2], sysconfig.get_path('include'))"
    probe = subprocess.run([path, '-c', ask], capture_output=True, text=True) if path else None
    if probe is None or probe.returncode:
        raise SetupError(
            f"PYTHON='{python}' is not an interpreter that starts: install it, or name another one"
        )
    minor, _, include = probe.stdout.strip().partition(' ')
    if minor not in SUPPORTED:
        raise SetupError(f'{path} is Python {minor}: MMCV is compiled for 3.10, 3.11, 3.12 and 3.13')
    if not (Path(include) / 'Python.h').is_file():
        raise SetupError(f'{path} has no Python.h: install its headers (apt-get install python{minor}-dev)')
    needed = re.findall(r'^[\w-]+==.+$', (REQUIREMENTS / 'build.txt').read_text(), re.M)
    if version:
        needed = [line for line in needed if not line.startswith('torch')] + [
            f'torch=={version}',
            'torchvision',
        ]
    torch = next(line for line in needed if line.startswith('torch=='))
    folder = CACHE / f'wheel-py{minor}-{torch.replace("==", "")}'
    executable = folder / 'bin/python'
    if not (folder / 'ready').exists():
        shutil.rmtree(folder, ignore_errors=True)
        say(f'making an environment with Python {minor} and {torch}: about 1 minute and 5 GB')
        run([path, '-m', 'venv', folder])
        pip(executable, 'install', '-q', *needed)
        (folder / 'ready').touch()
    return executable


def main() -> int:
    """Compile the wheel that the command line asks for, and run its operators on the CPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--python', default=sys.executable, help='interpreter to compile for')
    parser.add_argument('--torch', help='PyTorch to compile for, such as 2.11.0')
    parser.add_argument('--cuda', choices=['0', '1'], help='without CUDA operators, or with them in any case')
    parser.add_argument('--archs', help='compute capabilities to compile for, such as 8.0;9.0')
    args = parser.parse_args()
    try:
        parse_archs(args.archs)
        with lock():
            torch = probe_torch(make_environment(args.python, args.torch))
            archs = choose_archs(torch, args.cuda, args.archs)
            wheel = build_wheel(torch, archs, pinned_source())
            pins = ('-c', REQUIREMENTS / 'runtime.txt', '-c', REQUIREMENTS / 'mminstall.txt')
            pip(torch.executable, 'install', '-q', '--force-reinstall', '--no-deps', wheel)
            pip(torch.executable, 'install', '-q', wheel, *pins)
            if not prove(torch.executable, ['cpu', 'cuda'] if archs and torch.archs else ['cpu']):
                raise SetupError(f'the operators of {wheel} do not run: see above')
    except SetupError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('error: interrupted; the next call continues', file=sys.stderr)
        return 130
    print(wheel)
    return 0


if __name__ == '__main__':
    sys.exit(main())
