"""Check that the installed OpenMMLab packages are compatible, before they fail with obscure errors.

MMEngine, MMCV, MMDetection, MMSegmentation and MMPretrain exist twice: as the official distributions and as
the ``onedl-*`` fork with the same module names. Installed over each other, the files are a mixture, and
removing one removes the other's folder.
"""

import importlib.util
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

# Module name to the distributions that provide it.
PROVIDERS = {
    'mmengine': ('mmengine', 'mmengine-lite', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv'),
    'mmdet': ('mmdet', 'onedl-mmdetection', 'onedl-mmdet'),
    'mmseg': ('mmsegmentation', 'onedl-mmsegmentation'),
    'mmpretrain': ('mmpretrain', 'onedl-mmpretrain'),
}
INSTALL_MMCV = 'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-cache-dir mmcv==2.1.0'
INSTALL = {
    'mmdet': f"pip install 'mmdet>=3.3', and {INSTALL_MMCV}",
    'mmseg': f"pip install 'mmsegmentation>=1.2' ftfy regex, and {INSTALL_MMCV}",
    'mmpretrain': f"pip install 'mmpretrain>=1.2', and {INSTALL_MMCV}",
}


class StackError(ImportError):
    """Packages are missing, incompatible, or are installed over each other."""


class MMEngineMissing(StackError):
    """MMEngine is not installed."""


# Sub-packages that do without MMEngine.
INDEPENDENT = ('mmmeta.runtime', 'mmmeta.utils', 'mmmeta.version')


class _Refusal(MetaPathFinder):
    """Refuse imports of what needs MMEngine."""

    def __init__(self, error: StackError) -> None:
        self.error = error

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.startswith('mmmeta.') and '.'.join(name.split('.')[:2]) not in INDEPENDENT:
            raise MMEngineMissing(*self.error.args)
        return None


def refuse_imports(error: StackError) -> None:
    """Let imports of all that needs MMEngine end with this error.

    Args:
        error (StackError): The error.
    """
    sys.meta_path.insert(1, _Refusal(error))  # behind what finds former paths


def _installed(module: str) -> dict[str, str]:
    """Name and version of each installed distribution that provides ``module``."""
    found = {}
    for name in PROVIDERS[module]:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def package_folder(name: str) -> Path | None:
    """Return the folder of a package, which is not imported for that; None if it is not installed."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def has_mmcv_ops() -> bool:
    """Whether the installed MMCV has compiled operators."""
    folder = package_folder('mmcv')
    return folder is not None and any(folder.glob('_ext*'))


def _check_name() -> None:
    """Check that no distribution of another project has its files in the folder of this package.

    Raises:
        StackError: There is one. Its name is that of this package, whose distribution is ``mmmetaformer``.
    """
    for distribution in metadata.distributions(name='mmmeta'):
        if not distribution.metadata.get_all('Summary', [''])[0].startswith(
            'MetaFormer'
        ):  # ours had this name once
            raise StackError(
                f'mmmeta {distribution.version} in {sys.prefix} is another project, whose files lie in the '
                'same folder as those of mmmetaformer: pip uninstall -y mmmeta mmmetaformer, then install '
                'mmmetaformer again'
            )


def check_stack() -> None:
    """Check what ``import mmmeta`` relies on.

    Raises:
        MMEngineMissing: MMEngine is missing.
        StackError: Two distributions are installed over each other.

    Warns:
        UserWarning: MMDetection is installed but cannot run, because MMCV has no compiled operators.
    """
    _check_name()
    for module in PROVIDERS:
        providers = _installed(module)
        if len(providers) > 1:
            names = ' and '.join(f'{name} {version}' for name, version in providers.items())
            raise StackError(
                f"{names} are installed over each other: both provide the module '{module}'. Uninstall "
                f'them (pip uninstall -y {" ".join(providers)}), then install one again'
            )
    if importlib.util.find_spec('mmengine') is None:
        raise MMEngineMissing(
            f'mmmeta needs MMEngine, which {sys.executable} lacks: pip install mmengine, or use the '
            'interpreter of an environment that has it'
        )
    if _installed('mmdet') and importlib.util.find_spec('mmcv') is not None and not has_mmcv_ops():
        warnings.warn(
            'MMDetection is installed, but this MMCV has no compiled operators, so no detector can be built: '
            f'install it with {INSTALL_MMCV}',
            stacklevel=3,
        )


def find_configs_of_fork() -> None:
    """Let MMEngine find the configs of the fork's MMSegmentation.

    The fork's MMEngine looks for a distribution with the name of the official one. Only where the fork is
    installed is anything changed.
    """
    if 'onedl-mmsegmentation' in _installed('mmseg'):
        from mmengine.config.utils import MODULE2PACKAGE

        MODULE2PACKAGE['mmseg'] = 'mmseg'


@contextmanager
def explain_missing_package() -> Iterator[None]:
    """Report a package of the stack that a config inherits from and that is not installed.

    Raises:
        StackError: It is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = next((scope for scope in INSTALL if scope in str(error)), None)
        if missing is None:
            raise
        raise StackError(
            f"this config needs the package '{missing}', which is not installed: {INSTALL[missing]}"
        ) from error


def require(scope: str) -> Path:
    """Check that configs of a ``default_scope`` can run.

    Args:
        scope (str): ``'mmdet'``, ``'mmseg'`` or ``'mmpretrain'``.

    Returns:
        Path: The folder of the package.

    Raises:
        StackError: The package is missing, or MMCV is missing, of the wrong version or without operators.
    """
    folder = package_folder(scope)
    if folder is None:
        raise StackError(f"this config needs the package '{scope}', which is not installed: {INSTALL[scope]}")
    if package_folder('mmcv') is None:
        raise StackError(f"'{scope}' needs MMCV, which is not installed: {INSTALL_MMCV}")
    # The official packages assert the range at import and declare it nowhere; the fork has another one.
    official = any(name in ('mmdet', 'mmsegmentation') for name in _installed(scope))
    for name, version in _installed('mmcv').items():
        if official and version.split('.')[:2] not in (['2', '0'], ['2', '1']):
            raise StackError(f"'{scope}' needs MMCV 2.0 or 2.1, found {name} {version}: {INSTALL_MMCV}")
    if scope == 'mmdet' and not has_mmcv_ops():
        raise StackError(f'a detector needs compiled operators, which this MMCV lacks: {INSTALL_MMCV}')
    return folder
