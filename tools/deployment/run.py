#!/usr/bin/env python
"""Run an exported file on images; export.py puts a copy of what this executes beside each file."""

import runpy
from pathlib import Path

# By its path: the package around it would import PyTorch, which running a file does not need.
runpy.run_path(str(Path(__file__).resolve().parents[2] / 'mmmeta/runtime/run.py'), run_name='__main__')
