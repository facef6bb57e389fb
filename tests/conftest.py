"""Fixtures that several test files share."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
import quick_configs  # noqa: F401
import torch
from forked import Script

ROOT = Path(__file__).resolve().parent.parent
# Seconds that a command may take; the longest takes 40 alone on a core. See faulthandler_timeout as well.
TIMEOUT = 300
TINY_CONFIG = 'tests/data/tiny_upernet.py'

# What a terminal or a build server says about its width and colours would be in the output that tests read.
for name in ('COLUMNS', 'LINES', 'FORCE_COLOR', 'NO_COLOR'):
    os.environ.pop(name, None)
# The tests run in several processes: one thread each, or they would wait for each other's. PyTorch reads it
# when it is imported.
os.environ['OMP_NUM_THREADS'] = '1'
# Triton's kernels run in its interpreter, which it asks for when it is imported.
if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'


# Files that need more than PyTorch and MMEngine; `make test-fast` runs without.
collect_ignore, collect_ignore_glob = [], []
if find_spec('mmcv') is None:
    collect_ignore += ['engine/test_loops.py', 'engine/test_records.py', 'utils/test_moved.py']
if find_spec('timm') is None:
    collect_ignore_glob += ['weights/test_[!f]*.py']  # all but test_files.py

# Files and folders of tests that take long: first, so that no process is left with one of them at the end.
LONG = {'test_configs.py', 'test_tools', 'test_other_projects.py'}


def pytest_addoption(parser):
    """Add the option that ``make nightly`` passes."""
    parser.addoption('--nightly', action='store_true', help='run only the sweeps marked nightly')


def pytest_collection_modifyitems(config, items):
    """Select the tests of the suite or, with ``--nightly``, the sweeps, and put long files first."""
    nightly = config.getoption('--nightly')
    deselected = [item for item in items if (item.get_closest_marker('nightly') is not None) != nightly]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if item not in set(deselected)]
    items.sort(key=lambda item: LONG.isdisjoint(item.path.parts))


def run_command(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess:
    """Run a command to its end; one that does not end is killed together with everything that it started.

    :func:`subprocess.run` kills the command alone, and then waits for those who inherited its pipes.

    Raises:
        subprocess.TimeoutExpired: It was killed.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        raise subprocess.TimeoutExpired(command, timeout, output, errors) from None
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def nightly_but(values: Iterable[str], suite: Callable[[str], bool]) -> list:
    """Return parameters of a test, those that are left to ``make nightly`` with its mark."""
    return [value if suite(value) else pytest.param(value, marks=pytest.mark.nightly) for value in values]


def is_script(command: Sequence[str]) -> bool:
    """Whether a command can run in a fork of a process that has PyTorch loaded."""
    return command[0] == sys.executable and (command[1].endswith('.py') or command[1:3] == ['-m', 'mmmeta'])


