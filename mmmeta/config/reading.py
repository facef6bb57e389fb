"""Read config files, and report what is wrong in one of them by its name and line."""

import ast
import difflib
import importlib
import inspect
import json
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

import mmengine.config
import yaml
from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError

from mmmeta.utils.errors import UsageError
from mmmeta.utils.resources import resource_root
from mmmeta.utils.stack import INSTALL, explain_missing_package, require

from .literals import can_be_template
from .pure_python import with_names
from .values import iter_items

# Folders of what a line of a config calls when it reads another config or imports a module.
_READERS = tuple(str(Path(inspect.getfile(module)).parent) for module in (mmengine.config, importlib))
_FROZEN = '<frozen importlib'
# What lines of a config raise, and MMEngine about its content.
_FAILURES = (
    *(ImportError, TypeError, AttributeError, NameError, ValueError, ArithmeticError, LookupError),
    RuntimeError,
)
# What MMEngine replaces by the path of the file, as text.
OWN_NAME = re.compile(r'\{\{\s*file(Dirname|Basename|BasenameNoExtension|Extname)\s*\}\}')
# Bases of other formats that MMEngine reads.
BASES_OF_DATA = ('.json', '.yaml', '.yml')


def check_config_exists(path: str) -> None:
    """Check that a config file is there.

    Raises:
        UsageError: It is not; a similar name beside it is suggested.
    """
    if not os.path.isfile(path):
        folder = Path(path).parent
        names = sorted(p.name for p in folder.glob('*.py')) if os.path.isdir(folder) else []
        close = difflib.get_close_matches(Path(path).name, names, n=1)
        hint = (
            f': did you mean {folder / close[0]}?' if close else ': the configs are listed by ls configs/*.py'
        )
        raise UsageError(f"there is no config '{path}'{hint}")


def resolve_config_path(path: str) -> str:
    """Resolve ``package::config`` to a file; return any other path unchanged.

    Raises:
        UsageError: No package of that name has configs.
        StackError: The package is not installed.
    """
    package, colons, name = path.partition('::')
    if not colons:
        return path
    if package == 'mmmeta':
        return str(resource_root() / 'configs' / name)
    if package not in INSTALL:
        raise UsageError(
            f"'{path}': the package before :: must be one of mmmeta, {', '.join(INSTALL)}, not '{package}'"
        )
    return str(require(package) / '.mim/configs' / name)


def read_config(path: str) -> Config:
    """Read a config file.

    Args:
        path (str): The file.

    Raises:
        UsageError: It, or one that it inherits from, is not there, is not Python, or fails while it is run.
        StackError: It inherits from a package that is not installed.
    """
    check_config_exists(path)
    files = list(_check_files(Path(path), ()))
    try:
        with explain_missing_package():
            cfg = Config.fromfile(path)
            list(iter_items(cfg))  # what a config of pure Python imports is looked up when it is used
            return with_names(cfg)
    except ConfigParsingError as error:
        raise UsageError(f"the config '{path}' cannot be read: {error}") from error
    except SyntaxError as error:  # of a config that another one imports
        raise UsageError(f"the config '{path}' is not valid Python: {error}") from error
    except _FAILURES as error:
        if isinstance(error, ImportError) and 'custom modules' in str(error):
            raise UsageError(
                f"the custom_imports of '{path}' cannot be imported ({error.__cause__}): run it where their "
                'modules are, or put that folder into PYTHONPATH'
            ) from error
        _raise_if_of_config(error, path, files)
        raise


