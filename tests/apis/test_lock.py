"""One run in a work directory."""

import json
import os
import subprocess
import sys
import time

import pytest

from mmmeta.engine import lock
from mmmeta.engine.lock import locked
from mmmeta.utils.errors import UsageError

HOLD = """
import sys, time
from mmmeta.engine.lock import locked
with locked(sys.argv[1]):
    print(1, flush=True)
    time.sleep(99)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, '-c', HOLD, tmp_path], stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def pretend(folder, **values):
    """Change what the holder wrote, but not its lock."""
    path = folder / '.lock'
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps(content))


def test_a_second_one_is_refused_and_the_kernel_releases_it(holder, tmp_path):
    with pytest.raises(
        UsageError, match=f'process {holder.pid} on .*, started 0 s ago, last heard of 0 s ago'
    ):
        locked(tmp_path).__enter__()
    holder.kill()
    holder.wait()
    with locked(tmp_path) as path:
        assert json.loads(path.read_text())['process'] == os.getpid()
    assert not path.exists()


def test_that_of_a_machine_that_is_silent_may_be_taken(holder, tmp_path):
    pretend(tmp_path, host='elsewhere')
    with pytest.raises(UsageError, match='or wait until it has been silent for 60 minutes'):
        locked(tmp_path).__enter__()
    os.utime(tmp_path / '.lock', (time.time() - lock.MAX_AGE - 1,) * 2)
    with locked(tmp_path) as path:
        assert json.loads(path.read_text())['process'] == os.getpid()


def test_a_job_that_was_requeued_waits(holder, tmp_path, monkeypatch):
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    monkeypatch.setattr(lock, 'REQUEUE_WAIT', 2)
    start = time.monotonic()
    with pytest.raises(UsageError):
        locked(tmp_path).__enter__()
    assert time.monotonic() - start >= 2
