#!/usr/bin/env python
"""Measure backbones, models, exported files, activations or windowed attention, side by side.

`paper` measures what the tables of speed in arXiv:2210.13452 list, and compares it with the printed numbers.

Candidates run alternately, so that other load on the machine affects all of them equally. Each command
prints medians, and ratios to the first.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import check_interpreter  # noqa: F401
import numpy as np
import torch
from mmengine.config import Config
from rich.console import Console
from rich.progress import track
from torch import nn

from mmmeta.analysis.benchmark import (
    activations,
    build_config,
    bytes_per_image,
    measure_layer,
    peak_bytes,
    run_config,
    run_features,
    time_alternating,
)
from mmmeta.analysis.curves import plot_accuracy
from mmmeta.analysis.paper_tables import load_paper_table
from mmmeta.apis import load_config
from mmmeta.apis.inference import build_exportable
from mmmeta.cli.arguments import add_backbone, add_config_options, command_line, positive
from mmmeta.config.backbones import build_backbone
from mmmeta.datasets.coco import draw_coco_scene
from mmmeta.deploy import load
from mmmeta.deploy.comparing import normalized, predict_as
from mmmeta.runtime.run import ENGINES
from mmmeta.utils.atomic import written
from mmmeta.utils.errors import UsageError
from mmmeta.utils.targets import check_target
from mmmeta.visualization.pictures import FIGURES, check_picture

DTYPES = dict(float32=torch.float32, tf32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument('--threads', type=positive, default=torch.get_num_threads())
    common.add_argument('--repeats', type=positive, default=5, help='timed rounds, after two others')
    common.add_argument('--json', metavar='FILE', help='write the measurements into a file')
    images = argparse.ArgumentParser(add_help=False)
    images.add_argument(
        '--shape',
        nargs=2,
        type=positive,
        action='append',
        metavar=('HEIGHT', 'WIDTH'),
        help='may be repeated',
    )
    images.add_argument('--batch', type=positive, default=1)
    images.add_argument('--dtype', choices=list(DTYPES), default='float32', help='16 bits by autocast')
    images.add_argument('--compile', action='store_true', help='compiled by torch.compile')
    images.add_argument(
        '--channels-last', action='store_true', help='convert models and images (ours do so internally)'
    )
    commands = parser.add_subparsers(dest='command', required=True)

    backbones = commands.add_parser(
        'backbones', help='backbones', description=compare_backbones.__doc__, parents=[common, images]
    )
    backbones.add_argument(
        'models',
        nargs='+',
        metavar='MODEL',
        help="such as timm/caformer_s18, 'caformer_s18,window=13' or "
        'mmpretrain/poolformer-s12_3rdparty_32xb128_in1k',
    )
    backbones.add_argument(
        '--train',
        action='store_true',
        help='forward and backward, and the bytes that are kept in between, unless compiled',
    )
    backbones.add_argument('--peak', action='store_true', help='peak memory, each in a process of its own')
    backbones.add_argument(
        '--plot', metavar='FILE', help="draw the papers' top-1 accuracy over what is measured"
    )
    configs = commands.add_parser(
        'models', help='whole models', description=compare_models.__doc__, parents=[common, images]
    )
    configs.add_argument(
        'configs', nargs='+', metavar='CONFIG', help='a file, or mmdet:: or mmseg:: and one of their configs'
    )
    add_backbone(configs)
    files = commands.add_parser(
        'exported', help='exported files', description=compare_exported.__doc__, parents=[common]
    )
    files.add_argument(
        'files', nargs='+', metavar='FILE', help='what export.py wrote, for images of one size'
    )
    files.add_argument('--engine', choices=list(ENGINES), help='default: that of each file')
    files.add_argument('--trust-file', action='store_true', help='run .pt2 files, which may execute code')
    files.add_argument(
        '--model',
        nargs=2,
        action='append',
        default=[],
        metavar=('CONFIG', 'CHECKPOINT'),
        help="a network in PyTorch, first; 'none': random weights; may be repeated",
    )
    add_config_options(files)
    acts = commands.add_parser(
        'activations', help='activations', description=compare_activations.__doc__, parents=[common]
    )
    acts.add_argument('--train', action='store_true', help='forward and backward')
    acts.add_argument(
        '--shape',
        nargs='+',
        type=positive,
        action='append',
        metavar='SIDE',
        help='of the tensor; may be repeated (default: 1 1000000, that of Table XI, and 8 256 128 128)',
    )
    paper = commands.add_parser(
        'paper',
        help="the papers' tables of speed",
        description=compare_with_paper.__doc__,
        parents=[common],
    )
    paper.add_argument('table', choices=['IX', 'X', 'XI', 'XII'], help='of arXiv:2210.13452')
    paper.add_argument('--models', nargs='+', metavar='NAME', help='these alone (default: all of the table)')
    paper.add_argument('--batch', type=positive, help="images at a time (default: the table's)")
    paper.add_argument(
        '--dtype', choices=list(DTYPES), help="16 bits by autocast (default: the table's, tf32 or float32)"
    )
    paper.set_defaults(channels_last=False, compile=False, train=False)
    memory = commands.add_parser('memory', help='what is kept for backward', description=count_memory.__doc__)
    memory.add_argument('models', nargs='+', metavar='MODEL', help='as for backbones')
    memory.add_argument('--shape', nargs=2, type=positive, action='append', metavar=('HEIGHT', 'WIDTH'))
    memory.add_argument(
        '--batch', type=positive, default=16, help='of which a GPU keeps small maps (default: 16)'
    )
    memory.add_argument('--dtype', choices=['float32', 'bfloat16', 'float16'], default='bfloat16')
    memory.add_argument(
        '--device', choices=['cpu', 'cuda'], default='cuda', help='device to count for (default: cuda)'
    )
    memory.add_argument('--json', metavar='FILE', help='write the counts into a file')
    memory.set_defaults(threads=torch.get_num_threads())
    windows = commands.add_parser(
        'windows', help='an attention layer', description=measure_windows.__doc__, parents=[common]
    )
    windows.add_argument(
        '--sides', nargs='+', type=positive, default=[32, 64, 128, 256], help='of square maps, in tokens'
    )
    windows.add_argument('--window', type=positive, default=13)
    windows.add_argument('--dim', type=positive, default=320)
    windows.add_argument(
        '--largest-global',
        type=positive,
        default=128,
        help='largest side for global attention',
    )
    return parser.parse_args()


def device() -> str:
    """Where to measure."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def measure(
    title: str,
    names: Sequence[str],
    runs: Sequence[Callable[[], object]],
    repeats: int,
    batch: int = 1,
    memory: dict[str, Sequence[int]] | None = None,
    printed: Sequence[float | None] | None = None,
    **what: Any,
) -> list[dict[str, Any]]:
    """Time functions alternately and print a table of them.

    Args:
        title (str): Title of the table.
        names (Sequence[str]): Names of the functions.
        runs (Sequence[callable]): The functions.
        repeats (int): Timed rounds.
        batch (int): Items per call, such as images. Defaults to 1.
        memory (dict[str, Sequence[int]] | None): Further columns, in bytes. Defaults to None.
        printed (Sequence[float | None] | None): What a paper prints, per second, None where it prints
            nothing. Defaults to None.
        what (Any): Further entries of the records.

    Returns:
        list[dict]: A record for each function.
    """
    timings = time_alternating(runs, repeats)
    memory = memory or {}
    print(f'\n{title}, {device()}, {torch.get_num_threads()} threads, torch {torch.__version__}')
    columns = ''.join(f' {f"{column} (MB)":>10} {"ratio":>6}' for column in memory)
    if printed:
        columns += f' {"paper, per s":>13} {"speed":>7}'
    width = max(40, *map(len, names))
    print(f'{"":{width}} {"median (s)":>11} {"fastest":>9} {"slowest":>9} {"per s":>8} {"speed":>7}{columns}')
    records = []
    for i, (name, timing) in enumerate(zip(names, timings, strict=True)):
        sizes = {column: values[i] for column, values in memory.items()}
        columns = ''.join(
            f' {size / 1e6:10.0f} {size / max(memory[c][0], 1):6.2f}' for c, size in sizes.items()
        )
        if printed and printed[i]:
            columns += f' {printed[i]:13.6g} {printed[i] / printed[0]:6.2f}x'
        print(
            f'{name:{width}} {timing.median:11.4f} {timing.fastest:9.4f} {timing.slowest:9.4f} '
            f'{batch / timing.median:8.2f} {timings[0].median / timing.median:6.2f}x{columns}',
            flush=True,
        )
        record = dict(model=name, **what, **asdict(timing), batch=batch, device=device())
        record.update({f'bytes_{column}': size for column, size in sizes.items()})
        if printed:
            record['printed_per_second'] = printed[i]
        records.append({**record, 'threads': torch.get_num_threads(), 'torch': torch.__version__})
    return records


