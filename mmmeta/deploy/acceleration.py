"""Faster inference on a CPU, as a step on a built model."""

from collections import Counter
from importlib import import_module

import torch
from mmengine.dist import is_main_process
from torch import nn

from mmmeta.errors import UsageError
from mmmeta.models.layers.recompute import is_captured

# Exact types and their replacements, as qualified names so that unused packages are not imported. A
# replacement is a subclass with the same parameters. Where its faster path does not apply
# (gradients, other devices and dtypes, a compiler, hooks inside) it falls back to the parent class.
REPLACEMENTS = {
    'mmmeta.models.layers.block.MetaFormerBlock': 'mmmeta.deploy.chunked_block.ChunkedBlock',
    'mmseg.models.decode_heads.uper_head.UPerHead': 'mmmeta.deploy.uper_head.MergedUPerHead',
    'mmcv.ops.roi_align.RoIAlign': 'mmmeta.deploy.roi_align.ChannelsLastRoIAlign',
}


def has_hooks(module: nn.Module) -> bool:
    """Whether a module or any of its submodules has hooks."""
    return any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in module.modules()
    )


def must_fall_back(x: torch.Tensor) -> bool:
    """Whether to fall back to the original forward: everywhere but at eager inference on a CPU."""
    return torch.is_grad_enabled() or x.device.type != 'cpu' or is_captured()


def _replacement(module: nn.Module) -> type[nn.Module] | None:
    kind = type(module)
    path = REPLACEMENTS.get(f'{kind.__module__}.{kind.__qualname__}')
    if path is None:
        return None
    file, _, name = path.rpartition('.')
    replacement = getattr(import_module(file), name)
    return replacement if replacement.can_replace(module) else None


def accelerate(model: nn.Module) -> nn.Module:
    """Replace modules by faster equivalents, equal up to rounding, for inference on a CPU.

    Replaced are modules of exactly the known types with known arguments. Subclasses, and what has hooks on
    it or inside it, stay as they are. What was replaced is printed, by the first of several processes, and
    ``print(model)`` shows it. Parameters and state dict stay the same, so weights may be loaded before or
    after. A second call finds nothing to replace.

    Args:
        model (nn.Module): Any model, in eval mode and on a CPU; modified in place.

    Returns:
        nn.Module: The model.

    Raises:
        UsageError: The model is in training mode or not on a CPU.
    """
    if model.training:
        raise UsageError('accelerate takes a model in evaluation mode: call model.eval() first')
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type != 'cpu':
            raise UsageError(
                f'accelerate is for inference on a CPU, and the model is on {tensor.device}: leave it out'
            )
    replaced, hooked = Counter(), Counter()
    for module in model.modules():
        replacement = _replacement(module)
        if replacement is None:
            continue
        if has_hooks(module):
            hooked[type(module).__name__] += 1
            continue
        replaced[f'{type(module).__name__} -> {replacement.__name__}'] += 1
        # Only the class changes, so that every other reference to the module is replaced as well.
        module.__class__ = replacement
    if is_main_process():
        counts = [f'{number} {what}' for what, number in replaced.items()]
        print('accelerate:', ', '.join(counts) or 'nothing left to replace')
        if hooked:
            counts = [f'{number} {name}' for name, number in hooked.items()]
            print('accelerate: kept because of their hooks:', ', '.join(counts))
    return model
