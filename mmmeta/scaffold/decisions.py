"""Decide how a network is trained on a data set."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from mmmeta.config.backbones import GLOBAL_ATTENTION, WINDOW
from mmmeta.utils.errors import UsageError, counted

from .facts import Facts, Options

BATCH_SIZES = dict(seg=4, det=2, cls=32)
# Pixels of crops (seg), of the short side (det), of the side (cls): limits, and the multiple.
SIZES = dict(seg=(64, 512), det=(128, 800), cls=(64, 224))
STEP = 32
SCALING = dict(
    other='sizes of the config are scaled, the short side of its training images to {side} pixels',
    seg='images are scaled to a short side of {side} pixels, half to twice that in training, where crops of '
    '{side}x{side} are learnt from',
    det='images are scaled to a short side of {side} pixels, and not cropped',
    cls='images are scaled to a short side of {side} pixels and cropped to {side}x{side}, at random in '
    'training',
)
# Images for training, and epochs: fewer images are seen more often.
EPOCHS = ((20000, 12), (2000, 36), (0, 100))

# Validations and checkpoints of a training at most, and iterations between two of them at least.
VALIDATIONS = 10
MIN_ITERATIONS = 5


@dataclass
class Decisions:
    """How a network is trained.

    Attributes:
        method (str): Its method.
        side (int): Side of the crops or images in pixels.
        batch_size (int): Images of an iteration.
        epochs (int): How often each image is seen.
        iterations (int): Iterations of a training on one process.
        window (int | None): Window of the backbone's attention; None for global attention.
        reasons (list[str]): Reasons, and the options that would say otherwise. Defaults to nothing.
    """

    method: str
    side: int
    batch_size: int
    epochs: int
    iterations: int
    window: int | None
    reasons: list[str] = field(default_factory=list)

    @property
    def val_iterations(self) -> int:
        """Iterations between validations of a loop that counts iterations."""
        return _interval(self.iterations, MIN_ITERATIONS)

    @property
    def val_epochs(self) -> int:
        """Epochs between validations of a loop that counts epochs."""
        return _interval(self.epochs, -(-MIN_ITERATIONS * self.epochs // self.iterations))


def decide(task: str, facts: Facts, options: Options, token_mixers: Sequence[str]) -> Decisions:
    """Decide how a network is trained.

    Args:
        task (str): ``'seg'``, ``'det'`` or ``'cls'``.
        facts (Facts): What the data are.
        options (Options): What a person says.
        token_mixers (Sequence[str]): Token mixers of the backbone's stages.

    Raises:
        UsageError: The size does not fit the strides of the backbone.
    """
    reasons: list[str] = []
    side = _side(task, facts, options, reasons)
    batch = min(options.batch_size or BATCH_SIZES[task], facts.count)
    if task == 'seg':
        batch = max(batch, 2)  # pooled maps of one pixel are normalised over the batch
    epochs = options.epochs or next(epochs for least, epochs in EPOCHS if facts.count >= least)
    # Of segmentors, which are trained by iterations; else the last batch of an epoch may be smaller.
    iterations = max(facts.count * epochs // batch, 1) if task == 'seg' else -(-facts.count // batch) * epochs
    reasons.append(
        f'{counted(epochs, "epoch")} of {counted(facts.count, "image")} in batches of {batch}: '
        f'{counted(iterations, "iteration")} in all (--epochs, --batch-size)'
    )
    # Short sides are scaled to the crops of segmentors; detectors see images of 5:3 at most.
    ratio = max(max(size) / min(size) for size in facts.sizes) if task == 'seg' else 5 / 3
    windowed = task != 'cls' and 'attention' in token_mixers and side * ratio > GLOBAL_ATTENTION
    window = WINDOW if windowed else None
    return Decisions(options.method or facts.method, side, batch, epochs, iterations, window, reasons)


def _interval(length: int, least: int) -> int:
    """Return what is between two validations: the last one, at the end, is not soon after another."""
    first = min(max(-(-length // VALIDATIONS), least), length)
    return next(n for n in range(first, length + 1) if length % n == 0 or 2 * (length % n) >= n)


def _side(task: str, facts: Facts, options: Options, reasons: list[str]) -> int:
    """Return the side of the crops or images in pixels, a multiple of the stride."""
    low, high = SIZES[task]
    short = median(min(size) for size in facts.sizes)
    side = options.size or int(min(max(round(short / STEP) * STEP, low), high))
    if side % STEP:
        raise UsageError(f'--size {side}: give a multiple of {STEP}')
    scaling = SCALING['other' if options.inherits else task]
    reasons.append(f'{scaling.format(side=side)}; the median of their short sides is {short:.0f} (--size)')
    return side
