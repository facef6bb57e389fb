"""Imported first by every tool: reports missing packages in one line instead of a traceback.

The folders below have links to this file, since Python looks for modules beside the script that it runs.
"""

import os
import shlex
import sys
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

missing = [name for name in ('mmengine', 'mmmeta') if find_spec(name) is None]
if missing:
    venv = Path(__file__).resolve().parent.parent / '.venv'
    remedy = 'run make setup, or use the interpreter of an environment that has them'
    if (venv / 'bin/python').exists() and not venv.samefile(sys.prefix):
        python, activate = (os.path.relpath(venv / 'bin' / name) for name in ('python', 'activate'))
        remedy = f'use {python} {shlex.join(sys.argv)}, or first: source {activate}'
    sys.exit(f'error: {sys.executable} has no {" and no ".join(missing)}: {remedy}')

# The distribution mmmeta of another project has its files in the same folder; ours is mmmetaformer.
for distribution in distributions(name='mmmeta'):
    if not distribution.metadata.get_all('Summary', [''])[0].startswith('MetaFormer'):
        sys.exit(
            f'error: mmmeta {distribution.version} in {sys.prefix} is another project, whose files lie in '
            'the same folder as those of mmmetaformer: pip uninstall -y mmmeta mmmetaformer, then install '
            'mmmetaformer again'
        )
