"""Imports inside the package point downwards only, and no two modules import each other."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

# From the top; rooms in one row do not import each other.
ROOMS = (
    ('__main__',),
    ('cli',),
    ('apis',),
    ('scaffold',),
    ('swapping',),
    ('validation',),
    ('analysis', 'deploy', 'visualization'),
    ('engine',),
    ('config',),
    ('models',),
    ('models.layers', 'weights', 'datasets', 'evaluation'),
    ('models.ops', 'runtime'),
    ('registry',),
    ('utils', 'version'),
)
LEVELS = {room: level for level, row in enumerate(ROOMS) for room in row}
MODULES = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
    for path in sorted(ROOT.glob('mmmeta/**/*.py'))
}
# What layers and their operations may import beside PyTorch; kernels are imported where Triton is there.
STANDARD = (
    *('collections', 'contextlib', 'functools', 'importlib', 'math', 'os', 're', 'sys', 'typing'),
    'warnings',
)


def room_of(module: str) -> str:
    """The room of a module of the package."""
    _, room, *rest = module.split('.')
    inner = f'{room}.{rest[0]}' if rest else room
    return inner if inner in ('models.layers', 'models.ops') else room


def imports_of(module: str, everywhere: bool = True):
    """The modules that one imports: wherever in the file, or only when it is imported."""
    path = MODULES[module]
    package = list(path.relative_to(ROOT).parent.parts)
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = '.'.join([*base, *(node.module or '').split('.')]).strip('.')
            for alias in node.names:
                # A name may be a module of the package that it is imported from.
                yield f'{source}.{alias.name}' if f'{source}.{alias.name}' in MODULES else source


@pytest.mark.parametrize('module', [module for module in MODULES if module != 'mmmeta'])
def test_imports_point_downwards(module):
    own = room_of(module)
    for name in imports_of(module):
        package = name.partition('.')[0]
        if name == 'mmmeta':
            continue  # its version
        if package == 'mmmeta':
            room = room_of(name)
            assert room == own or LEVELS[room] > LEVELS[own], f'{module} imports {name}'
        if own == 'models.layers':
            assert package in ('mmmeta', 'torch', *STANDARD)
        if own == 'models.ops':
            more = ('triton',) if '.kernels.' in module else ('natten',)
            assert package in ('mmmeta', 'torch', *STANDARD, *more)
        if own == 'models':
            assert package not in ('mmdet', 'mmseg', 'mmpretrain') or '.heads' in module
        if own == 'runtime' and module != 'mmmeta.runtime':  # a file that is shipped alone
            assert package != 'mmmeta'


def test_there_is_no_circle():
    graph = {module: {name for name in imports_of(module) if name in MODULES} for module in MODULES}
    while leaves := [module for module, names in graph.items() if not names & graph.keys() - {module}]:
        for module in leaves:
            del graph[module]
    assert not graph


def test_no_room_has_the_name_of_a_public_function():
    from mmmeta import apis

    rooms = {path.parent.name for path in Path(ROOT, 'mmmeta').glob('*/__init__.py')}
    assert rooms == {room for room in LEVELS if room.isidentifier()} - {'__main__', 'registry', 'version'}
    assert not rooms & set(apis.__all__)
