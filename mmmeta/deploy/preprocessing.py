"""The test pipeline and data preprocessor of a config, as the runtime of exported files repeats them."""

from dataclasses import dataclass, field, replace
from typing import Any

from mmengine.config import ConfigDict
from mmengine.model import BaseDataPreprocessor

from mmmeta.runtime.run import Crop, Fit, Resize, Stretch
from mmmeta.utils.errors import UsageError

# Steps that an image without annotations does not need.
ANNOTATION_STEPS = {'LoadAnnotations', 'LoadPanopticAnnotations', 'LoadMappedLabels'}
SUPPORTED = (
    'LoadImageFromFile in colour or grey or LoadUnchangedImage, Resize (bilinear, by OpenCV), '
    'ResizeToMultiple, Pad, or ResizeEdge of the short side and CenterCrop, Normalize, and a Pack step'
)


@dataclass
class Preprocessing:
    """What happens to an image before the network.

    Attributes:
        resize (Fit | Stretch | Crop): How it is resized. Defaults to the shape of the file as the limit.
        divisor (int): Height and width are padded to multiples of it. Defaults to 1.
        padding (list[float] | None): RGB value of the pixels with which the pipeline pads. Defaults to None:
            zeros, after normalization.
        padded_size (tuple[int, int] | None): Height and width to which the pipeline pads. Defaults to None.
        reads (str): How images are read, as a description names it. Defaults to ``'color'``.
        channels (int): Their channels. Defaults to 3.
        in_range (list[float]): Values that become 0 and 255. Defaults to none.
        normalization (tuple[list[float], list[float]] | None): Mean and deviation of each channel, by which
            the pipeline normalises. Defaults to None: it does not.
    """

    resize: Resize = field(default_factory=Fit)
    divisor: int = 1
    padding: list[float] | None = None
    padded_size: tuple[int, int] | None = None
    reads: str = 'color'
    channels: int = 3
    in_range: list[float] = field(default_factory=list)
    normalization: tuple[list[float], list[float]] | None = None

    @property
    def keeps_ratio(self) -> bool:
        """Whether images of different aspect ratios have different sizes in the network."""
        return isinstance(self.resize, Fit) and self.padded_size is None


