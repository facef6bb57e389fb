"""Parameters and multiply-accumulates of a model, as the papers count them."""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from mmmeta.models.layers import Attention
from mmmeta.models.ops import count_pairs
from mmmeta.utils.errors import UsageError


def _cpu_attention_flops(query: tuple, key: tuple, value: tuple, *_: Any, **__: Any) -> int:
    """Both matrix products of the fused attention kernel of the CPU, which PyTorch's counter leaves out."""
    return sdpa_flop_count(query, key, value)


CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention_flops}


# Proposals that box and mask heads are counted on, as MMDetection 2 did for the figures in print.
BOX_PROPOSALS, MASK_PROPOSALS = 1000, 100


@dataclass(frozen=True)
class Complexity:
    """Complexity of a model.

    Attributes:
        params (int): Entries of all parameters, auxiliary heads included.
        macs (int): Multiply-accumulates of a forward pass over one image: convolutions, linear maps and both
            matrix products of attention, over the keys that a query attends to; one MAC is two floating-point
            operations.
        masked_macs (int): Further MACs that windowed attention computes and then masks, because it works
            on tiles of queries.
        frozen_params (int): Those of the parameters that are not trained, such as RandFormer's matrices.
        activations (int): Entries of what convolutions and linear maps return (arXiv:2003.13678, section 3).
        parts (dict[str, Complexity]): The same of each part, such as ``'backbone.stem'``,
            ``'backbone.stages.0'`` and ``'neck'``.
    """

    params: int
    macs: int
    masked_macs: int = 0
    frozen_params: int = 0
    activations: int = 0
    parts: dict[str, 'Complexity'] = field(default_factory=dict)


def _parts(model: nn.Module) -> dict[str, nn.Module]:
    """The parts of a model that are counted separately, by name."""
    parts = {}
    for name, module in model.named_children():
        # Stages, backbones and RoI heads are split into their children.
        if name in ('stages', 'backbone', 'roi_head'):
            parts.update({f'{name}.{inner}': part for inner, part in _parts(module).items()})
        else:
            parts[name] = module
    return {name: part for name, part in parts.items() if any(True for _ in part.parameters())}


