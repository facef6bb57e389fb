#!/usr/bin/env python
"""Evaluate an exported file with the test data and the metrics of a config."""

import argparse

import check_interpreter  # noqa: F401

from mmmeta.apis import load_config
from mmmeta.apis.exported import evaluate_exported
from mmmeta.cli.arguments import add_run_arguments, command_line


def main() -> None:
    """Evaluate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('file', metavar='FILE', help='what was exported: .onnx, .xml or .pt2')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--engine', choices=('onnxruntime', 'openvino', 'torch'), help='default: that of the file'
    )
    parser.add_argument('--threads', type=int, default=0, help='default: as many as the engine takes')
    parser.add_argument('--trust-file', action='store_true', help='run a .pt2 file, which may execute code')
    add_run_arguments(parser)
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    cfg.launcher = args.launcher
    cfg.console = 'full' if args.verbose else 'short'
    evaluate_exported(cfg, args.file, args.engine, args.threads, args.trust_file)


if __name__ == '__main__':
    command_line(main)
