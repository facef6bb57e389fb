"""Wrong uses of every command, in forks of a process that has everything loaded.

    python tests/hostile/cli.py --seed 7            # 300 cases
    python tests/hostile/cli.py --minutes 10        # with one seed after the other

A case takes a command line that is right and makes a part of it wrong. It fails if a traceback is printed,
the status is 0 or that of a signal, nothing is reported, an option is recommended that the command does not
have, a file is changed or left behind, or the time is over.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]

import forked  # noqa: E402

# Loaded once, in the process that is forked.
forked.LIBRARIES += (
    *('mmcv.transforms', 'mmdet.apis', 'mmseg.apis', 'mmpretrain.apis', 'mmmeta.__main__', 'mmmeta.apis.run'),
    *('mmmeta.apis.inference', 'mmmeta.apis.browse', 'mmmeta.visualization.cam', 'mmmeta.analysis.benchmark'),
    *(
        'mmmeta.cli.demo',
        'benchmarks.coverage.report',
        'benchmarks.gpu_parts',
        'mmmeta.analysis.reproduce',
    ),
)
# Seconds for a case.
LIMIT = 300
SEGMENTOR = ROOT / 'tests/data/tiny_upernet.py'
DETECTOR = ROOT / 'tests/data/tiny_mask_rcnn.py'
CLASSIFIER = ROOT / 'tests/data/tiny_classifier.py'

# Files that are no config; those of CONFIGS are, of Python, but wrong.
NO_CONFIGS = ('nothing.py', '', 'folder', 'folder.py', 'weights.pth', 'weights.safetensors', 'empty.pth')
NO_CONFIGS += ('image.png', 'binary.py', 'zeros.py', 'latin1.py', 'utf16.py', 'text.txt', 'config.json')
NO_CONFIGS += ('config.yaml', 'x' * 300 + '.py', 'a\nb.py', 'image.png/x.py')
CONFIGS = {
    'empty.py': '',
    'syntax.py': 'model = dict(\n',
    'indent.py': 'if True:\nmodel = 3\n',
    'unclosed.py': "x = 'abc\n",
    'import_error.py': 'import nothing_of_that_name\n',
    'name_error.py': 'x = 1\nmodel = dict(type=nothing)\n',
    'zero.py': 'x = 1 / 0\n',
    'type_error.py': "x = 'a' + 1\n",
    'no_base.py': "_base_ = './nothing.py'\n",
    'no_base_in_list.py': f"_base_ = ['{SEGMENTOR}', 'nothing.py']\n",
    'base_of_itself.py': "_base_ = './base_of_itself.py'\n",
    'number_as_base.py': '_base_ = 3\n',
    'picture_as_base.py': "_base_ = './image.png'\n",
    'folder_as_base.py': "_base_ = './folder.py'\n",
    'broken_base.py': "_base_ = './syntax.py'\n",
    'base_of_no_package.py': "_base_ = 'nothing::x.py'\n",
    'base_of_a_package.py': "_base_ = 'mmseg::nothing.py'\n",
    'no_key_of_base.py': f"_base_ = '{SEGMENTOR}'\nx = {{{{_base_.nothing}}}}\n",
    'key_of_base.py': f"_base_ = '{SEGMENTOR}'\nx = _base_.nothing\n",
    'twice.py': f"_base_ = ['{SEGMENTOR}', '{DETECTOR}']\n",
    'template.py': "x = '{{$NOTHING_OF_THAT_NAME:}}'\n",
    'no_model.py': 'x = 1\n',
    'model_is_a_number.py': f"_base_ = '{SEGMENTOR}'\nmodel = 3\n",
    'model_is_none.py': f"_base_ = '{SEGMENTOR}'\nmodel = None\n",
    'model_is_a_list.py': f"_base_ = '{SEGMENTOR}'\nmodel = [1, 2]\n",
    'no_type.py': f"_base_ = '{SEGMENTOR}'\nmodel = dict(_delete_=True, backbone=dict(type='x'))\n",
    'scope.py': f"_base_ = '{SEGMENTOR}'\ndefault_scope = 'nothing'\n",
    'scope_is_a_number.py': f"_base_ = '{SEGMENTOR}'\ndefault_scope = 3\n",
    'imports.py': "custom_imports = dict(imports=['nothing_of_that_name'])\n",
    'imports_a_number.py': 'custom_imports = dict(imports=3)\n',
    'imports_is_a_number.py': 'custom_imports = 3\n',
    'loader_is_a_number.py': f"_base_ = '{SEGMENTOR}'\n"
    + ''.join(f'{part}_dataloader = 3\n' for part in ('train', 'val', 'test')),
    'dataset_is_a_number.py': f"_base_ = '{SEGMENTOR}'\n"
    + ''.join(f'{part}_dataloader = dict(dataset=3)\n' for part in ('train', 'val', 'test')),
    'new_style.py': 'from mmengine.config import read_base\nwith read_base():\n    from .nothing import *\n',
    'new_style_import.py': 'from mmengine.config import read_base\nfrom nothing_here import x\n'
    'with read_base():\n    from .no_model import *\n',
}
IMAGES = (
    'nothing.png',
    '',
    'empty.png',
    'truncated.png',
    'weights.pth',
    'text.txt',
    'no_images',
    '/dev/null',
)
CHECKPOINTS = (
    'nothing.pth',
    '',
    'folder',
    'text.pth',
    'empty.pth',
    'binary.pth',
    'image.png',
    'truncated.pth',
)
CHECKPOINTS += ('config.json', 'list.pth', 'numbers.pth', 'other.pth', 'no_tensors.pth', 'cut.safetensors')
CHECKPOINTS += ('mmmeta://nothing', 'mmmeta://', 'http://127.0.0.1:1/x.pth', 'nothing://x', 'image.png/x.pth')
CHECKPOINTS += ('syntax.py', 'x' * 300 + '.pth')
EXPORTED = ('nothing.onnx', '', 'folder', 'empty.onnx', 'binary.onnx', 'text.txt', 'weights.pth', 'empty.pt2')
EXPORTED += ('binary.xml', 'image.png', 'binary.pt2', 'zip.pt2')
LOGS = ('nothing', '', 'folder', 'text.txt', 'image.png', 'config.json', 'steps.json', 'words.json')
POSITIVE = ('abc', '', '-1', '0', '1.5', 'nan')
COUNT = ('abc', '', '-1', '1.5', 'nan')
FRACTION = ('abc', '', '-1', 'nan', 'inf', '2')
CHOICE = ('nothing', '')
DEVICE = ('foo', 'cuda:99', '', 'cpu:x', '1', 'cuda:-1')
FOLDERS = ('image.png', 'image.png/x', '/proc/nothing', '/sys/nothing', 'x' * 300, '/dev/null')
PICTURES = ('folder', 'image.png/x.png', '/proc/nothing/x.png', '/sys/x.png', 'x.txt', 'x' * 300 + '.png', '')
BACKBONES = ('nothing', '', 'caformer', 'caformer_s99', 'caformer_s18,windw=3', 'caformer_s18,window=x')
BACKBONES += (
    'caformer_s18,',
    'timm/nothing',
    'mmmeta://nothing',
    'caformer_s18,window=4',
    'mmpretrain/nothing',
)
BACKBONES += ('weights.pth', 'caformer_s18,out_indices=9', 'caformer_s18,arch', 'caformer_s18,=')
OPTIONS = (
    *(
        'foo',
        '',
        '=',
        '=3',
        'model',
        'model.type.x=1',
        '..=3',
        'model..x=1',
        'model=3',
        'model=abc',
        'model=',
    ),
    *('model.backbone=3', 'model.backbone.arch=[1', 'model.backbone.arch=((', 'model.backbone=None'),
    *('model.type=Nothing', 'model.type=3', 'model.type=', 'model.backbone.type=mmmeta.Nothing'),
    *('model.backbone.nothing=1', 'model.backbone.type=nothing.CAFormer', 'model.backbone.arch=3'),
    *('model.backbone.drop_path_rate=abc', 'model.backbone.drop_path_rate=2', 'model.backbone.out_indices=9'),
    *('model.backbone.drop_path_rate=nan', 'model.backbone.out_indices=abc', 'model.backbone.window=abc'),
    *('model.backbone.init_cfg=3', 'model.backbone.init_cfg=abc', 'model.data_preprocessor=3'),
    *(
        'default_scope=nothing',
        'default_scope=3',
        'custom_imports.imports=nothing_here.x',
        'model.backbone.0=3',
    ),
)
TRAINING = (
    *('train_dataloader.batch_size=-1', 'train_dataloader.batch_size=0', 'train_dataloader.batch_size=abc'),
    *('train_dataloader.batch_size=1.5', 'train_dataloader.batch_size=', 'train_dataloader.batch_size=None'),
    *('train_dataloader.num_workers=-1', 'train_dataloader.num_workers=x', 'train_dataloader.nothing=1'),
    *(
        'train_dataloader.batch_size.x=1',
        'train_dataloader=3',
        'train_dataloader=None',
        'train_dataloader=abc',
    ),
    *('train_dataloader.dataset=3', 'train_dataloader.dataset.type=Nothing', 'train_dataloader.dataset.x=1'),
    *('train_dataloader.dataset.pipeline=3', 'train_dataloader.dataset.pipeline.0.type=Nothing'),
    *('train_dataloader.dataset.pipeline.99.type=Resize', 'train_dataloader.dataset.pipeline.x.type=Resize'),
    *(
        'train_dataloader.dataset.data_root=3',
        'train_dataloader.dataset.data_root=',
        'train_dataloader.sampler=3',
    ),
    *('train_dataloader.dataset.pipeline.0=3', 'train_dataloader.dataset.pipeline=abc'),
    *('train_dataloader.sampler.type=Nothing', 'train_dataloader.dataset.data_prefix=3'),
    *('train_dataloader.dataset.data_root=nothing', 'train_dataloader.dataset.pipeline.2.scale=abc'),
    *('train_dataloader.dataset.pipeline.2.scale=(0,0)', 'train_dataloader.dataset.pipeline.2.scale=(-8,8)'),
    *('optim_wrapper.optimizer.lr=abc', 'optim_wrapper.optimizer.lr=', 'optim_wrapper.optimizer.lr=-1'),
    *('optim_wrapper.optimizer.lr=nan', 'optim_wrapper.optimizer.lr=inf', 'optim_wrapper.optimizer.lr.x=1'),
    *('optim_wrapper.optimizer.lr=None', 'optim_wrapper.optimizer.lr=(1,2)', 'optim_wrapper.optimizer.x=1'),
    *('optim_wrapper.optimizer.type=Nothing', 'optim_wrapper.optimizer=3', 'optim_wrapper=3'),
    *('optim_wrapper.optimizer.weight_decay=abc', 'optim_wrapper.optimizer.weight_decay=-1'),
    *('optim_wrapper.optimizer.betas=3', 'optim_wrapper.optimizer.betas=(2,2)', 'optim_wrapper.type=Nothing'),
    *('optim_wrapper.accumulative_counts=0', 'optim_wrapper.accumulative_counts=x', 'optim_wrapper=None'),
    *('optim_wrapper.clip_grad=3', 'optim_wrapper.paramwise_cfg=3', 'optim_wrapper.clip_grad.max_norm=abc'),
    *('param_scheduler=3', 'param_scheduler.0.type=Nothing', 'param_scheduler.0.begin=abc'),
    *('param_scheduler.0.start_factor=abc', 'param_scheduler.0.end=-1', 'param_scheduler.9.begin=1'),
    *('param_scheduler.0.start_factor=5', 'param_scheduler.0.nothing=5', 'param_scheduler=abc'),
    *('train_cfg.max_iters=0', 'train_cfg.max_iters=-1', 'train_cfg.max_iters=abc', 'train_cfg.max_iters='),
    *('train_cfg.max_iters=1.5', 'train_cfg.val_interval=0', 'train_cfg.val_interval=x', 'train_cfg=3'),
    *(
        'train_cfg=None',
        'train_cfg.nothing=1',
        'train_cfg.type=Nothing',
        'val_cfg=3',
        'train_cfg.max_iters=None',
    ),
    *('randomness.seed=abc', 'randomness.seed=-1', 'randomness=3', 'randomness.seed=1e30', 'randomness.x=1'),
    *('default_hooks=3', 'default_hooks.checkpoint.interval=0', 'default_hooks.checkpoint.interval=abc'),
    *(
        'default_hooks.checkpoint=3',
        'default_hooks.logger.interval=0',
        'default_hooks.checkpoint.type=Nothing',
    ),
    *('default_hooks.checkpoint.max_keep_ckpts=abc', 'default_hooks.checkpoint.save_best=3'),
    *('default_hooks.checkpoint.nothing=1', 'default_hooks.logger.interval=abc', 'default_hooks.x=abc'),
    *(
        'custom_hooks=3',
        'custom_hooks=abc',
        'log_level=NOTHING',
        'log_level=3',
        'visualizer=3',
        'launcher=abc',
    ),
    *(
        'model.decode_head.num_classes=abc',
        'model.decode_head.num_classes=-1',
        'model.decode_head.channels=0',
    ),
    *('model.decode_head.num_classes=0', 'model.decode_head.channels=x', 'model.decode_head=3'),
    *(
        'model.decode_head.in_channels=3',
        'model.decode_head.loss_decode=3',
        'model.decode_head.dropout_ratio=9',
    ),
    *(
        'model.decode_head.dropout_ratio=x',
        'model.data_preprocessor.mean=abc',
        'model.data_preprocessor.size=x',
    ),
    *('model.data_preprocessor.std=0', 'model.data_preprocessor.mean=(1,2)', 'model.decode_head.norm_cfg=3'),
    *('load_from=nothing.pth', 'load_from=3', 'resume=abc', 'env_cfg=3', 'env_cfg.dist_cfg=3', 'work_dir=3'),
    *('train_dataloader.batch_size=1e9', 'model.decode_head.channels=1e9', 'train_dataloader.drop_last=abc'),
)
# Those that are seen without a run.
CHECKED = tuple(
    text
    for text in TRAINING
    if re.match(
        r'train_dataloader\.(batch_size|num_workers)|optim_wrapper\.optimizer\.lr|train_cfg\.max_iters|train_cfg=3'
        r'|randomness\.seed|(train_dataloader|optim_wrapper|default_hooks)=3|model\.decode_head\.num_classes',
        text,
    )
    and text != 'optim_wrapper.optimizer.lr=None'  # which only its optimizer does not take
)
TESTING = (
    *('test_dataloader.batch_size=-1', 'test_dataloader.batch_size=abc', 'test_dataloader.num_workers=-1'),
    *('test_dataloader=3', 'test_dataloader=None', 'test_evaluator=3', 'test_evaluator.type=Nothing'),
    *('test_evaluator=None', 'test_evaluator=abc', 'test_dataloader.dataset.pipeline.1.scale=abc'),
    *('test_dataloader.dataset.type=Nothing', 'test_dataloader.dataset.data_root=nothing', 'test_cfg=3'),
    *(
        'test_dataloader.dataset=3',
        'test_evaluator.iou_metrics=nothing',
    ),
    *('test_dataloader.dataset.data_root=3', 'test_dataloader.dataset.pipeline=3', 'model.test_cfg=3'),
    *('test_dataloader.dataset.pipeline.0.type=Nothing', 'test_evaluator.iou_metrics=3'),
    *('test_cfg.type=Nothing', 'test_cfg=None', 'test_cfg.nothing=1', 'model.test_cfg.mode=nothing'),
)
TARGETS = (
    'folder',
    '',
    'image.png/x.pth',
    '/proc/nothing/x.pth',
    '/sys/x.pth',
    'x' * 300 + '.pth',
    'new/',
    '/',
)
TARGETS += ('/dev/null', '/dev/full', '.', '..')
WORDS = ('nothing_at_all_like_this', 'caformer_s99', '%s', '[')


RUNS = {'--work-dir': FOLDERS, '--launcher': CHOICE}
MODEL = {'--device': DEVICE, '--cfg-options': OPTIONS}
TIMING = {
    '--threads': POSITIVE,
    '--repeats': POSITIVE,
    '--json': ('folder', 'image.png/x', '/proc/nothing/x'),
}
SHAPE = {
    '--shape': ('0 0', '-1 64', 'abc 64', '64', '1.5 64', '32 nan'),
    '--batch': POSITIVE,
    '--dtype': CHOICE,
}
NEW = {
    '--val-fraction': (*FRACTION, '1'),
    '--size': POSITIVE,
    '--batch-size': POSITIVE,
    '--epochs': POSITIVE,
    '--backbone': BACKBONES,
    '--weights': ('nothing.pth', 'mmmeta://nothing', 'folder', ''),
    '--out': ('folder', 'image.png/x.py', '/proc/nothing/x.py', '/sys/x.py', 'x.txt', '', 'x' * 300 + '.py'),
}
NO_FOLDERS = ('nothing', '', 'image.png', 'no_images', '/dev/null')


@dataclass(frozen=True)
class Command:
    """A command line that is right, and what is wrong for its parts.

    Attributes:
        line (tuple[str, ...]): The words; ``@name`` is a file of the inputs.
        positional (dict): Index in ``line`` to wrong values.
        options (dict): Name of an option to wrong values of it.
        alone (tuple): Words that are wrong when they are added.
    """

    line: tuple[str, ...]
    positional: dict[int, tuple[str, ...]]
    options: dict[str, tuple[str, ...]]
    alone: tuple[str, ...] = ()


DATA = 'data/ade20k/ADEChallengeData2016'
ADE = tuple(f'{part}_dataloader.dataset.data_root=@{DATA}' for part in ('train', 'val', 'test'))
ALL_CONFIGS = (*NO_CONFIGS, *CONFIGS)
TRAINABLE = (*NO_CONFIGS, *CONFIGS, 'mmseg::nothing.py', 'nothing::x.py', 'mmseg::', '::')
SAMPLE, WEIGHTS = '@image.png', '@weights.pth'
COMMANDS = {
    'train': Command(
        ('tools/train.py', str(SEGMENTOR), '--work-dir', 'work', '--cfg-options', *ADE),
        {1: TRAINABLE},
        {
            '--cfg-options': (*OPTIONS, *TRAINING),
            '--resume': CHECKPOINTS,
            '--backbone': BACKBONES,
            **RUNS,
        },
        ('--auto-scale-lr', '--nothing', 'another'),
    ),
    'train a detector': Command(
        ('tools/train.py', str(DETECTOR), '--work-dir', 'work'),
        {1: TRAINABLE},
        {
            '--cfg-options': (*OPTIONS, 'model.rpn_head.in_channels=abc', 'model.roi_head=3', 'model.neck=3'),
            '--resume': CHECKPOINTS,
            **RUNS,
        },
        ('--amp', '--auto-scale-lr'),
    ),
    'test': Command(
        ('tools/test.py', str(SEGMENTOR), 'none', '--work-dir', 'work', '--cfg-options', *ADE),
        {1: TRAINABLE, 2: CHECKPOINTS},
        {
            '--cfg-options': (*OPTIONS, *TESTING),
            '--test-data': TRAINABLE,
            '--show-dir': FOLDERS,
            **RUNS,
        },
        ('--nothing',),
    ),
    'test a classifier': Command(
        ('tools/test.py', str(CLASSIFIER), 'none', '--work-dir', 'work'),
        {1: TRAINABLE},
        {'--cfg-options': (*OPTIONS, 'model.head.num_classes=abc', 'model.head=3')},
        ('--tta',),
    ),
    'confusion_matrix': Command(
        (
            'tools/analysis_tools/confusion_matrix.py',
            str(SEGMENTOR),
            'none',
            '--work-dir',
            'work',
            '--cfg-options',
            *ADE,
        ),
        {1: (*TRAINABLE, str(DETECTOR)), 2: CHECKPOINTS},
        {'--largest': POSITIVE, '--cfg-options': (*OPTIONS, *TESTING), **RUNS},
    ),
    'browse_dataset': Command(
        (
            'tools/analysis_tools/browse_dataset.py',
            str(SEGMENTOR),
            '--out-dir',
            'out',
            '--number',
            '1',
            '--cfg-options',
            *ADE,
        ),
        {1: ALL_CONFIGS},
        {
            '--split': CHOICE,
            '--number': POSITIVE,
            '--out-dir': FOLDERS,
            '--cfg-options': (
                *OPTIONS[:8],
                *(text for text in TRAINING if text.startswith('train_dataloader.d')),
            ),
        },
    ),
    'get_flops': Command(
        ('tools/analysis_tools/get_flops.py', str(SEGMENTOR), '--shape', '64', '64'),
        {1: ALL_CONFIGS},
        {'--shape': SHAPE['--shape'], '--backbone': BACKBONES},
        ('--paper',),
    ),
    'reproduce': Command(
        ('tools/analysis_tools/reproduce.py', str(ROOT / 'configs/upernet_caformer_s18_ade20k.py'), '--all'),
        {1: ('nothing.py', str(SEGMENTOR), 'nothing::x', '')},
        {
            '--work-dirs': ('records', 'image.png'),
            '--checkpoint': CHECKPOINTS,
            '--export': FOLDERS,
            '--test-data': ('nothing.py',),
            '--cfg-options': ('foo', 'model=3'),
        },
        ('--tta', '--trust-checkpoint'),
    ),
    'vis_cam': Command(
        ('tools/analysis_tools/vis_cam.py', SAMPLE, str(SEGMENTOR), 'none', '--out', 'cam.png'),
        {1: IMAGES, 2: (*ALL_CONFIGS, 'caformer_s99'), 3: CHECKPOINTS},
        {
            '--stage': ('abc', '', '-1', '4', '1.5', '9' * 30),
            '--method': CHOICE,
            '--target': ('nothing', '-1', '150', '9' * 30, ''),
            '--out': PICTURES,
            **MODEL,
        },
    ),
    'image_demo': Command(
        ('tools/image_demo.py', SAMPLE, str(SEGMENTOR), 'none', '--out-dir', 'out'),
        {1: IMAGES, 2: (*ALL_CONFIGS, 'caformer_s99', 'caformer_s18_in99k'), 3: CHECKPOINTS},
        {'--top': POSITIVE, '--score-thr': FRACTION, '--out-dir': FOLDERS, **MODEL},
    ),
    'analyze_logs': Command(
        ('tools/analysis_tools/analyze_logs.py', '@run/scalars.json', '--out', 'curves.png'),
        {1: LOGS},
        {'--keys': ('nothing', ''), '--out': PICTURES},
    ),
    'benchmark backbones': Command(
        (
            'tools/analysis_tools/benchmark.py',
            'backbones',
            'poolformer_s12',
            '--shape',
            '32',
            '32',
            '--repeats',
            '1',
        ),
        {2: BACKBONES},
        {**SHAPE, **TIMING, '--plot': PICTURES},
    ),
    'benchmark models': Command(
        (
            'tools/analysis_tools/benchmark.py',
            'models',
            str(SEGMENTOR),
            '--shape',
            '64',
            '64',
            '--repeats',
            '1',
        ),
        {2: ALL_CONFIGS},
        {**SHAPE, **TIMING, '--backbone': BACKBONES},
    ),
    'benchmark exported': Command(
        ('tools/analysis_tools/benchmark.py', 'exported', '@binary.onnx'),
        {2: EXPORTED},
        {
            '--engine': CHOICE,
            '--threads': POSITIVE,
            '--model': ('x', 'nothing.py none', f'{SEGMENTOR} nothing'),
        },
    ),
    'benchmark activations': Command(
        ('tools/analysis_tools/benchmark.py', 'activations', '--shape', '8', '8', '--repeats', '1'),
        {},
        {'--shape': ('0', '-1 3', 'abc', '1.5'), **TIMING},
    ),
    'benchmark paper': Command(
        ('tools/analysis_tools/benchmark.py', 'paper', 'XI', '--repeats', '1'),
        {2: ('XX', '', 'ix')},
        {'--models': ('nothing',), '--batch': POSITIVE, '--dtype': CHOICE, '--threads': POSITIVE},
    ),
    'benchmark memory': Command(
        ('tools/analysis_tools/benchmark.py', 'memory', 'poolformer_s12', '--shape', '64', '64'),
        {2: BACKBONES},
        {'--shape': SHAPE['--shape'], '--batch': POSITIVE, '--device': CHOICE, '--json': TIMING['--json']},
    ),
    'benchmark windows': Command(
        ('tools/analysis_tools/benchmark.py', 'windows', '--sides', '8', '--dim', '32', '--repeats', '1'),
        {},
        {
            '--sides': (*POSITIVE, '8 0'),
            '--window': ('abc', '-1', '4', '0'),
            '--dim': (*POSITIVE, '33'),
            **TIMING,
        },
    ),
    'generate_dataset': Command(
        ('tools/generate_dataset.py', 'generated', '--num-train', '1', '--num-val', '1', '--size', '32'),
        {1: FOLDERS},
        {
            '--layout': CHOICE,
            '--num-train': POSITIVE,
            '--num-val': POSITIVE,
            '--size': (*POSITIVE, '1'),
            '--seed': COUNT,
        },
    ),
    'demo': Command(
        ('tools/demo.py', '--data', '@no_images', '--work-dir', 'work'),
        {},
        {'--task': CHOICE, '--processes': POSITIVE, '--work-dir': FOLDERS, '--cfg-options': OPTIONS[:6]},
    ),
    'model_zoo': Command(('tools/model_zoo.py', '--nothing'), {}, {}, ('--count=3', 'another')),
    'zoo_coverage': Command(
        ('tools/zoo_coverage.py', '--pattern', 'nothing_at_all', '--work-dir', 'work'),
        {},
        {'--backbone': BACKBONES, '--processes': POSITIVE, '--work-dir': FOLDERS},
    ),
    'gpu_report': Command(
        ('tools/gpu_report.py', '--only', 'nothing', '--out', 'out'),
        {},
        {'--limit': POSITIVE, '--out': FOLDERS, '--run': CHOICE},
    ),
    'convert_weights': Command(
        ('tools/model_converters/convert_weights.py', '@backbone.pth', 'out.pth', '--force'),
        {1: (*CHECKPOINTS, 'weights.pth'), 2: TARGETS},
        {'--to': CHOICE},
    ),
    'export': Command(
        ('tools/deployment/export.py', 'poolformer_s12', 'none', 'out.onnx', '--shape', '64', '64'),
        {
            1: (*BACKBONES, *ALL_CONFIGS),
            2: CHECKPOINTS,
            3: ('folder', '', 'x.txt', 'image.png/x.onnx', '/proc/nothing/x.onnx', 'x' * 300 + '.onnx'),
        },
        {
            '--format': CHOICE,
            '--shape': ('0 0', '-1 64', 'abc 64', '64', '1.5 64'),
            '--dynamic': CHOICE,
            '--precision': CHOICE,
            '--images': IMAGES[:6],
            '--samples': ('abc', '1.5'),
            '--cfg-options': ('foo', 'a=1'),
        },
        ('--max-drop=1', '--precision=int8'),
    ),
    'run': Command(
        ('tools/deployment/run.py', '@binary.onnx', SAMPLE, '--out-dir', 'out'),
        {1: EXPORTED, 2: IMAGES},
        {'--engine': CHOICE, '--threads': ('abc', '-1'), '--out-dir': FOLDERS, '--score-thr': FRACTION},
    ),
    'evaluate': Command(
        ('tools/deployment/evaluate.py', '@binary.onnx', str(SEGMENTOR), '--work-dir', 'work'),
        {1: EXPORTED, 2: ALL_CONFIGS},
        {'--engine': CHOICE, '--threads': ('abc', '-1'), **RUNS, '--cfg-options': OPTIONS},
    ),
    'check': Command(
        ('-m', 'mmmeta', 'check', str(SEGMENTOR), '--cfg-options', *ADE),
        {3: TRAINABLE},
        {'--cfg-options': (*OPTIONS, *CHECKED)},
        ('--nothing', 'another'),
    ),
    'forecast': Command(
        ('-m', 'mmmeta', 'check', str(SEGMENTOR), '--forecast', '--cfg-options', *ADE),
        {3: TRAINABLE},
        {'--cfg-options': (*OPTIONS, *CHECKED)},
    ),
    'new seg': Command(
        (
            '-m',
            'mmmeta',
            'new',
            'seg',
            '--images',
            f'@{DATA}/images/training',
            '--masks',
            f'@{DATA}/annotations/training',
            '--ignore',
            '0',
            '--out',
            'seg.py',
            '--weights',
            'none',
        ),
        {5: NO_FOLDERS, 7: NO_FOLDERS},
        {
            '--ignore': ('abc', '999', '1,2', '-5'),
            '--val-images': NO_FOLDERS,
            '--method': CHOICE,
            '--classes': ('a', 'nothing.txt', 'a,a', '', 'folder'),
            **NEW,
        },
    ),
    'new det': Command(
        (
            '-m',
            'mmmeta',
            'new',
            'det',
            '--images',
            '@data/coco/coco/train2017',
            '--annotations',
            '@data/coco/coco/annotations/instances_train2017.json',
            '--out',
            'det.py',
            '--weights',
            'none',
        ),
        {
            5: NO_FOLDERS,
            7: (*NO_FOLDERS, 'config.json', 'text.txt', 'binary.py', 'steps.json', 'weights.pth'),
        },
        {'--method': CHOICE, '--classes': ('nothing.txt', 'a,a', 'folder'), **NEW},
    ),
    'new cls': Command(
        (
            '-m',
            'mmmeta',
            'new',
            'cls',
            '@data/imagenet/imagenet/train',
            '--out',
            'cls.py',
            '--weights',
            'none',
        ),
        {4: NO_FOLDERS},
        NEW,
    ),
    'swap': Command(
        (
            '-m',
            'mmmeta',
            'swap',
            'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py',
            'caformer_s18',
            '--out',
            'swapped.py',
        ),
        {3: TRAINABLE, 4: BACKBONES},
        {
            '--out': NEW['--out'],
            '--train-size': ('0 0', '-32 32', 'abc 32', '33 33', '32', '1.5 32'),
        },
        ('--nothing',),
    ),
    'list': Command(('-m', 'mmmeta', 'list', 'nothing_at_all'), {3: WORDS}, {}, ('--archs', '--weights')),
    'mmmeta': Command(('-m', 'mmmeta', 'nothing'), {2: ('nothing', '', 'trian')}, {}, ('--nothing',)),
}
# They start from nothing, which takes seconds: a few of each.
LAUNCHERS = (
    ('tools/dist_train.sh',),
    ('tools/dist_train.sh', '@nothing.py', '1'),
    ('tools/dist_train.sh', '@syntax.py', '1', '--work-dir', 'work'),
    ('tools/dist_train.sh', '@weights.pth', '1'),
    ('tools/dist_train.sh', str(SEGMENTOR), '-1'),
    ('tools/dist_train.sh', str(SEGMENTOR), '1', '--work-dir', 'work', '--cfg-options', 'foo'),
    ('tools/dist_test.sh', str(SEGMENTOR), '1'),
    ('tools/dist_test.sh', str(SEGMENTOR), '@nothing.pth', '1', '--work-dir', 'work', '--cfg-options', *ADE),
    ('tools/dist_test.sh', str(SEGMENTOR), 'none', 'one'),
    ('tools/slurm_train.sh', 'partition'),
    ('tools/slurm_test.sh', 'partition', 'job', '@nothing.py', 'none'),
)


@dataclass(frozen=True)
class Case:
    """A wrong command line.

    Attributes:
        name (str): The command, and what is wrong of it.
        line (tuple[str, ...]): The words.
    """

    name: str
    line: tuple[str, ...]


def at(value: str) -> str:
    """A wrong value as a word: names of files are those of the inputs."""
    head = value.partition('/')[0]
    known = head in CONFIGS or head in FILES or head in MADE
    return f'@{value}' if known else value


def mistakes(name: str) -> Iterator[Case]:
    """All cases of a command with one mistake."""
    command = COMMANDS[name]
    line = command.line
    if not (command.positional or command.options or command.alone):
        yield Case(name, line)
    for index, values in command.positional.items():
        for value in values:
            yield Case(f'{name}: {index} is {value[:60]!r}', (*line[:index], at(value), *line[index + 1 :]))
    for option, values in command.options.items():
        for value in values:
            yield Case(f'{name}: {option} {value[:60]!r}', with_option(line, option, value))
    for word in command.alone:
        yield Case(f'{name}: {word}', (*line[:3], word, *line[3:]))


def with_option(line: tuple[str, ...], option: str, value: str) -> tuple[str, ...]:
    """A command line with another value of an option."""
    words = list(line)
    if option == '--cfg-options':
        # The last of two of one key holds.
        return (*words, value) if option in words else (*words, option, value)
    values = (
        [at(word) for word in value.split(' ')]
        if option in ('--shape', '--train-size', '--model')
        else [at(value)]
    )
    if option in words:
        start = words.index(option)
        end = next((i for i in range(start + 1, len(words)) if words[i].startswith('--')), len(words))
        return (*words[:start], option, *values, *words[end:])
    place = words.index('--cfg-options') if '--cfg-options' in words else len(words)
    return (*words[:place], option, *values, *words[place:])


def draw(rng: random.Random, count: int) -> list[Case]:
    """Cases of all commands in turn, and the launchers, some with two mistakes."""
    cases = [Case(f'launcher: {" ".join(line)[:60]}', line) for line in LAUNCHERS]
    rest = {name: list(mistakes(name)) for name in COMMANDS}
    for own in rest.values():
        rng.shuffle(own)
    # As often as they have mistakes, but each at least once.
    cases += [own.pop() for own in rest.values()]
    others = [case for own in rest.values() for case in own]
    rng.shuffle(others)
    cases += others[: max(0, count - len(cases))]
    return cases[:count]


FILES = {
    *('folder', 'folder.py', 'weights.pth', 'weights.safetensors', 'empty.pth', 'image.png', 'binary.py'),
    *('zeros.py', 'latin1.py', 'utf16.py', 'text.txt', 'config.json', 'config.yaml', 'empty.png'),
    *('truncated.png', 'no_images', 'text.pth', 'binary.pth', 'truncated.pth', 'list.pth', 'numbers.pth'),
    *(
        'other.pth',
        'no_tensors.pth',
        'cut.safetensors',
        'empty.onnx',
        'binary.onnx',
        'empty.pt2',
        'binary.xml',
    ),
    *('binary.pt2', 'zip.pt2', 'steps.json', 'words.json', 'run', 'backbone.pth', 'records'),
}
MADE = {'nothing.py', 'nothing.pth', 'nothing.png', 'nothing.onnx'}


def make_inputs(folder: Path) -> None:
    """Write the files that commands are given."""
    import numpy as np
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    from mmmeta.datasets import generate_ade20k, generate_coco, generate_imagenet
    from mmmeta.models import PoolFormer

    generate_ade20k(folder / 'data/ade20k', num_train=4, num_val=2, size=64)
    generate_coco(folder / 'data/coco', num_train=4, num_val=2, size=64)
    generate_imagenet(folder / 'data/imagenet', num_train=36, num_val=18, size=64)
    for name, text in CONFIGS.items():
        (folder / name).write_text(text)
    noise = np.random.default_rng(0).integers(0, 256, 4096, np.uint8).tobytes()
    for name in ('binary.py', 'binary.pth', 'binary.onnx', 'binary.xml', 'binary.pt2'):
        (folder / name).write_bytes(noise)
    for name in ('empty.pth', 'empty.png', 'empty.onnx', 'empty.pt2'):
        (folder / name).touch()
    (folder / 'zeros.py').write_bytes(b'x = 1\n\0\0\0')
    (folder / 'latin1.py').write_bytes("x = 'é'\n".encode('latin-1'))
    (folder / 'utf16.py').write_text('x = 1\n', encoding='utf-16')
    for name in ('text.txt', 'text.pth'):
        (folder / name).write_text('This is a text.\n')
    for name in ('folder', 'folder.py', 'no_images', 'run', 'records'):
        (folder / name).mkdir()
    (folder / 'no_images/notes.txt').write_text('no images\n')
    (folder / 'config.json').write_text('{"model": 3}')
    (folder / 'config.yaml').write_text('model: 3\n')
    steps = [dict(step=i, loss=1.0 / i, lr=0.1) for i in (1, 2, 3)]
    (folder / 'run/scalars.json').write_text('\n'.join(map(json.dumps, steps)))
    (folder / 'steps.json').write_text('{"loss": 1}\n{"loss": 2}\n')
    (folder / 'words.json').write_text('{"step": "one", "loss": "low"}\n')
    (folder / 'records/run_record').mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        folder / 'image.png'
    )
    (folder / 'truncated.png').write_bytes((folder / 'image.png').read_bytes()[:2000])
    torch.manual_seed(0)
    arch = dict(base='s12', depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    backbone = PoolFormer(arch).state_dict()
    torch.save(dict(state_dict=backbone), folder / 'backbone.pth')
    torch.save(dict(state_dict={'fc.weight': torch.zeros(3, 3)}), folder / 'weights.pth')
    torch.save(dict(state_dict={'layer.0.weight': torch.zeros(3)}), folder / 'other.pth')
    torch.save([1, 2, 3], folder / 'list.pth')
    torch.save(dict(state_dict={'a': 1, 'b': 'c'}), folder / 'numbers.pth')
    torch.save(dict(meta={}), folder / 'no_tensors.pth')
    (folder / 'truncated.pth').write_bytes((folder / 'weights.pth').read_bytes()[:-300])
    save_file({'fc.weight': torch.zeros(3, 3)}, folder / 'weights.safetensors')
    (folder / 'cut.safetensors').write_bytes((folder / 'weights.safetensors').read_bytes()[:-8])
    shutil.copy(folder / 'weights.pth', folder / 'zip.pt2')


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Names, sizes and times of the files below a folder."""
    stats = {str(path.relative_to(folder)): path.lstat() for path in folder.rglob('*')}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


