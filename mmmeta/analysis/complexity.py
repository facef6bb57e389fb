"""Parameters and multiply-accumulates of a model, as the papers count them."""

from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from mmmeta.errors import UsageError


def _cpu_attention_flops(query: tuple, key: tuple, value: tuple, *_, out_shape: tuple = (), **__) -> int:
    """Both matrix products of the fused attention kernel of the CPU, which PyTorch's counter leaves out."""
    return sdpa_flop_count(query, key, value)


CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention_flops}


@dataclass(frozen=True)
class Complexity:
    """What a model costs.

    Attributes:
        params (int): Entries of all parameters, auxiliary heads included.
        macs (int): Multiply-accumulates of a forward pass over one image: convolutions, linear maps and both
            matrix products of attention; one MAC is two floating-point operations.
    """

    params: int
    macs: int


def count_model(model: nn.Module, shape: tuple[int, int], **arguments: str) -> Complexity:
    """Count a model on one image.

    Args:
        model (nn.Module): Called with a batch of one image; on the meta device nothing is computed.
        shape (tuple[int, int]): Height and width of the image.
        **arguments: Further arguments of the call.

    Returns:
        Complexity: The counts.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, *shape, device=device)
    was_training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        model(image, **arguments)
    model.train(was_training)
    return Complexity(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2)


def count_config(cfg: Config, shape: tuple[int, int]) -> Complexity:
    """Count the model of a config, without allocating or computing it.

    The MACs are those of inference: auxiliary heads, which only training runs, are left out, as papers do.

    Args:
        cfg (Config): A config of MMSegmentation or MMPretrain.
        shape (tuple[int, int]): Height and width of the image.

    Raises:
        UsageError: The config has no model.
    """
    if 'model' not in cfg:
        raise UsageError(f"'{cfg.filename}' has no model: give a config that can be trained")
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
        return count_model(model, shape, mode='tensor')