def count_model(
    model: nn.Module, shape: tuple[int, int], forward: Callable[[nn.Module, Tensor], Any] | None = None
) -> Complexity:
    """Count a model on one image.

    Args:
        model (nn.Module): On the meta device nothing is computed.
        shape (tuple[int, int]): Height and width of the image.
        forward (callable | None): Called with the model and a batch of one image. Defaults to None, the
            model's own forward.

    Returns:
        Complexity: The counts.
    """
    device = next(model.parameters()).device
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    image = torch.zeros(1, 3 if first is None else first.in_channels, *shape, device=device)
    total: Counter[str] = Counter()
    open_parts: dict[str, Counter[str]] = {}
    hooks = []
    counts: dict[str, Counter[str]] = {name: Counter() for name in _parts(model)}

    def so_far() -> Counter[str]:
        return total + Counter(flops=counter.get_total_flops())

    def count_layer(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        if not isinstance(layer, Attention):
            total['activations'] += output.numel()
            return
        batch, dim, *size = inputs[0].shape
        if not layer.is_global(*size):
            seen, multiplied = count_pairs(size, layer.window or size, layer.window_mode, layer.border)
            total['masked'] += 2 * batch * dim * (multiplied - seen)

    def enter(name: str, *_: Any) -> None:
        open_parts[name] = so_far()

    def leave(name: str, *_: Any) -> None:
        counts[name].update(so_far() - open_parts.pop(name))

    for module in model.modules():
        if isinstance(module, (Attention, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            hooks.append(module.register_forward_hook(count_layer))
    for name, part in _parts(model).items():
        for module in part if isinstance(part, (nn.ModuleList, nn.ModuleDict)) else [part]:
            module = part[module] if isinstance(module, str) else module
            hooks.append(module.register_forward_pre_hook(partial(enter, name)))
            hooks.append(module.register_forward_hook(partial(leave, name)))
    was_training = model.training
    model.eval()
    try:
        # With gradients nothing runs in chunks, whose halos would be counted twice.
        with (
            torch.enable_grad(),
            FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter,
        ):
            model(image) if forward is None else forward(model, image)
            counts[''] = so_far()
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()

    def summarise(module: nn.Module, count: Counter[str], **parts: Any) -> Complexity:
        sizes: Counter[bool] = Counter()
        for parameter in module.parameters():
            sizes[parameter.requires_grad] += parameter.numel()
        macs = count['flops'] // 2 - count['masked']
        counts = sizes.total(), macs, count['masked'], sizes[False], count['activations']
        return Complexity(*counts, **parts)

    parts = {name: summarise(part, counts[name]) for name, part in _parts(model).items()}
    return summarise(model, counts[''], parts=parts)


def _forward_inference(model: nn.Module, image: Tensor) -> None:
    """A segmentor or a classifier at inference, without its auxiliary head."""
    head = getattr(model, 'decode_head', None)
    if isinstance(head, nn.Module) and not isinstance(head, nn.ModuleList):
        head(model.extract_feat(image))  # MMSegmentation calls its forward, past hooks
    else:
        model(image, mode='tensor')


def _forward_detector(model: nn.Module, image: Tensor) -> None:
    """The networks of a detector at inference; selecting proposals and boxes in between has no MACs."""
    features = model.extract_feat(image)
    if not hasattr(model, 'roi_head'):
        model.bbox_head(features)
        return
    model.rpn_head(features)
    roi_head = model.roi_head
    for kind, count in (('bbox', BOX_PROPOSALS), ('mask', MASK_PROPOSALS)):
        heads = getattr(roi_head, f'{kind}_head', None)
        if heads is None:
            continue
        extractors = getattr(roi_head, f'{kind}_roi_extractor')
        if not isinstance(heads, nn.ModuleList):
            heads, extractors = [heads], [extractors]
        for head, extractor in zip(heads, extractors, strict=True):
            size = extractor.roi_layers[0].output_size
            head(image.new_zeros(count, extractor.out_channels, *size))


def _has_queries(model: nn.Module) -> bool:
    """Whether a head has queries, such as those of DETR and Mask2Former, and computes with values."""
    return any(
        hasattr(module, name) for module in model.modules() for name in ('query_embed', 'query_embedding')
    )


def _forward_queries(model: nn.Module, image: Tensor) -> None:
    """A detector or a segmentor with queries at inference; their forward wants what is known of images."""
    size = tuple(image.shape[2:])
    known = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1, 1))
    if hasattr(model, 'decode_head'):
        model.encode_decode(image, [known])
        return
    from mmdet.structures import DetDataSample

    model.predict(image, [DetDataSample(metainfo=known)], rescale=False)


def count_config(cfg: Config, shape: tuple[int, int]) -> Complexity:
    """Count the model of a config, without allocating or computing it.

    The MACs are those of inference as papers count them: without auxiliary heads, which only training runs;
    in two-stage detectors with each box head on 1000 proposals and each mask head on 100. Heads with queries
    are computed, on a CPU; what deformable attention interpolates is not counted, its linear maps are.

    Args:
        cfg (Config): A config of MMDetection, MMSegmentation or MMPretrain.
        shape (tuple[int, int]): Height and width of the image.

    Raises:
        UsageError: The config has no model.
    """
    if 'model' not in cfg:
        raise UsageError(f"'{cfg.filename}' has no model: give a config that can be trained")
    scope = cfg.get('default_scope', 'mmengine')
    init_default_scope(scope)
    with torch.device('meta'):
        model = MODELS.build(copy.deepcopy(cfg.model))  # some detectors write into theirs
        if not _has_queries(model):
            return count_model(model, shape, _forward_detector if scope == 'mmdet' else _forward_inference)
    return count_model(MODELS.build(copy.deepcopy(cfg.model)), shape, _forward_queries)