# What a run that began may leave in its work directory: the folder of its logs.
ALLOWED = re.compile(r'(work|work_dirs)?(/?[\w.]+)?(/\d{8}_\d{6}(/.*)?)?')


class Fuzzer:
    """Runs cases, and says what is wrong with how they end.

    Args:
        folder (Path): For inputs and scratch.
    """

    def __init__(self, folder: Path) -> None:
        self.inputs = folder / 'inputs'
        self.scratch = folder / 'scratch'
        for path in (self.inputs, self.scratch):
            path.mkdir()
        make_inputs(self.inputs)
        self.before = snapshot(self.inputs)
        self.help: dict[tuple[str, ...], str] = {}
        self.lock = threading.Lock()
        self.number = 0
        self.environment = {
            **os.environ,
            **dict(PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', PYTHON=sys.executable),
            **dict(HF_HUB_OFFLINE='1', TORCH_HOME=str(folder / 'torch'), HF_HOME=str(folder / 'hf')),
        }

    def words(self, case: Case) -> list[str]:
        """The words of a case, with files where they are."""
        return [word.replace('@', f'{self.inputs}/') if '@' in word else word for word in case.line]

    def run(self, words: list[str], cwd: Path) -> tuple[int | None, str, str]:
        """Run a command line; its status, None when its time was over, and what it wrote."""
        words = [str(ROOT / words[0]) if words[0].startswith('tools/') else words[0], *words[1:]]
        if words[0].endswith('.sh'):
            command = subprocess.Popen(
                words,
                cwd=cwd,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        else:
            command = forked.Script(words, cwd, self.environment)
        try:
            output, errors = command.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired as error:
            command.kill()
            return None, error.output or '', error.stderr or ''
        return command.returncode, output, errors

    def options_of(self, words: list[str]) -> str:
        """The help of a command."""
        key = tuple(words[:3]) if words[0] == '-m' else tuple(words[:1])
        if 'benchmark' in words[0] or words[2:3] == ['new']:
            key = (*key, words[len(key)])
        if key not in self.help:
            self.help[key] = self.run([*key, '--help'], self.scratch)[1]
        return self.help[key]

    def problem(self, case: Case) -> str | None:
        """Run a case; what is wrong with how it ends."""
        with self.lock:
            self.number += 1
            cwd = self.scratch / str(self.number)
        cwd.mkdir()
        words = self.words(case)
        status, output, errors = self.run(words, cwd)
        text = output + errors
        left = sorted(name for name in snapshot(cwd) if not ALLOWED.fullmatch(name))
        shutil.rmtree(cwd)
        if status is None:
            return f'not at its end after {LIMIT} s'
        if 'Traceback (most recent call last)' in text:
            return f'a traceback: {text.strip().splitlines()[-1]}'
        if status <= 0:
            return f'status {status}: {text.strip()[-300:]}'
        if 'error: ' not in text and 'usage: ' not in text:
            return f'nothing is reported: {text.strip()[-300:]}'
        if left:
            return f'left behind: {", ".join(left[:5])}'
        if snapshot(self.inputs) != self.before:
            changed = dict(snapshot(self.inputs).items() ^ self.before.items())
            self.before = snapshot(self.inputs)
            return f'changed: {", ".join(changed)}'
        message = next((line for line in text.splitlines() if line.startswith('error: ')), '')
        named = set(re.findall(r'(?<![\w\'-])--[a-z][a-z-]+', message)) - set(case.line)
        if named and (words[0].endswith('.py') or words[0] == '-m'):
            unknown = [name for name in named if name not in self.options_of(words)]
            if unknown and 'python -m mmmeta' not in message:
                return f'it has no {", ".join(unknown)}: {message}'
        return None


def run_all(fuzzer: Fuzzer, cases: list[Case], jobs: int, seed: int | str) -> int:
    """Run cases, print those that fail, and return how many."""
    failed: Counter[str] = Counter()
    with ThreadPoolExecutor(jobs) as pool:
        for case, problem in zip(cases, pool.map(fuzzer.problem, cases), strict=True):
            if problem:
                failed[case.name.partition(':')[0]] += 1
                print(
                    f'FAILED {case.name} (seed {seed})\n  {" ".join(map(repr, case.line))}\n  {problem}',
                    flush=True,
                )
    return failed.total()


def main() -> None:
    """Run the fuzzer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seed', type=int, help='default: the day')
    parser.add_argument('--cases', type=int, default=300, help='default: %(default)s')
    parser.add_argument('--minutes', type=float, help='run that long, with one seed after the other')
    parser.add_argument('--only', help='cases whose names have this pattern, all of them')
    parser.add_argument('--jobs', type=int, default=os.cpu_count(), help='at a time')
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else date.today().toordinal()
    start, tried, failed = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder).resolve())
        while True:
            if args.only:
                every = (case for name in COMMANDS for case in mistakes(name))
                cases = [case for case in every if re.search(args.only, case.name)]
            else:
                cases = draw(random.Random(seed), args.cases)
            print(f'seed {seed}: {len(cases)} cases', flush=True)
            failed += run_all(fuzzer, cases, args.jobs, seed)
            tried += len(cases)
            if not args.minutes or time.monotonic() - start > 60 * args.minutes:
                break
            seed += 1
    print(f'{tried} cases, {failed} failed, {time.monotonic() - start:.0f} s')
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
