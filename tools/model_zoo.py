#!/usr/bin/env python
"""Write the metafiles, model-index.yml, docs/model_zoo.md and its picture from configs and papers' tables."""

import runpy
import sys
from pathlib import Path

import check_interpreter  # noqa: F401

# Beside tools/ in a checkout; not in the wheel.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
runpy.run_module('benchmarks.model_zoo', run_name='__main__', alter_sys=True)