def test_steps(cfg: ConfigDict) -> list[dict[str, Any]]:
    """Return the steps of a config's test pipeline that an image without annotations passes."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while 'pipeline' not in dataset and ('dataset' in dataset or 'datasets' in dataset):
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    steps = dataset.get('pipeline') or cfg.test_pipeline
    return [step for step in steps if _kind(step) not in ANNOTATION_STEPS]


def read_preprocessing(cfg: ConfigDict | None, preprocessor: BaseDataPreprocessor | None) -> Preprocessing:
    """Read how a config prepares an image for testing.

    Args:
        cfg (ConfigDict | None): The config; None of a backbone.
        preprocessor (BaseDataPreprocessor | None): The data preprocessor of the model.

    Raises:
        UsageError: A step is not one that the runtime repeats exactly.
    """
    if cfg is None:
        return Preprocessing(divisor=32)
    result = Preprocessing()
    resize: Resize | None = None
    for step in test_steps(cfg):
        args = {key: value for key, value in step.items() if key != 'type'}
        kind = _kind(step)
        if kind == 'LoadImageFromFile':
            result.reads = args.get('color_type', 'color')
            result.channels = 3 if result.reads == 'color' else 1
            supported = result.reads in ('color', 'grayscale') and not args.get('to_float32')
        elif kind == 'LoadUnchangedImage':
            result.reads, result.channels = 'unchanged', args['channels']
            result.in_range = list(args.get('in_range') or [])
            supported = True
        elif kind == 'Normalize' and result.normalization is None:
            result.normalization = [*map(float, args['mean'])], [*map(float, args['std'])]
            supported = not args.get('to_rgb', True) and result.reads != 'color'
        elif kind.startswith('Pack'):
            supported = True
        elif kind == 'Resize' and resize is None:
            resize = _read_resize(args)
            supported = resize is not None
        elif kind == 'ResizeToMultiple' and isinstance(resize, Fit):
            resize = replace(resize, multiple=args.get('size_divisor', 32))
            supported = args.get('interpolation') in (None, 'bilinear')
        elif kind == 'ResizeEdge' and resize is None:
            backend, interpolation = args.get('backend', 'cv2'), args.get('interpolation', 'bilinear')
            by_opencv = (backend, interpolation) == ('cv2', 'bilinear')
            resize = Crop(args['scale'], 0, 'opencv' if by_opencv else interpolation)
            supported = (backend == 'pillow' or by_opencv) and args.get('edge', 'short') == 'short'
        elif kind == 'CenterCrop' and isinstance(resize, Crop):
            resize = replace(resize, size=args['crop_size'])
            supported = isinstance(args['crop_size'], int)
        elif kind == 'Pad' and resize is not None:
            supported = result.normalization is None and _read_pad(args, result)
        else:
            supported = False
        if not supported:
            described = ', '.join(f'{key}={value!r}' for key, value in args.items())
            raise UsageError(
                f'the test pipeline has {kind}({described}), which the runtime of exported files does not '
                f'repeat: use {SUPPORTED}'
            )
    if resize is None or (isinstance(resize, Crop) and not resize.size):  # of which no centre is taken
        raise UsageError(
            f'the test pipeline does not resize as the runtime of exported files can: use {SUPPORTED}'
        )
    result.resize = resize
    _read_padding(preprocessor, result)
    return result


def _kind(step: dict[str, Any]) -> str:
    """Return the name of a transform without its scope."""
    return step['type'].rpartition('.')[2]


def _read_resize(args: dict[str, Any]) -> Resize | None:
    scale = args.get('scale')
    plain = args.get('interpolation', 'bilinear') == 'bilinear' and args.get('backend', 'cv2') == 'cv2'
    if scale is None or not plain:
        return None
    scale = [scale, scale] if isinstance(scale, int) else list(scale)
    return Fit(scale) if args.get('keep_ratio') else Stretch(scale)


def _read_pad(args: dict[str, Any], result: Preprocessing) -> bool:
    value = args.get('pad_val', 0)
    value = value.get('img', 0) if isinstance(value, dict) else value
    # Pixels are blue first in pipelines.
    many = [value] * result.channels if isinstance(value, (int, float)) else value
    result.padding = [*map(float, many)][:: -1 if result.reads == 'color' else 1]
    size, divisor = args.get('size'), args.get('size_divisor')
    if size:
        width, height = (size, size) if isinstance(size, int) else size
        result.padded_size = (height, width)
    elif divisor:
        result.divisor = divisor
    elif args.get('pad_to_square'):
        return False
    return bool(size or divisor) and args.get('padding_mode', 'constant') == 'constant'


def _read_padding(preprocessor: BaseDataPreprocessor | None, result: Preprocessing) -> None:
    """Read how a data preprocessor pads a single image."""
    test_cfg = getattr(preprocessor, 'test_cfg', None) or {}  # of MMSegmentation
    divisor = test_cfg.get('size_divisor') or getattr(preprocessor, 'pad_size_divisor', 1) or 1
    value = getattr(preprocessor, 'pad_value', getattr(preprocessor, 'pad_val', 0))
    if test_cfg.get('size'):
        raise UsageError(
            f'data_preprocessor.test_cfg.size={test_cfg["size"]} pads images to a size, which the runtime of '
            'exported files does not repeat: remove it, or give size_divisor'
        )
    if divisor == 1 or result.padded_size:
        return
    if value:
        raise UsageError(
            f'the data preprocessor pads with {value}, and exported files with 0: set its padding value to 0'
        )
    if result.padding is not None and result.divisor % divisor:
        raise UsageError(
            f'the test pipeline pads to multiples of {result.divisor} and the data preprocessor to multiples '
            f'of {divisor}: leave out one of the two'
        )
    result.divisor = max(result.divisor, divisor)
