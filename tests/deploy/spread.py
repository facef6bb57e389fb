"""Heads with random weights that decide: those of untrained ones are nearly equal, in no order."""

import re

import torch
from torch import Tensor, nn

# Last layers of heads: classes, boxes, masks.
LAST = re.compile(
    r'(\b|\.|_)(retina|rpn|fc|atss|gfl|conv|rtm)_(cls|reg|logits|centerness|obj)(\.\d+)?$|(conv_seg|\.fc)$'
)
DEVIATIONS = dict(cls=2.0, reg=0.5, logits=2.0, centerness=2.0, obj=2.0, seg=2.0, fc=2.0)


@torch.no_grad()
def spread(model: nn.Module, run, deviations: dict[str, float] | None = None) -> nn.Module:
    """Scale the last layers so that their outputs have a deviation of about 2, half one for boxes.

    Args:
        model (nn.Module): The network, in place.
        run (callable): Runs it once.
        deviations (dict[str, float] | None): Others, by what a layer gives. Defaults to None.
    """
    deviations = {**DEVIATIONS, **(deviations or {})}
    generator = torch.Generator().manual_seed(0)
    adapted = set()  # layers may run on several maps

    def adapt(kind: str, level: int):
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            if layer in adapted:
                return out
            adapted.add(layer)
            layer.weight.normal_(generator=generator)
            out = layer.forward(*inputs)
            bias = 0 if layer.bias is None else layer.bias.view(-1, *[1] * (out.dim() - 2))
            scale = deviations[kind] / (out - bias).std().clamp(min=1e-6)
            layer.weight *= scale
            if layer.bias is not None:
                # The best scores are about 0.7: near 1 many are equal. So would be the best of several levels
                # that have layers of their own.
                best = scale * (out - bias).max() if kind in ('cls', 'obj') else 1.0
                layer.bias.fill_(1.0 - 0.1 * level - best)
            return layer.forward(*inputs)

        return hook

    hooks = []
    for name, layer in model.named_modules():
        found = LAST.search(name)
        if found and isinstance(layer, (nn.Conv2d, nn.Linear)):
            kind = found[3] or found[5].strip('.').rpartition('_')[2]
            hooks.append(layer.register_forward_hook(adapt(kind, int((found[4] or '.0')[1:]))))
    run()
    for hook in hooks:
        hook.remove()
    return model
