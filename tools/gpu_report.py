#!/usr/bin/env python
"""Prove and measure everything that is claimed for a GPU, part by part, each in a process of its own."""

import runpy
import sys
from pathlib import Path

import check_interpreter  # noqa: F401

# Beside tools/ in a checkout; not in the wheel.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
runpy.run_module('benchmarks.gpu_report', run_name='__main__', alter_sys=True)
