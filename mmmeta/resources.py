"""Where configs, tools and the model index are: in a checkout, or inside the installed package."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def resource_root() -> Path:
    """The folder that holds ``configs/``, ``tools/`` and ``model-index.yml``.

    Returns:
        Path: ``mmmeta/.mim`` of an installed package, which is where ``mim`` looks too; else the root of the
        checkout.
    """
    installed = PACKAGE / '.mim'
    return installed if installed.is_dir() else PACKAGE.parent
