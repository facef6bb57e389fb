"""Run all configs over processes, keep each row as it comes, and write the page."""

import csv
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path

import torch

from mmmeta.atomic import written

from .data import generate_all
from .run import NO_MODEL, STEPS, Outcome, as_row, examine, run

NAMES = tuple(field.name for field in fields(Outcome))
Progress = Callable[[str, Iterable, int], Iterator]
# Configs for a process, which keeps what it has imported and what leaks.
JOBS_PER_PROCESS = 40


def write_weights(path: Path, name: str) -> None:
    """Weights of a classifier as timm writes them, with values drawn at random."""
    import timm

    if not path.exists():
        torch.manual_seed(0)
        with written(path) as draft:
            torch.save(timm.create_model(name).state_dict(), draft)


def _one_thread() -> None:
    os.environ['OMP_NUM_THREADS'] = '1'
    torch.set_num_threads(1)


def _pool(processes: int) -> Pool:
    context = multiprocessing.get_context('spawn')
    return context.Pool(processes, _one_thread, maxtasksperchild=JOBS_PER_PROCESS)


def group(configs: Sequence[str], backbone: str, processes: int, progress: Progress) -> list[Outcome]:
    """Examine configs, and find for each one that stands for it: the first with the same parts."""
    stands: dict[str, str] = {}
    outcomes = []
    with _pool(processes) as pool:
        found = pool.imap(partial(examine, backbone=backbone), configs, chunksize=8)
        for outcome, signature in progress('swapping', found, len(configs)):
            if not outcome.left_out:
                outcome.group = stands.setdefault(signature, outcome.config)
            outcomes.append(outcome)
    return outcomes


def read_rows(path: Path) -> list[Outcome]:
    """Rows of a CSV file; none if there is no file."""
    if not path.exists():
        return []
    with open(path, newline='') as file:
        rows = list(csv.DictReader(file))
    flags = ('swapped', 'built', 'trained', 'predicted')
    return [
        Outcome(**{key: value == '1' if key in flags else value for key, value in row.items()})
        for row in rows
    ]


def cover(
    folder: Path, configs: Sequence[str], backbone: str, processes: int, progress: Progress
) -> list[Outcome]:
    """Try what stands for each group; rows that are there already are kept.

    Args:
        folder (Path): For data, weights and rows.
        configs (Sequence[str]): Names of configs.
        backbone (str): Backbone to put into them.
        processes (int): Processes, of one thread each.
        progress (callable): Wraps what is gone through, with its title and length.

    Returns:
        list[Outcome]: One for each config; those of a group have the outcome of the one that stands for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data, weights, rows = (folder / name for name in ('data', 'weights.pth', 'rows.csv'))
    generate_all(data)
    write_weights(weights, backbone)
    outcomes = group(configs, backbone, processes, progress)
    done = {outcome.config: outcome for outcome in read_rows(rows)}
    methods = set()
    jobs = []
    for outcome in outcomes:
        if outcome.group == outcome.config and outcome.swapped:
            steps = 1 if outcome.method in methods else STEPS
            methods.add(outcome.method)
            if outcome.config not in done:
                jobs.append((outcome.config, steps))
    is_new = not rows.exists()
    with open(rows, 'a', newline='') as file, _pool(processes) as pool:
        writer = csv.DictWriter(file, NAMES)
        if is_new:
            writer.writeheader()
        try_one = partial(_try, root=data.resolve(), weights=str(weights.resolve()), backbone=backbone)
        for outcome in progress('training', pool.imap_unordered(try_one, jobs), len(jobs)):
            done[outcome.config] = outcome
            writer.writerow(as_row(outcome))
            file.flush()
    return [_spread(outcome, done) for outcome in outcomes]


def _try(job: tuple[str, int], root: Path, weights: str, backbone: str) -> Outcome:
    config, steps = job
    return run(config, config, root, weights, backbone, steps)


def _spread(outcome: Outcome, done: dict[str, Outcome]) -> Outcome:
    """The outcome of a config, from that of the one that stands for it."""
    if not outcome.group or not outcome.swapped:
        return outcome
    of_group = done[outcome.group]
    same = {name: getattr(of_group, name) for name in NAMES if name not in ('config', 'method', 'group')}
    return Outcome(outcome.config, outcome.method, outcome.group, **same)


def write_csv(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write all outcomes."""
    with written(path) as draft, open(draft, 'w', newline='') as file:
        writer = csv.DictWriter(file, NAMES, lineterminator='\n')
        writer.writeheader()
        writer.writerows(map(as_row, outcomes))


def by_method(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes of configs that are tried, or could be, by method."""
    methods = defaultdict(list)
    for outcome in outcomes:
        if outcome.left_out != NO_MODEL:
            methods[outcome.method].append(outcome)
    return methods
