"""What the parts of a detector, a segmentor or a classifier hand to each other, found without computing."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.overrides import TorchFunctionMode

T = TypeVar('T')
# Parts that take maps, in the order in which they are given to each other.
PARTS = ('backbone', 'neck', 'decode_head', 'auxiliary_head', 'rpn_head', 'bbox_head', 'mask_head', 'head')


@dataclass(frozen=True)
class Mismatch:
    """A layer that is given a map of another number of channels than it takes.

    Attributes:
        part (str): Its part of the model, such as ``'neck'`` or ``'auxiliary_head.0'``.
        layer (str): Its name in there.
        takes (int): Channels that it takes.
        given (int): Channels that it is given.
        index (int | None): Which of the part's maps it is, if it is one of them.
    """

    part: str
    layer: str
    takes: int
    given: int
    index: int | None


@dataclass
class Wiring:
    """What was found.

    Attributes:
        shapes (dict[str, list[tuple[int, ...]]]): By part, the shapes of the maps that it is given; under
            ``'backbone'`` those that it returns.
        mismatches (list[Mismatch]): In the order in which they are met.
        failures (dict[str, Exception]): Parts that cannot be run for another reason, such as another number
            of maps.
    """

    shapes: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    mismatches: list[Mismatch] = field(default_factory=list)
    failures: dict[str, Exception] = field(default_factory=dict)


def _channels_taken(layer: nn.Module) -> tuple[int, int] | None:
    """Channels that a layer takes, and the dimension that they are in; None for layers that take any."""
    if isinstance(layer, (_ConvNd, _ConvTransposeNd)):
        return layer.in_channels, 1
    if isinstance(layer, _BatchNorm):
        return layer.num_features, 1
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels, 1
    if isinstance(layer, nn.Linear):
        return layer.in_features, -1
    return None


@contextmanager
def _correcting(part: nn.Module, name: str, maps: Sequence[Tensor], wiring: Wiring) -> Iterator[None]:
    """Note layers that are given other channels than they take, and give them those, so that it goes on."""

    def correct(layer: nn.Module, inputs: tuple[Any, ...], layer_name: str) -> tuple[Any, ...] | None:
        taken = _channels_taken(layer)
        if not inputs or not isinstance(inputs[0], Tensor) or taken is None:
            return None
        takes, dim = taken
        given = inputs[0].shape[dim]
        if given == takes:
            return None
        index = next((i for i, item in enumerate(maps) if item is inputs[0]), None)
        wiring.mismatches.append(Mismatch(name, layer_name, takes, given, index))
        shape = list(inputs[0].shape)
        shape[dim] = takes
        return (inputs[0].new_empty(shape), *inputs[1:])

    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs, n=layer_name: correct(layer, inputs, n))
        for layer_name, layer in part.named_modules()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _maps(value: Tensor | dict[str, Tensor] | Sequence[Tensor] | None) -> list[Tensor]:
    """The maps that a part returns."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [item for item in value or [] if isinstance(item, Tensor)]


class _WithoutMemory(TorchFunctionMode):
    """Make tensors without memory; but for those that constructors compute plain numbers with."""

    computed = (torch.linspace, torch.arange)

    def __torch_function__(
        self,
        func: Callable[..., T],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> T:
        if func in self.computed:
            return func(*args, **{'device': 'cpu', **(kwargs or {})})
        return func(*args, **(kwargs or {}))


@contextmanager
def without_memory() -> Iterator[None]:
    """Build modules without memory."""
    with torch.device('meta'), _WithoutMemory():
        yield


def without_groups(value: T) -> T:
    """A config with norms that need no other processes, in place; their shapes are the same."""
    if isinstance(value, dict):
        if value.get('type') in ('SyncBN', 'MMSyncBN'):
            value['type'] = 'BN'
        for part in value.values():
            without_groups(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            without_groups(part)
    return value


def trace_backbone(backbone: dict[str, Any], scope: str, shape: tuple[int, int]) -> list[tuple[int, ...]]:
    """Build a backbone without allocating it, and compute the shapes of its outputs.

    Args:
        backbone (dict): Its config.
        scope (str): Its default scope.
        shape (tuple[int, int]): Height and width of the image.

    Returns:
        list[tuple[int, ...]]: Shapes of the maps for a batch of two.
    """
    init_default_scope(scope)
    with without_memory(), torch.no_grad():
        built = MODELS.build(without_groups(copy.deepcopy(backbone)))
        built.to('meta').eval()
        images = torch.empty(2, backbone.get('in_channels', 3), *shape)
        return [tuple(item.shape) for item in _maps(built(images))]


def _build(model: ConfigDict, scope: str, backbone: nn.Module | None = None) -> nn.Module:
    """Build a model without allocating it, with a backbone that is built already if one is given."""
    init_default_scope(scope)
    model = without_groups(copy.deepcopy(model))
    if backbone is not None:
        model.backbone = ConfigDict(type=lambda: backbone)
    if 'teacher_ckpt' in model:  # would be fetched
        model.teacher_ckpt = None
    with without_memory():
        return MODELS.build(model).to('meta')


def parameter_names(model: ConfigDict, scope: str) -> list[str]:
    """Names of the parameters of a model, which is not allocated.

    Args:
        model (ConfigDict): Its config.
        scope (str): Its default scope.
    """
    return [name for name, _ in _build(model, scope).named_parameters()]


def trace_wiring(
    model: ConfigDict,
    scope: str,
    shape: tuple[int, int] = (256, 256),
    backbone: nn.Module | None = None,
) -> Wiring:
    """Build a model without allocating it, and hand maps from part to part.

    Args:
        model (ConfigDict): Config of the model.
        scope (str): Its default scope.
        shape (tuple[int, int]): Height and width of the image. Defaults to (256, 256).
        backbone (nn.Module | None): Its backbone, built without memory. Defaults to None: it is built.

    Returns:
        Wiring: What each part is given, and what does not fit.

    Raises:
        Exception: The model, or its backbone, cannot be built or run without computing.
    """
    wiring, built = Wiring(), _build(model, scope, backbone).train()
    with torch.device('meta'), torch.no_grad():
        maps = _maps(built.backbone(torch.empty(2, 3, *shape)))
        wiring.shapes['backbone'] = [tuple(item.shape) for item in maps]
        for name in PARTS[1:]:
            found = getattr(built, name, None)
            if found is None or not callable(found):
                continue
            parts = found if isinstance(found, nn.ModuleList) else [found]
            for i, part in enumerate(parts):
                place = f'{name}.{i}' if isinstance(found, nn.ModuleList) else name
                wiring.shapes[place] = [tuple(item.shape) for item in maps]
                given = list(maps)
                try:
                    with _correcting(part, place, given, wiring):
                        returned = part(tuple(given))
                except Exception as error:  # of any kind: what does not fit fails in any way
                    wiring.failures[place] = error
                    if name == 'neck':  # what others are given is not known
                        return wiring
                    break
                if name == 'neck':
                    maps = _maps(returned)
    return wiring
