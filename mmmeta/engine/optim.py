"""Optimiser wrappers and their constructors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from mmmeta.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from mmmeta.utils.errors import UsageError


@OPTIM_WRAPPERS.register_module()
class Bf16OptimWrapper(OptimWrapper):
    """Train under bfloat16 autocast; the arguments are those of MMEngine's ``OptimWrapper``.

    bfloat16 has the range of float32, so that no loss scaling is needed, and it runs where float16 does not,
    on CPU for one.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass in bfloat16 where that is safe."""
        device_type = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device_type, dtype=torch.bfloat16):
            yield


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class FlatDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """``flat_decay_mult`` of ``paramwise_cfg`` for all parameters of one dimension, named or not.

    In MMEngine's ``DefaultOptimWrapperConstructor`` a parameter that one of ``custom_keys`` names takes that
    entry alone: with ``custom_keys=dict(backbone=dict(lr_mult=0.1))`` norms, biases and scales of the
    backbone decay, whatever ``flat_decay_mult`` is. The arguments are the same.
    """

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module: bool | None = None
    ) -> None:
        """Add the parameter groups of ``module``; change the decay of flat ones when all are there."""
        super().add_params(params, module, prefix, is_dcn_module)
        mult = self.paramwise_cfg.get('flat_decay_mult')
        for group in params if mult is not None and not prefix else ():
            if group['params'][0].ndim == 1:
                group['weight_decay'] = self.base_wd * mult


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Layer-wise learning-rate decay for any backbone that reports the depth of its parameters.

    The learning rate of a parameter of depth ``d`` out of ``n`` is multiplied by
    ``layer_decay_rate ** (n - 1 - d)``. Depths are reported by every module of the model that has a method
    ``get_layer_depth(param_name, prefix) -> (d, n)``, regardless of its name in the model; parameters
    of other modules keep their learning rate.

    ``paramwise_cfg`` takes ``layer_decay_rate`` (float, required, in (0, 1]) beside all that MMEngine's
    ``DefaultOptimWrapperConstructor`` takes, and both apply.

    Raises:
        UsageError: ``layer_decay_rate`` is missing or out of range, or no module has ``get_layer_depth``.
    """

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module: bool | None = None
    ) -> None:
        """Add the parameter groups of ``module``; scale their learning rates when all are there."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:
            return
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise UsageError(f'paramwise_cfg.layer_decay_rate={rate}: give a number in (0, 1]')
        scales = self._learning_rate_scales(module, rate)
        for group in params:
            (parameter,) = group['params']
            group.setdefault('lr', self.base_lr)
            group['lr'] = group['lr'] * scales.get(parameter, 1.0)

    @staticmethod
    def _learning_rate_scales(model: nn.Module, rate: float) -> dict[nn.Parameter, float]:
        """The scale of each parameter of the modules that report depths."""
        names = [name for name, module in model.named_modules() if hasattr(module, 'get_layer_depth')]
        # Classifiers of MMPretrain delegate the method to their backbone: the innermost module is used.
        prefixes = [f'{name}.' if name else '' for name in names]
        innermost = [p for p in prefixes if not any(q != p and q.startswith(p) for q in prefixes)]
        if not innermost:
            raise UsageError(
                f'no module of {type(model).__name__} has get_layer_depth(param_name, prefix): layer-wise '
                'learning-rate decay needs a backbone that reports the depth of its parameters'
            )
        scales = {}
        for prefix in innermost:
            backbone = model.get_submodule(prefix.rstrip('.'))
            for name, parameter in backbone.named_parameters():
                depth, num_layers = backbone.get_layer_depth(prefix + name, prefix)
                scales[parameter] = rate ** (num_layers - 1 - depth)
        return scales
