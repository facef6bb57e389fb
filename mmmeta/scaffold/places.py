"""How a config names files, so that it can be used from any folder and handed on."""

import os
from collections.abc import Iterable
from pathlib import Path

from mmmeta.config.literals import can_be_template, literal
from mmmeta.utils.errors import UsageError
from mmmeta.weights import is_remote

# MMEngine writes the folder of the file in its place when it reads a config.
HERE = "'{{ fileDirname }}/'"


class Places:
    """The two folders that all paths of a config begin with: that of the data, and that of the config itself.

    Args:
        config (Path): The config that is written.
        images (Path): The images, as a person named them: where that is an absolute path ``data_root`` is
            one, else it is relative to the config.
        folders (Iterable[Path]): All folders of data.
        root (Path | None): The folder of the data. Defaults to None: the one that has them all in it.

    Attributes:
        here (str): The text of the folder of the config.
        data_root (str): The text of the folder of the data.
        reason (str): What the folder of the data is, and how that is changed.

    Raises:
        UsageError: Data lie elsewhere than in ``root``.
    """

    def __init__(self, config: Path, images: Path, folders: Iterable[Path], root: Path | None = None) -> None:
        places = [os.path.abspath(folder) for folder in folders]
        self._root = os.path.commonpath(places) if root is None else os.path.abspath(root)
        outside = [place for place in places if os.path.commonpath([self._root, place]) != self._root]
        if outside:
            raise UsageError(
                f"--root '{root}': '{outside[0]}' is not below it; give a folder that has all data in it"
            )
        # Where the system follows '..' from.
        self._folder = os.path.realpath(config.parent)
        movable = can_be_template(self._folder)
        self.here = HERE if movable else _text(f'{self._folder}/')
        relative = not (root or images).is_absolute() and movable
        self.data_root = self._from_here(self._root) if relative else _text(self._root)
        remedy = 'move both together, or write another' if relative else 'write another to move the data'
        self.reason = (
            f"the data are below '{os.path.relpath(self._root)}', which is data_root at the top of the "
            f'config: {remedy} (--root)'
        )

    def in_root(self, path: Path, before: str = '') -> str:
        """The text of a path, relative to ``data_root``, with something before it."""
        inside = os.path.relpath(os.path.abspath(path), self._root)
        return literal(before + ('' if inside == '.' else inside.replace(os.sep, '/')), 'path')

    def path(self, path: Path) -> str:
        """The text of a path below ``data_root`` for what does not join the two."""
        return f'data_root + {self.in_root(path, "/")}'

    def beside(self, name: str) -> str:
        """The text of a file beside the config."""
        return f'here + {literal(name, "path")}'

    def weights(self, location: str) -> str:
        """The text of a location of weights: a file is named as the data are."""
        if is_remote(location):
            return literal(location, 'location')
        path = os.path.expanduser(location)
        if os.path.isabs(path) or self.here != HERE:
            return _text(os.path.abspath(path))
        return f'here + {_text(os.path.relpath(os.path.abspath(path), self._folder))}'

    def _from_here(self, folder: str) -> str:
        inside = os.path.relpath(folder, self._folder)
        return 'here' if inside == '.' else f'here + {_text(inside)}'


def _text(folder: str) -> str:
    return literal(folder.replace(os.sep, '/'), 'path')