class Tools:
    """Run the real command lines from the root of the checkout."""

    def __init__(self, config: str, data_root: Path, annotations: str | None = None) -> None:
        self.config = config
        self.data_root = data_root
        loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
        self.data_options = [f'{loader}.dataset.data_root={data_root}' for loader in loaders]
        if annotations:
            self.data_options += [
                f'{s}_evaluator.ann_file={data_root}/{annotations}' for s in ('val', 'test')
            ]

    @staticmethod
    def environment(**variables):
        path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
        return {**os.environ, **dict(PATH=path, CUDA_VISIBLE_DEVICES='', PYTHON=sys.executable), **variables}

    def start(self, *command, **variables):
        command = [str(part) for part in command]
        if is_script(command) and not variables:
            return Script(command[1:], ROOT, self.environment())
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @classmethod
    def finish(cls, *command, cwd=ROOT, **variables):
        """Run a command to its end, from the root of the checkout if no other folder is named."""
        command = [str(part) for part in command]
        if is_script(command) and not variables:
            script = Script(command[1:], cwd, cls.environment())
            outputs = script.communicate(TIMEOUT)
            return subprocess.CompletedProcess(command, script.returncode, *outputs)
        return run_command(command, cwd, cls.environment(**variables), TIMEOUT)

    @classmethod
    def run(cls, *command, **variables):
        """Run a command that has to succeed; return its output."""
        process = cls.finish(*command, **variables)
        assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
        return process.stdout + process.stderr

    @classmethod
    def fail(cls, *command, **variables):
        """Run a command that has to fail with one line; return that line."""
        process = cls.finish(*command, **variables)
        err = process.stderr
        assert process.returncode not in (0, None)
        errors = [line for line in err.splitlines() if line.startswith('error: ')]
        assert len(errors) == 1, err[-3000:]
        # A process may add that its peer is gone, marked as such by PyTorch.
        assert not [line for line in err.splitlines() if 'Traceback' in line and not line.startswith('[rank')]
        return errors[0]

    def train(self, work_dir, *arguments, options=(), config=None):
        command = [
            sys.executable,
            'tools/train.py',
            config or self.config,
            '--work-dir',
            work_dir,
            *arguments,
        ]
        return self.run(*command, '--cfg-options', *self.data_options, *options)


def losses(work_dir) -> dict[int, float]:
    """Iteration to loss, from the logs of all runs in a work directory; later runs win."""
    found = {}
    for log in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        # A run that was killed may have left half a line, the last one.
        for line in filter(lambda line: line.endswith('}'), log.read_text().splitlines()):
            scalars = json.loads(line)
            if 'loss' in scalars:
                found[scalars['step']] = scalars['loss']
    return found


def metrics(work_dir) -> dict[str, float]:
    """What the newest test run in a work directory measured."""
    return json.loads(sorted(Path(work_dir).glob('*/[0-9]*.json'))[-1].read_text())


@pytest.fixture(scope='session')
def ade_root(tmp_path_factory) -> Path:
    """A generated data set in ADE20K's layout."""
    from mmmeta.datasets import generate_ade20k

    return generate_ade20k(tmp_path_factory.mktemp('data'), num_train=10, num_val=4, size=64)


@pytest.fixture(scope='session')
def coco_root(tmp_path_factory) -> Path:
    """A generated data set in COCO's layout."""
    from mmmeta.datasets import generate_coco

    return generate_coco(tmp_path_factory.mktemp('data'), num_train=10, num_val=4, size=96)


@pytest.fixture(scope='session')
def imagenet_root(tmp_path_factory) -> Path:
    """A generated data set in ImageNet's layout."""
    from mmmeta.datasets import generate_imagenet

    return generate_imagenet(tmp_path_factory.mktemp('data'), num_train=360, num_val=90, size=64)


@pytest.fixture(scope='session')
def tools(ade_root) -> Tools:
    """The command lines, on the generated data set."""
    pytest.importorskip('mmseg', reason='the command lines are tried with MMSegmentation')
    return Tools(TINY_CONFIG, ade_root)


@pytest.fixture(scope='session')
def det_tools(coco_root) -> Tools:
    """The command lines with a detector, on the generated data set."""
    pytest.importorskip('mmdet', reason="detectors are MMDetection's")
    return Tools('tests/data/tiny_mask_rcnn.py', coco_root, 'annotations/instances_val2017.json')


@pytest.fixture
def process_group(tmp_path) -> Iterator[None]:
    """A process group of this process alone."""
    import torch.distributed as dist

    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    # A wrapped model holds the group as well. Collected after the group was destroyed, it would be the last
    # to do so, and wait for Gloo's threads while they wait for Python's lock.
    gc.collect()
    dist.destroy_process_group()


@pytest.fixture
def server(tmp_path):
    """Serve a folder over HTTP on the loopback."""
    folder = tmp_path / 'served'
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield folder, f'http://127.0.0.1:{httpd.server_port}'
        httpd.shutdown()
