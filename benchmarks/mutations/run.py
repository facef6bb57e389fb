#!/usr/bin/env python
"""Make small wrong changes in a copy of the checkout, one at a time, and see whether the tests notice.

The changes, and the tests that have to fail, are listed in ``table.py`` beside this file; the checkout is not
touched. A change is *killed* if one of its tests fails, *lives* if all pass, and is *broken* if its text is
not found exactly once, or its tests do not run, or fail without it. The exit status is 1 if fewer than
:data:`LEAST` are killed, or one that was named is not::

    python benchmarks/mutations/run.py [NAME ...]
"""

import argparse
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.mutations.table import MUTATIONS, Mutation  # noqa: E402

# How many of the table have to be killed.
LEAST = 56
# What the tests need of a checkout.
PARTS = ('mmmeta', 'tests', 'configs', 'tools', 'benchmarks', 'docs', 'model-index.yml', 'pyproject.toml')
# Seconds for the tests of a change, which may keep them from ending.
TIMEOUT = 300
# Statuses of pytest.
PASSED, FAILED = 0, 1


def find(mutation: Mutation, text: str) -> list[re.Match]:
    """Find the text of a mutation in that of its file, however the lines are broken.

    Args:
        mutation (Mutation): The mutation.
        text (str): Content of its file.
    """
    tokens = re.findall(r'\w+|\S', mutation.old)
    return list(re.finditer(r'(?<!\w)' + r'\s*'.join(map(re.escape, tokens)) + r'(?!\w)', text))


def mutate(mutation: Mutation, text: str) -> str:
    """Make the wrong change.

    Args:
        mutation (Mutation): The mutation.
        text (str): Content of its file.

    Raises:
        ValueError: Its old text is not there exactly once.
    """
    places = find(mutation, text)
    if len(places) != 1:
        raise ValueError(f'the old text is {len(places)} times in {mutation.file}: correct the table')
    (place,) = places
    return f'{text[: place.start()]}{mutation.new}{text[place.end() :]}'


def copy_checkout(folder: Path) -> None:
    """Copy what the tests need.

    Args:
        folder (Path): An empty folder.
    """
    for name in PARTS:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns('__pycache__', '_build')
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)


def run_tests(folder: Path, tests: Iterable[str], *options: str, timeout: float = TIMEOUT) -> tuple[int, str]:
    """Run tests of a copy.

    Args:
        folder (Path): The copy.
        tests (Iterable[str]): Their ids.
        options (str): Further ones of pytest.
        timeout (float): Seconds until they are ended. Defaults to :data:`TIMEOUT`.

    Returns:
        tuple[int, str]: The status of pytest, :data:`FAILED` as well if it crashes or does not end, and its
        output.
    """
    command = [sys.executable, '-m', 'pytest', '-n0', '-q', '-p', 'no:cacheprovider', *options, *tests]
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get('PYTHONPATH'))))
    env = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    process = subprocess.Popen(command, cwd=folder, env=env, start_new_session=True, **pipes)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return FAILED, f'no end after {timeout:.0f} s'
    finally:
        _end_session(process)
    return FAILED if process.returncode < 0 else process.returncode, output


def _end_session(process: subprocess.Popen) -> None:
    """End a process and all that it has started, if they have not ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def find_failing(folder: Path, mutations: Sequence[Mutation]) -> set[str]:
    """Run the tests of all mutations without any; the ids of those that fail."""
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    status, output = run_tests(folder, tests, '-rfE', timeout=TIMEOUT * len(mutations))
    if status not in (PASSED, FAILED):
        sys.exit(f'error: the tests do not run: {output[-2000:]}')
    failed = re.findall(r'^(?:FAILED|ERROR) (.+?)(?: - .*)?$', output, re.MULTILINE)
    if status == FAILED and not failed:
        sys.exit(f'error: the tests do not end: {output[-2000:]}')
    # One without parameters stands for all of them.
    return {test for test in tests if any(one == test or one.startswith(f'{test}[') for one in failed)}


def judge(mutation: Mutation, folder: Path) -> tuple[str, str]:
    """Make a change in a copy, run its tests, and take it back.

    Args:
        mutation (Mutation): The mutation.
        folder (Path): The copy.

    Returns:
        tuple[str, str]: ``'killed'``, ``'lives'`` or ``'broken'``; and the test that failed, or the reason.
    """
    path = folder / mutation.file
    text = path.read_text()
    try:
        path.write_text(mutate(mutation, text))
        compile(path.read_text(), mutation.file, 'exec')
        # Python tells files apart by seconds and sizes.
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        status, output = run_tests(folder, mutation.tests, '-x')
    except (ValueError, SyntaxError) as error:
        return 'broken', str(error)
    finally:
        path.write_text(text)
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
    if status == PASSED:
        return 'lives', 'all tests pass'
    if status != FAILED:
        return 'broken', f'pytest ends with {status}: {output[-500:]}'
    found = re.search(r'^(?:FAILED|ERROR) (\S+)', output, re.MULTILINE)
    return 'killed', found[1] if found else output[-200:]


def main() -> None:
    """Judge all mutations, or those that are named."""
    parser = argparse.ArgumentParser(description='See whether the tests notice small wrong changes.')
    parser.add_argument('names', metavar='NAME', nargs='*', help='of changes in table.py, or beginnings')
    parser.add_argument('--list', action='store_true', help='print the names alone')
    args = parser.parse_args()
    chosen = [m for m in MUTATIONS if not args.names or m.name.startswith(tuple(args.names))]
    if not chosen:
        sys.exit(f'error: no change is called {" or ".join(args.names)}: list all with --list')
    if args.list:
        print('\n'.join(mutation.name for mutation in chosen))
        return
    counts = Counter()
    with tempfile.TemporaryDirectory(prefix='mutations-') as name:
        folder = Path(name).resolve()
        copy_checkout(folder)
        print(f'running the tests of {len(chosen)} changes without any', flush=True)
        failing = find_failing(folder, chosen)
        for number, mutation in enumerate(chosen, 1):
            start = time.monotonic()
            unfit = [test for test in mutation.tests if test in failing]
            verdict, why = ('broken', f'fails without it: {unfit[0]}') if unfit else judge(mutation, folder)
            counts[verdict] += 1
            seconds = time.monotonic() - start
            print(f'{number}/{len(chosen)} {verdict:6} {mutation.name} ({seconds:.0f} s): {why}', flush=True)
    print(', '.join(f'{counts[verdict]} {verdict}' for verdict in ('killed', 'lives', 'broken')))
    if counts['killed'] < min(LEAST, len(chosen)):
        sys.exit(1)


if __name__ == '__main__':
    main()
