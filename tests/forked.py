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


class Script:
    """A script in a fork of a server that has :data:`LIBRARIES` loaded; the first one starts the server.

    It has those methods of :class:`subprocess.Popen` that tests use.

    Args:
        command (Sequence[str]): The script and its arguments.
        cwd (Path): Its working directory.
        env (Mapping[str, str]): Its environment. What libraries look up when they are loaded has no effect.
    """

    def __init__(self, command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload(list(LIBRARIES))
        self.command = command
        self._folder = tempfile.TemporaryDirectory()
        self._outputs = [Path(self._folder.name, name) for name in ('stdout', 'stderr')]
        for path in self._outputs:
            path.touch()
        self._process = context.Process(target=_run, args=(command, cwd, dict(env), self._outputs))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """As Popen's: negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As ``returncode``."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; what it wrote on the two streams.

        Raises:
            subprocess.TimeoutExpired: It was killed.
        """
        self._process.join(timeout)
        late = self._process.exitcode is None
        if late:
            self.kill()
            self._process.join()
        output, errors = (path.read_text() for path in self._outputs)
        self._folder.cleanup()
        if late:
            raise subprocess.TimeoutExpired(self.command, timeout, output, errors)
        return output, errors


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
    if command[0] == '-m':
        sys.argv, sys.path = list(command[1:]), [str(TESTS.parent), *rest]
        runpy.run_module(command[1], run_name='__main__', alter_sys=True)
        return
    # Last, for a checkout that is not the one in the environment: an installed package comes first.
    sys.path = [str((cwd / command[0]).parent), *rest, str(TESTS.parent)]
    runpy.run_path(command[0], run_name='__main__')
