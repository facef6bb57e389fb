"""Run all configs over processes, keep each row as it comes, and write the page."""

import csv
import multiprocessing
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path

import torch

from benchmarks.coverage.data import generate_all
from benchmarks.coverage.run import (
    BROKEN,
    NO_MODEL,
    OPERATOR,
    PACKAGE,
    STEPS,
    TIED,
    VIDEO,
    Outcome,
    as_row,
    examine,
    portable,
    run,
)
from mmmeta.utils.atomic import written

STEPS_OF_A_CONFIG = ('swapped', 'built', 'trained', 'predicted')
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
    return [
        Outcome(**{key: value == '1' if key in STEPS_OF_A_CONFIG else value for key, value in row.items()})
        for row in rows
    ]


def cover(
    folder: Path, configs: Sequence[str], backbone: str, processes: int, progress: Progress
) -> list[Outcome]:
    """Try what stands for each group; groups and rows that are there already are kept.

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
    names = ('data', 'weights.pth', 'groups.csv', 'rows.csv')
    data, weights, groups, rows = (folder / name for name in names)
    generate_all(data)
    write_weights(weights, backbone)
    outcomes = read_rows(groups)
    if [outcome.config for outcome in outcomes] != list(configs):
        outcomes = group(configs, backbone, processes, progress)
        write_csv(outcomes, groups)
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
    """Outcomes by method."""
    methods = defaultdict(list)
    for outcome in outcomes:
        methods[outcome.method].append(outcome)
    return methods


PAGE = """\
# Any model of the zoo

Every config that MMDetection, MMSegmentation and MMPretrain install, with `{backbone}` put into it as
`python -m mmmeta swap` does ([your project](your_project.md#by-one-command)): the file is written and read
again, the network built, weights of timm's layout loaded into the backbone, and on generated images of the
kind that the config reads (boxes, masks, panoptic and semantic maps, classes; 64 to 384 pixels, classifiers
and SSD at their own size) losses, gradients, a step of the optimiser and a prediction computed.
`python tools/zoo_coverage.py` does it, {processor}; every row is in `docs/zoo_coverage.csv`.

Configs that differ only in schedule, depth, numbers of classes or data are one group: each of them is
swapped, the first is trained, and stands for the others. *Trained* means that the losses are finite and that
every parameter of the backbone has a finite gradient.

| | {packages} | all |
|---|{lines}--:|
{totals}

What is left out: configs without a model or a training, and those of MMPretrain that are no supervised
classifiers; those that MMEngine cannot read, or whose model cannot be built, as they are; those whose method
is made of its backbone (below); those that need a package which is not installed; those with an operator
that MMCV lacks on a CPU. Configs of videos count as not trained.

## By method

{count_of_groups} groups. The loss is that of one batch, before and after {steps} steps, of the first group of
each method.

| method | configs | groups | swapped | built | trained | predicted | loss |
|---|--:|--:|--:|--:|--:|--:|---|
{methods}

## Made of their backbone

`swap` says so in one sentence, and writes nothing.

| configs | sentence |
|--:|---|
{tied}

## Not trained

{not_trained} of the rest. `SSDHead` of MMDetection 3.3 trains, and cannot predict with any backbone: it has
no `loss_cls`, which prediction reads. `L2Norm` of SSD's neck has no finite gradient where features are zero,
as they are beside what `Expand` moved, from random weights, whose biases are zero; with others it has.
LeViT and EfficientFormer distil, which MMPretrain does not train. QueryInst trains; MMDetection cannot paste
a mask on a CPU whose box, which it does not clip, lies outside of the image, as it does from random weights.
Data of videos are not generated.

| configs | group | why |
|--:|---|---|
{failed}
"""


def write_page(outcomes: Sequence[Outcome], backbone: str, processor: str, path: Path) -> None:
    """Write the page of the documentation."""
    packages = sorted({outcome.method.partition('/')[0] for outcome in outcomes})

    def row(title: str, keep: Callable[[Outcome], bool]) -> str:
        kept = [outcome for outcome in outcomes if keep(outcome)]
        counts = [sum(one.method.startswith(f'{package}/') for one in kept) for package in packages]
        return f'| {title} | {" | ".join(map(str, [*counts, len(kept)]))} |'

    kinds = {
        NO_MODEL: 'no model or no training',
        BROKEN: 'cannot be read or built as they are',
        TIED: 'made of their backbone',
        PACKAGE: 'need a package',
        OPERATOR: 'need an operator of a GPU',
    }
    totals = [row('configs', lambda one: True)]
    totals += [row(text, lambda one, kind=kind: one.left_out == kind) for kind, text in kinds.items()]
    totals.append(row('**the rest**', lambda one: one.left_out in ('', VIDEO)))
    for name in STEPS_OF_A_CONFIG:
        totals.append(row(name, lambda one, name=name: not one.left_out and getattr(one, name)))
    rest = [outcome for outcome in outcomes if outcome.left_out in ('', VIDEO)]
    share = sum(outcome.predicted for outcome in rest) / max(len(rest), 1)
    totals.append(f'| train and predict | {"| " * len(packages)}**{share:.1%}** |')
    methods = []
    for method, found in sorted(by_method(rest).items()):
        counts = [
            sum(getattr(one, name) for one in found) for name in ('swapped', 'built', 'trained', 'predicted')
        ]
        groups = {one.group for one in found if one.group}
        losses = next((one.fell for one in found if one.fell and one.config == one.group), '')
        loss = ' to '.join(losses.split())
        methods.append(
            f'| {method} | {len(found)} | {len(groups)} | {" | ".join(map(str, counts))} | {loss} |'
        )
    tied = Counter(outcome.reason for outcome in outcomes if outcome.left_out == TIED)
    failed = Counter((one.group or one.config, one.reason) for one in rest if not one.predicted)
    text = PAGE.format(
        backbone=backbone,
        processor=processor,
        packages=' | '.join(packages),
        lines='--:|' * len(packages),
        totals='\n'.join(totals),
        steps=STEPS,
        not_trained=sum(not one.predicted for one in rest),
        count_of_groups=len({one.group for one in rest if one.group}),
        methods='\n'.join(methods),
        tied='\n'.join(f'| {count} | {_cell(reason)} |' for reason, count in tied.most_common()),
        failed='\n'.join(
            f'| {count} | {name.partition("::")[2]} | {_cell(reason.strip().splitlines()[-1])} |'
            for (name, reason), count in failed.most_common()
        ),
    )
    with written(path) as draft:
        draft.write_text(text)


def _cell(text: str) -> str:
    """A sentence as a cell of a table, short."""
    return portable(text).replace('|', r'\|')[:200]
