"""Where configs, tools and the model index are: in a checkout, or inside the installed package."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def resource_root() -> Path:
    """The folder that holds ``configs/``, ``tools/`` and ``model-index.yml``.

    Returns:
        Path: ``mmmeta/.mim`` of an installed package, which is where ``mim`` looks too; else the root of the
        checkout.
    """
    installed = PACKAGE / '.mim'
    return installed if installed.is_dir() else PACKAGE.parent


def base_config(name: str) -> str:
    """Return the path of a base, for configs that are used where mmmeta is installed in another folder.

    Args:
        name (str): Its name in ``configs/_base_``, such as ``'fpn_ade20k'``.
    """
    return (resource_root() / 'configs/_base_' / f'{name}.py').as_posix()


def base_path(base: Path, folder: Path) -> str:
    """A base as MMEngine finds it from a config in a folder.

    Args:
        base (Path): The base. One of ours is named by its whole path from outside of a checkout; any other
            one by where it is from the folder.
        folder (Path): Folder of the config.
    """
    base, folder = base.resolve(), folder.resolve()
    ours = base.is_relative_to(resource_root())
    if ours and not folder.is_relative_to(resource_root()):
        return base.as_posix()
    return Path(os.path.relpath(base, folder)).as_posix()
