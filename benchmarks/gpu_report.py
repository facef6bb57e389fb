#!/usr/bin/env python
"""Prove and measure everything that is claimed for a GPU, part by part, each in a process of its own.

Rows are printed and written one by one, so that a run that is cut off keeps what it has. Without a GPU the
same rows are made at small sizes, to see that they run; these are no measurements.
"""

import argparse
import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch

from benchmarks.gpu_parts import PARTS, Device, missing_packages
from mmmeta.cli.arguments import command_line, positive
from mmmeta.engine.records import collect_versions
from mmmeta.utils.atomic import written
from mmmeta.utils.errors import UsageError
from mmmeta.utils.resources import resource_root
from mmmeta.utils.targets import check_writable

COLUMNS = ('part', 'case', 'variant', 'metric', 'value', 'ratio', 'note', 'command', 'versions')


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--only', nargs='+', choices=PARTS, metavar='PART', help=f'of {", ".join(PARTS)}')
    parser.add_argument(
        '--out', type=Path, help='folder of the tables (default: docs/gpu, or work_dirs/gpu without a GPU)'
    )
    parser.add_argument('--limit', type=positive, default=600, help='seconds for a part (default: 600)')
    parser.add_argument('--run', choices=PARTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def versions() -> str:
    """What the numbers depend on besides the GPU."""
    found = [f'{name} {version}' for name, version in collect_versions().items()]
    if torch.cuda.is_available():
        query = [
            'nvidia-smi',
            '--query-gpu=driver_version,clocks.max.sm,clocks.max.mem',
            '--format=csv,noheader',
        ]
        driver, *clocks = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split(', ')
        found += [f'driver {driver}', f'clocks up to {" and ".join(clocks).strip()}']
    return ', '.join(found)


def describe(part: str) -> str:
    """The first line of what a part says of itself."""
    return PARTS[part].__doc__.splitlines()[0]


def read_rows(table: Path) -> list[dict[str, str]]:
    """The rows of a table; none where there is no table."""
    if not table.is_file():
        return []
    with open(table, newline='') as file:
        return list(csv.DictReader(file))


def write_rows(table: Path, rows: Iterable[dict[str, str]]) -> None:
    """Replace a table."""
    with written(table) as path, open(path, 'w', newline='') as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def run_part(name: str, device: Device, table: Path) -> bool:
    """Write the rows of a part; returns whether all that has to hold does.

    A case takes the place of the one that was measured before; the others go when the part is at its end.
    """
    good, previous = True, None
    more = [f'python tools/gpu_report.py --only {name}', versions()]
    before, rows = read_rows(table), []
    for row in PARTS[name](device):
        if row.case != previous:
            print(f'  {row.case}', flush=True)
            previous = row.case
        ratio = '' if row.ratio is None else f'{row.ratio:.3f}'
        print(f'    {row.variant:32} {row.value:12.5g} {row.metric:22} {ratio:>8} {row.note}', flush=True)
        good &= row.note != 'FAILED'
        values = name, row.case, row.variant, row.metric, f'{row.value:.5g}', ratio, row.note, *more
        rows.append(dict(zip(COLUMNS, values, strict=True)))
        measured = {new['case'] for new in rows}
        kept = [old for old in before if old['part'] != name or old['case'] not in measured]
        write_rows(table, [*kept, *rows])
    write_rows(table, [*(old for old in before if old['part'] != name), *rows])
    return good


def write_page(table: Path) -> Path:
    """Write the rows of a table as a page, a section for each part; what is missing is said to be."""
    rows = read_rows(table)
    lines = [
        f'# {table.stem}',
        '',
        'Written by `tools/gpu_report.py`; a ratio is to the first row of its case.',
        '',
    ]
    for part in PARTS:
        own = [row for row in rows if row['part'] == part]
        lines += [f'## {part}', '', describe(part), '']
        if not own:
            lines += [f'Not measured: `python tools/gpu_report.py --only {part}`.', '']
            continue
        for source in dict.fromkeys((row['command'], row['versions']) for row in own):
            lines += ['`{}`; {}.'.format(*source), '']
        lines += ['| case | variant | metric | value | ratio | |', '|---|---|---|---|---|---|']
        for row, previous in zip(own, [None, *own], strict=False):
            case = '' if previous and previous['case'] == row['case'] else row['case']
            cells = case, row['variant'], row['metric'], row['value'], row['ratio'], row['note']
            lines.append(f'| {" | ".join(cells)} |')
        lines.append('')
    page = table.with_suffix('.md')
    with written(page) as draft:
        draft.write_text('\n'.join(lines))
    return page


def run_within(limit: float, command: list[str | Path]) -> int | str:
    """Run a command; its status, or that it was stopped after ``limit`` seconds, with all that it started."""
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return f'stopped after {limit} s'
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    """Measure."""
    args = parse_args()
    has_gpu = torch.cuda.is_available()
    device = Device('cuda' if has_gpu else 'cpu', small=not has_gpu)
    out = args.out or Path('docs/gpu' if has_gpu else 'work_dirs/gpu')
    name = torch.cuda.get_device_name().replace(' ', '-').lower() if has_gpu else 'cpu'
    table = out / f'{name}.csv'
    if args.run:
        sys.exit(0 if run_part(args.run, device, table) else 1)
    check_writable(out, '--out')
    if not table.is_file():
        write_rows(table, [])
    parts = []
    for part in args.only or PARTS:
        missing = missing_packages(part)
        if missing:
            print(f'{part}: skipped, {" and ".join(missing)} is not installed', flush=True)
        else:
            parts.append(part)
    failed = []
    for part in parts:
        print(f'{part}: {describe(part)}', flush=True)
        start = time.monotonic()
        tool = resource_root() / 'tools/gpu_report.py'
        status = run_within(args.limit, [sys.executable, tool, '--run', part, '--out', out])
        print(f'{part}: {time.monotonic() - start:.0f} s, {"ok" if status == 0 else status}', flush=True)
        if status:
            failed.append(part)
    print(f'{table}, {write_page(table)}')
    if failed:
        raise UsageError(f'failed: {", ".join(failed)}; see above')


if __name__ == '__main__':
    command_line(main)