def _check_files(path: Path, above: tuple[Path, ...]) -> Iterator[str]:
    """Check that a config and those that it inherits from can be parsed; the absolute paths of them."""
    path = Path(os.path.abspath(path))
    if path in above:
        raise UsageError(f"the config '{path}' inherits from itself: take it out of its _base_")
    parent = f", which '{above[-1]}' inherits from" if above else ''
    if not path.is_file():
        raise UsageError(f"there is no config '{path}'{parent}")
    if above and path.suffix in BASES_OF_DATA:
        _check_data(path, parent)
        yield str(path)
        return
    if path.suffix != '.py':
        raise UsageError(f"'{path}'{parent} is not a config: give a Python file, with the suffix .py")
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        line = f' in line {error.lineno}' if error.lineno else ''
        raise UsageError(f"the config '{path}'{parent} is not valid Python{line}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nested too deeply
        raise UsageError(f"the config '{path}'{parent} is not valid Python: {error}") from error
    try:
        text = path.read_text('utf-8')
    except UnicodeDecodeError as error:  # with a declaration of another encoding
        raise UsageError(f"the config '{path}'{parent} is not encoded in UTF-8: convert it") from error
    named = {str(path.parent) if key == 'Dirname' else path.name for key in OWN_NAME.findall(text)}
    if not all(map(can_be_template, named)):
        raise UsageError(
            f"the config '{path}'{parent} names its own folder or file by a template, where quotes, "
            'backslashes and line breaks would be read as Python: rename it'
        )
    yield str(path)
    for base in _bases(tree, path):
        if '{{' in base:  # a template, which MMEngine replaces
            continue
        if '::' not in base:
            yield from _check_files(path.parent / base, (*above, path))
        elif base.partition('::')[0] not in INSTALL:
            raise UsageError(
                f"the config '{path}' inherits from '{base}': the package before :: must be one of "
                f'{", ".join(INSTALL)}'
            )
        elif not os.path.isfile(resolve_config_path(base)):
            raise UsageError(f"there is no config '{base}', which '{path}' inherits from")


def is_shipped(path: str) -> bool:
    """Return whether a config is one of ours: a file of this installation, or a copy of one.

    A copy has the name of ours, the same content, byte for byte, and so have the files that it inherits from.
    With anything changed it is a config of its own, whatever its name.

    Args:
        path (str): The file, which :func:`read_config` can read.
    """
    file, folder = Path(path).resolve(), (resource_root() / 'configs').resolve()
    ours = (other for other in folder.rglob('*.py') if other.name == file.name)
    return file.is_relative_to(folder) or any(_contents(file) == _contents(other) for other in ours)


def _contents(path: Path) -> list[bytes]:
    """Content of a config and of the files that it inherits from."""
    return [Path(file).read_bytes() for file in _check_files(path, ())]


def _check_data(path: Path, parent: str) -> None:
    """Check that a base in JSON or YAML can be parsed, if it has no templates."""
    try:
        text = path.read_text('utf-8')
        if '{{' not in text:
            json.loads(text) if path.suffix == '.json' else yaml.compose(text)
    except (ValueError, yaml.YAMLError) as error:
        said = str(error).replace('\n', ' ')
        raise UsageError(f"the config '{path}'{parent} is not valid {path.suffix[1:]}: {said}") from error


def _bases(tree: ast.Module, path: Path) -> list[str]:
    """The files that a config names as its bases; none where they are computed."""
    for statement in tree.body:
        if not isinstance(statement, ast.Assign):
            continue
        if not any(isinstance(target, ast.Name) and target.id == '_base_' for target in statement.targets):
            continue
        try:
            bases = ast.literal_eval(statement.value)
        except ValueError:
            return []
        bases = [bases] if isinstance(bases, str) else bases
        if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
            raise UsageError(
                f"the config '{path}' has _base_={bases!r} in line {statement.lineno}: give a path, or "
                'a list of paths'
            )
        return bases
    return []


def _raise_if_of_config(error: Exception, path: str, files: list[str]) -> None:
    """Raise a usage error for one that a line of a config raised, or MMEngine about its content.

    One from deeper, such as a module of the user's, is left as it is.
    """
    walked = traceback.walk_tb(error.__traceback__)
    frames = [(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in walked]
    own = [i for i, (filename, _, _) in enumerate(frames) if filename in files]
    what = f'{type(error).__name__}: {error.args[0] if error.args else error}'.replace('\n', ' ')
    if own and all(_is_reader(filename) for filename, _, _ in frames[own[-1] + 1 :]):
        filename, line, _ = frames[own[-1]]
        raise UsageError(f"the config '{filename}' fails in line {line}: {what}") from error
    if not own and (_is_reader(frames[-1][0]) or 'import_modules' in frames[-1][2]):
        raise UsageError(f"the config '{path}' cannot be read: {what}") from error


def _is_reader(filename: str) -> bool:
    """Whether code is that which a line of a config calls to read or import another."""
    return filename.startswith((*_READERS, _FROZEN))
