"""Packages that a config needs beside those of OpenMMLab, which name them when a run is under way."""

from collections.abc import Iterator
from importlib.util import find_spec

from mmengine.config import Config

from mmmeta.config.inspection import ALL_LOADERS, bare_type, iter_dicts

from .finding import Finding

# Modules that backends of MMEngine's visualizer import, by the types of the backends.
BACKENDS = dict(
    TensorboardVisBackend='tensorboard',
    WandbVisBackend='wandb',
    MLflowVisBackend='mlflow',
    ClearMLVisBackend='clearml',
    NeptuneVisBackend='neptune',
    DVCLiveVisBackend='dvclive',
    AimVisBackend='aim',
)
# Modules of MMCV's decoders, and the packages that they are in.
DECODERS = dict(tifffile=('tifffile', 'tifffile'), turbojpeg=('turbojpeg', 'PyTurboJPEG'))


def check_packages(cfg: Config) -> Iterator[Finding]:
    """Backends of the visualizer, and decoders of images, whose package is not installed."""
    visualizer = cfg.get('visualizer')
    backends = (visualizer.get('vis_backends') if isinstance(visualizer, dict) else None) or []
    for i, backend in enumerate(backends if isinstance(backends, (list, tuple)) else [backends]):
        name = bare_type(backend) if isinstance(backend, dict) else ''
        package = BACKENDS.get(name)
        if package and find_spec(package) is None:
            yield Finding(
                f'visualizer.vis_backends.{i}',
                f'visualizer.vis_backends.{i} is {name}, which needs {package}, and that is not installed: '
                f'pip install {package}, or take the backend out',
                is_fatal=True,
            )
    for name in ALL_LOADERS:
        used = (value.get('imdecode_backend') for value in iter_dicts(cfg.get(name) or {}))
        decoder = next((one for one in used if isinstance(one, str) and _lacks_decoder(one)), None)
        if decoder:
            yield Finding(
                f'{name}.dataset.pipeline',
                f"a transform of {name} has imdecode_backend='{decoder}', which needs "
                f'{DECODERS[decoder][1]}, and that is not installed: pip install {DECODERS[decoder][1]}, or '
                "write 'cv2' or 'pillow' for files that these read",
                is_fatal=True,
            )
            return  # the other loaders have the same, most likely


def _lacks_decoder(name: str) -> bool:
    return name in DECODERS and find_spec(DECODERS[name][0]) is None
