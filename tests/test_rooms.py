"""Imports inside the package point downwards only."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

# From the top; rooms in one row do not import each other.
ROOMS = (
    ('apis', '__main__'),
    ('analysis', 'deploy'),
    ('datasets', 'evaluation'),
    ('engine',),
    ('models',),
    ('weights',),
    ('models.layers',),
    ('registry', 'resources', 'stack', 'errors', 'atomic', 'version', '__init__'),
)
LEVELS = {room: level for level, row in enumerate(ROOMS) for room in row}


def room_of(module: str) -> str:
    """The room of a module of the package, given without the package's name."""
    parts = module.split('.')
    return 'models.layers' if parts[:2] == ['models', 'layers'] else parts[0] or '__init__'


def imports_of(path: Path):
    """The modules of the package that a file imports, wherever in the file."""
    package = ['mmmeta', *path.relative_to(ROOT / 'mmmeta').parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = '.'.join([*base, *(node.module or '').split('.')]).strip('.')
            # A name may be a module of the package that it is imported from.
            yield from (f'{module}.{alias.name}' for alias in node.names)


@pytest.mark.parametrize('path', sorted(ROOT.glob('mmmeta/**/*.py')), ids=lambda path: path.stem)
def test_imports_point_downwards(path):
    own = room_of('.'.join(path.relative_to(ROOT / 'mmmeta').with_suffix('').parts))
    for name in imports_of(path):
        package, _, module = name.partition('.')
        if package == 'mmmeta' and own != '__init__':
            room = room_of(module)
            below = LEVELS[room] > LEVELS[own] or room == own or own == room == '__main__'
            same_floor = LEVELS[room] == LEVELS[own] and own in (*ROOMS[0], *ROOMS[-1])
            assert below or same_floor, f'{path.name} of {own} imports {name}'
        if own == 'models.layers':
            standard = (
                'collections',
                'contextlib',
                'functools',
                'importlib',
                'math',
                're',
                'sys',
                'typing',
                'warnings',
            )
            # Kernels are imported where Triton is there.
            more = ('triton',) if path.parent.name == 'kernels' else ('natten',)
            assert package in ('mmmeta', 'torch', *standard, *more)
        if own == 'models':
            assert package not in ('mmdet', 'mmseg', 'mmpretrain') or 'heads' in path.parts