def prepare(args: argparse.Namespace, models: Sequence[nn.Module]) -> list[nn.Module]:
    """Move models to the device, and set the requested mode and memory format."""
    if args.dtype == 'tf32':
        torch.set_float32_matmul_precision('high')
    torch.backends.cudnn.allow_tf32 = args.dtype != 'float32'
    memory_format = torch.channels_last if args.channels_last else torch.preserve_format
    for model in models:
        model.train(getattr(args, 'train', False))  # some of MMPretrain's return nothing
    return [model.to(device(), memory_format=memory_format) for model in models]


def make_images(args: argparse.Namespace) -> list[torch.Tensor]:
    """A batch of images for each size."""
    memory_format = torch.channels_last if args.channels_last else torch.contiguous_format
    return [
        torch.randn(args.batch, 3, *shape, device=device()).contiguous(memory_format=memory_format)
        for shape in args.shape or [(512, 512)]
    ]


def count_memory(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Count the bytes per image that are kept for backward; nothing is computed, no GPU is needed."""
    records = []
    for shape in args.shape or [(512, 512)]:
        case = f'{args.batch} x {shape[0]}x{shape[1]}, {args.dtype}'
        print(f'\nkept for backward, {case}, by the rules of {args.device}')
        for name in args.models:
            build, dtype = partial(build_backbone, name), DTYPES[args.dtype]
            size = bytes_per_image(build, shape, dtype, args.device, args.batch)
            what = dict(
                height=shape[0], width=shape[1], batch=args.batch, dtype=args.dtype, device=args.device
            )
            records.append(dict(model=name, **what, bytes_per_image=size))
            first = records[-1 - args.models.index(name)]['bytes_per_image']
            print(f'{name:40} {size / 1e6:9.1f} MB an image {size / first:6.3f}', flush=True)
    return records


def describe(args: argparse.Namespace, image: torch.Tensor, task: str) -> dict[str, Any]:
    """Title and further entries for :func:`measure`."""
    task += ', compiled' if args.compile else ''
    task += ', channels last' if args.channels_last else ''
    batch, _, height, width = image.shape
    title = f'{batch} x {height}x{width}, {args.dtype}, {task}'
    return dict(title=title, batch=batch, height=height, width=width, dtype=args.dtype, task=task)


def compare_backbones(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time backbones alternately at each size, and report the memory that they take."""
    if args.peak and args.compile:
        raise UsageError('--peak runs models in processes of their own, not compiled: leave out --compile')
    models = prepare(args, [build_backbone(spec) for spec in args.models])
    dtype = DTYPES[args.dtype]
    records = []
    for image in make_images(args):
        memory = {}
        if args.train and not args.compile:  # a compiler decides itself what is kept
            memory['kept'] = [
                args.batch
                * bytes_per_image(partial(build_backbone, spec), image.shape[2:], dtype, device(), args.batch)
                for spec in args.models
            ]
        if args.peak:
            memory['peak'] = [
                peak_bytes(partial(build_backbone, spec), image.shape, args.train, dtype, device())
                for spec in args.models
            ]
        callables = [torch.compile(model) for model in models] if args.compile else models
        runs = [partial(run_features, model, image, args.train, dtype) for model in callables]
        what = describe(args, image, 'training' if args.train else 'inference')
        records += measure(names=args.models, runs=runs, repeats=args.repeats, memory=memory, **what)
    if args.plot is not None:
        plot_accuracy(records, args.plot)
        print(f'\naccuracy over speed: {args.plot}')
    return records


def compare_models(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time inference of models alternately: segmentors and classifiers to logits, detectors to boxes."""
    configs = [load_config(config, backbone=args.backbone) for config in args.configs]
    models = prepare(args, [build_config(cfg) for cfg in configs])
    callables = [torch.compile(model) for model in models] if args.compile else models
    records = []
    for image in make_images(args):
        runs = [partial(run_config, model, image, DTYPES[args.dtype]) for model in callables]
        what = describe(args, image, 'inference')
        records += measure(names=args.configs, runs=runs, repeats=args.repeats, **what)
    return records


def compare_exported(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time exported files alternately, beside networks in PyTorch, for an image of the files' size.

    From the image in memory to boxes, masks within them, labels or probabilities; nothing is read, resized or
    pasted.
    """
    networks = [load(path, args.engine, args.threads, trusted=args.trust_file) for path in args.files]
    first = networks[0]
    image, _ = draw_coco_scene(np.random.default_rng(0), *first.description.shape)
    prepared = first.prepare(np.asarray(image))
    names, runs = [], []
    for config, checkpoint in args.model:
        model = build_exportable(config, checkpoint, args.cfg_options)
        names.append(f'{Path(config).stem}, PyTorch')
        runs.append(partial(predict_as, first, model, normalized(first, [prepared]), prepared))
    for path, network in zip(args.files, networks, strict=True):
        if network.description.shape != first.description.shape:
            raise UsageError(
                f"'{path}' takes images of another size than '{args.files[0]}': give files of one size"
            )
        names.append(f'{Path(path).stem}, {network.engine} {network.description.precision}')
        runs.append(partial(network.run, **network.inputs([network.prepare(np.asarray(image))])))
    height, width = prepared.image.shape[1:]
    title = f'{first.description.method}, 1 x {height}x{width}'
    return measure(title, names, runs, args.repeats, height=height, width=width, files=args.files)


def compare_activations(
    args: argparse.Namespace, printed: dict[str, float] | None = None
) -> list[dict[str, Any]]:
    """Time activations alternately, as Table XI of arXiv:2210.13452 does."""
    functions = activations()
    printed = printed and [printed.get(name) for name in functions]

    def run(
        function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, grad: torch.Tensor, calls: int
    ) -> None:
        for _ in range(calls):
            with torch.set_grad_enabled(args.train):
                # After another operation, as in a network: gradients are passed on, not accumulated.
                out = function(x.view_as(x))
            if args.train:
                torch.autograd.grad(out, (x, *getattr(function, 'parameters', tuple)()), grad)

    records = []
    task = 'training' if args.train else 'inference'
    for shape in args.shape or [(1, 1_000_000), (8, 256, 128, 128)]:
        x, grad = (torch.randn(*shape, device=device()) for _ in range(2))
        x.requires_grad_(args.train)
        for function in functions.values():
            if isinstance(function, nn.Module):
                function.to(device())
        # Several calls each: only the first depends on what the previous function left in the caches.
        calls = max(1, 10_000_000 // x.numel())
        runs = [partial(run, function, x, grad, calls) for function in functions.values()]
        title = f'{"x".join(map(str, shape))}, {calls} calls, float32, {task}'
        what = dict(shape=list(shape), task=task)
        records += measure(title, list(functions), runs, args.repeats, calls, printed=printed, **what)
    return records


def printed_speeds(table: str) -> list[dict[str, str]]:
    """The rows of a table of speeds."""
    return [row for row in load_paper_table('speed') if row['source'] == f'Table {table}']


def load_row_config(row: dict[str, str]) -> Config:
    """The config of a row of a table."""
    package, _, name = row['config'].partition('::')
    if package == 'timm':
        model = dict(type='TimmClassifier', model_name=name, pretrained=False)
        return Config(dict(default_scope='mmpretrain', model=model))
    return load_config(row['config'], json.loads(row['options'] or '{}'))


def compare_with_paper(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the models of a speed table in arXiv:2210.13452, and compare with the printed speeds.

    IX: detectors on COCO, 800x1280, and X: segmentors on ADE20K, 512x2048, one image at a time on a V100. XI:
    activations, 1x1M, and XII: classifiers with GELU for StarReLU, 224x224, 128 images at a time, TF32, on an
    A100. Papers print little of how they measured; what can be compared on another device are ratios.
    """
    if args.table == 'XI':
        if args.models or args.batch or args.dtype:
            raise UsageError(
                'Table XI has activations on a tensor of 1x1M: leave out --models, --batch and --dtype'
            )
        args.shape = [(1, 1_000_000)]
        printed = {row['model']: float(row['per_second']) for row in printed_speeds('XI')}
        return compare_activations(args, printed)
    rows = printed_speeds(args.table)
    names = [row['model'] for row in rows]
    for name in args.models or []:
        if name not in names:
            raise UsageError(f"Table {args.table} has no '{name}': choose from {', '.join(names)}")
    chosen = [row for row in rows if row['model'] in (args.models or names)]
    rows = [row for row in chosen if row['config']]
    for row in chosen:
        if not row['config']:
            print(f'{row["model"]}: not measured, no package ships a config of it')
    if not rows:
        return []
    height, width, batch = (int(rows[0][key]) for key in ('height', 'width', 'batch'))
    args.shape, args.batch = [(height, width)], args.batch or batch
    args.dtype = args.dtype or ('tf32' if args.table == 'XII' else 'float32')
    building = track(rows, 'building', console=Console(stderr=True), transient=True)
    models = prepare(args, [build_config(load_row_config(row)) for row in building])
    (image,) = make_images(args)
    runs = [partial(run_config, model, image, DTYPES[args.dtype]) for model in models]
    what = describe(args, image, f'Table {args.table}')
    speeds = [float(row['per_second']) for row in rows]
    return measure(
        names=[row['model'] for row in rows], runs=runs, repeats=args.repeats, printed=speeds, **what
    )


def measure_windows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time and peak memory of one attention layer, with a window and without, over the number of tokens."""
    print(f'window {args.window}x{args.window}, {args.dim} channels, {device()}, {args.threads} threads')
    print(f'{"tokens":>9} {"attention":>10} {"forward":>19} {"forward + backward":>21}')
    records = []
    for side in args.sides:
        for name, window in (('windowed', args.window), ('global', None)):
            if window is None and side > args.largest_global:
                continue
            cells = (
                measure_layer(side, args.dim, window, train, device(), args.repeats)
                for train in (False, True)
            )
            (fast, low), (slow, high) = cells
            print(
                f'{side:>4}x{side:<4} {name:>10} {fast:9.3f} s {low / 2**20:5.0f} MiB '
                f'{slow:9.3f} s {high / 2**20:7.0f} MiB',
                flush=True,
            )
            records.append(
                dict(side=side, dim=args.dim, window=window, forward=fast, forward_bytes=low)
                | dict(training=slow, training_bytes=high, device=device(), threads=args.threads)
            )
    return records


def main() -> None:
    """Measure."""
    args = parse_args()
    if args.json is not None:
        check_target(args.json, '--json')
    if getattr(args, 'plot', None) is not None:
        check_picture(args.plot, FIGURES)
    torch.set_num_threads(args.threads)
    command = dict(
        backbones=compare_backbones,
        models=compare_models,
        activations=compare_activations,
        paper=compare_with_paper,
        windows=measure_windows,
        memory=count_memory,
        exported=compare_exported,
    )
    records = command[args.command](args)
    if args.json is not None:
        with written(args.json) as draft:
            draft.write_text(json.dumps(records, indent=1))


if __name__ == '__main__':
    command_line(main)
