"""Run a script as ``python script ...`` does, in a process that has PyTorch and its like loaded already.

Their import takes five seconds of a processor, most of what a short command line costs. What OpenMMLab's
packages and mmmeta register is imported by the script itself, as ever.
"""

import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

LIBRARIES = (
    *('torch', 'torchvision', 'timm', 'mmengine.runner', 'mmcv.ops', 'scipy.stats', 'matplotlib.pyplot'),
    *('sklearn.metrics', 'pycocotools.coco', 'pycocotools.mask', 'shapely.geometry', 'ftfy', 'einops'),
    'quick_configs',
)
TESTS = Path(__file__).resolve().parent


def run_script(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess:
    """Run a script in a fork of a server that has :data:`LIBRARIES` loaded; the first call starts the server.

    Args:
        command (Sequence[str]): The script and its arguments.
        cwd (Path): Its working directory.
        env (Mapping[str, str]): Its environment. What libraries look up when they are loaded has no effect.
        timeout (float): Seconds after which it is killed.

    Raises:
        subprocess.TimeoutExpired: It was killed.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(list(LIBRARIES))
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ('stdout', 'stderr')]
        process = context.Process(target=_run, args=(command, cwd, dict(env), outputs))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout, *(path.read_bytes() for path in outputs))
        return subprocess.CompletedProcess(command, process.exitcode, *(path.read_text() for path in outputs))


def _run(command: Sequence[str], cwd: Path, env: dict[str, str], outputs: Sequence[Path]) -> None:
    gc.freeze()  # collections, which data sets ask for, pass over what the libraries hold
    for descriptor, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = list(command)
    # pytest puts the root and folders of tests on the path, where they are not when a user runs the script.
    own = {TESTS.parent, TESTS, *TESTS.iterdir()}
    rest = [path for path in sys.path if Path(path).resolve() not in own]
    sys.path = [str((cwd / command[0]).parent), *rest]
    runpy.run_path(command[0], run_name='__main__')
