#!/usr/bin/env python
"""Put a MetaFormer into every config of the OpenMMLab packages, train, and predict, on generated data."""

import runpy
import sys
from pathlib import Path

import check_interpreter  # noqa: F401

# Beside tools/ in a checkout; not in the wheel.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
runpy.run_module('benchmarks.zoo_coverage', run_name='__main__', alter_sys=True)
