"""The MetaFormer backbone."""

import re
import warnings
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
import torch.fx
from mmengine.model import BaseModule, PretrainedInit, update_init_info
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mmmeta.models.layers import (
    TOKEN_MIXERS,
    MetaFormerBlock,
    build_norm,
    frozen_running_stats,
)
from mmmeta.models.layers.checks import (
    BACKENDS,
    check,
    check_choice,
    is_integer,
    is_number,
    parse_cfg,
    resolve_window,
)
from mmmeta.models.layers.token_mixers import takes_plan
from mmmeta.models.ops import call_linear
from mmmeta.registry import MODELS
from mmmeta.utils.errors import UsageError
from mmmeta.weights import OURS, as_location, load, recognise, translate

from .arch import check_out_indices, resolve_arch, resolve_strides, resolve_windows

# Arch settings that a token mixer of ours inherits unless its own dict sets them.
MIXER_ARGS = dict(pooling=('pool_size',), sep_conv=('act', 'bias'), attention=('head_dim', 'bias'))
# Token mixers that look at neighbours, at a distance that grows where a stage has no stride.
DILATED = ('pooling', 'sep_conv')


def _build_token_mixer(
    spec: str | dict, dim: int, arch: dict, windows: dict[str, Any], dilation: int
) -> nn.Module:
    """Build the token mixer of a block: one of ours, or any module registered in ``MODELS``."""
    name, args = parse_cfg('token mixer', spec)
    if name in TOKEN_MIXERS:
        inherited = {key: arch[key] for key in MIXER_ARGS.get(name, ())}
        if name == 'attention':
            inherited.update(windows)
        elif name in DILATED:
            inherited['dilation'] = dilation
        return TOKEN_MIXERS[name](dim, **{**inherited, **args})
    mixer = MODELS.get(name)
    if mixer is None:
        raise UsageError(
            f"unknown token mixer '{name}': choose one of {', '.join(TOKEN_MIXERS)}, or register your own "
            "in MODELS and name it with its scope, such as 'mmseg.MyMixer'"
        )
    return mixer(dim=dim, **args)


class Embedding(nn.Module):
    """A strided convolution between two resolutions, with a norm before or after it.

    Args:
        in_channels (int): Channels in.
        out_channels (int): Channels out.
        kernel_size (int): Side of the kernel.
        stride (int): Stride.
        padding (int): Padding.
        dilation (int): Dilation. Defaults to 1.
        pre_norm (str | dict | None): Norm before the convolution. Defaults to None.
        post_norm (str | dict | None): Norm after the convolution. Defaults to None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        padding: int,
        dilation: int = 1,
        pre_norm: str | dict | None = None,
        post_norm: str | dict | None = None,
    ) -> None:
        super().__init__()
        self.pre_norm = build_norm(pre_norm, in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation)
        self.post_norm = build_norm(post_norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C_in, H, W)`` to ``(B, C_out, H / stride, W / stride)``."""
        return self.post_norm(call_linear(self.conv, self.pre_norm(x)))


def _is_pretrained(cfg: dict[str, Any]) -> bool:
    return cfg['type'] in ('Pretrained', PretrainedInit)


def _check_size(x: Tensor, stride: int, name: str) -> Tensor:
    """Return images that are not smaller than the stride of a network."""
    height, width = x.shape[-2:]
    if height < stride or width < stride:
        raise UsageError(
            f'an image of {height}x{width} pixels is smaller than the stride {stride} of {name}: resize or '
            f'pad it to at least {stride}x{stride}'
        )
    return x


torch.fx.wrap('_check_size')  # one node in what torch.fx traces


def _checkpointed(block: nn.Module, *inputs: Tensor | tuple | None) -> Tensor:
    """Run a block with activation checkpointing: backward recomputes it from its inputs."""
    contexts = {}
    if any(isinstance(module, _BatchNorm) for module in block.modules()):
        contexts['context_fn'] = lambda: (nullcontext(), frozen_running_stats(block))
    return checkpoint(block, *inputs, use_reentrant=False, **contexts)


class Stage(nn.Module):
    """A stage: downsampling, then blocks.

    Args:
        downsample (nn.Module): Maps the previous stage's output to this stage's resolution and width.
        blocks (Sequence[nn.Module]): The blocks.
    """

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, with_cp: bool = False) -> Tensor:
        """Map ``(B, C_in, H, W)`` to ``(B, C_out, H', W')``; ``with_cp`` recomputes blocks in backward."""
        x = self.downsample(x)
        plan, rule = None, None
        for block in self.blocks:
            mixer: nn.Module | None = getattr(block, 'token_mixer', None)  # a pruned block may be an identity
            inputs: tuple[Any, ...] = (x,)
            if takes_plan(mixer):
                # Planned once for all blocks with the same windows.
                if mixer.window_rule != rule:
                    plan, rule = mixer.plan(x), mixer.window_rule
                inputs = (x, plan)
            x = _checkpointed(block, *inputs) if with_cp else block(*inputs)
        return x


@MODELS.register_module()
class MetaFormer(BaseModule):
    """MetaFormer as a multi-scale backbone.

    Papers: *MetaFormer Is Actually What You Need for Vision* (arXiv:2111.11418) and *MetaFormer Baselines for
    Vision* (arXiv:2210.13452). The members that the papers name are the classes :class:`PoolFormer`,
    :class:`PoolFormerV2`, :class:`IdentityFormer`, :class:`RandFormer`, :class:`ConvFormer` and
    :class:`CAFormer`; this class takes any other one as a dict.

    The keys of an ``arch`` dict, with their defaults; a family's own settings come before these:

    - ``base`` (str): take everything that the dict does not set from this member of the family.
    - ``depths``, ``dims`` (sequence of int): blocks and channels of each stage. Required without ``base``.
    - ``token_mixers``: for each stage or for all: ``'identity'``, ``'pooling'``, ``'random_mixing'``,
      ``'sep_conv'``, ``'attention'``, the name of a module that you registered in ``MODELS``, or a dict with
      such a name under ``type`` and arguments beside it. A token mixer is built with ``dim`` (int) and maps
      ``(B, dim, H, W)`` to the same shape. Required without ``base``.
    - ``norm``: norm in the blocks, for each stage or for all: ``'LN'``, ``'GN1'`` (one group), ``'BN'``, or a
      dict such as ``dict(type='LN', eps=1e-6, bias=False)``, the default.
    - ``embed_norm``: norm after the stem and before each downsampling. Default as ``norm``; None for none.
    - ``act``: ``'StarReLU'`` (default), ``'SquaredReLU'``, ``'ReLU'``, ``'GELU'``, ``'SiLU'``, or a dict such
      as ``dict(type='StarReLU', bias=0.0, bias_learnable=False)``.
    - ``bias`` (bool): biases in MLPs, separable convolutions and attention. Defaults to False.
    - ``mlp_ratio`` (float): hidden width of the MLP. Defaults to 4.
    - ``res_scale``: residual scales, True or False, for each stage or for all; ``'last_two'`` (default).
    - ``layer_scale_init`` (float | None): initial layer scale, for each stage or for all; None (default)
      for no such scale.
    - ``pool_size`` (int): window of the ``'pooling'`` mixers. Defaults to 3.
    - ``head_dim`` (int): head width of the ``'attention'`` mixers. Defaults to 32.
    - ``stem`` (dict): ``kernel_sizes``, ``strides``, ``paddings``, one entry for each convolution, and
      ``dims``, the channels of all but the last. Defaults to one 7x7 convolution, stride 4, padding 2.

    Args:
        arch (str | dict): A name of the class's arch table, or a dict as above.
        in_channels (int): Channels of the image. Defaults to 3.
        out_indices (Sequence[int]): Stages whose outputs are returned, counted from 0, in ascending order.
            Each has a norm of its own; stages after the last one are not built. Defaults to all stages.
        frozen_stages (int): -1 freezes nothing (default), 0 the stem, i the stem and the stages before
            stage i, the number of stages the stem and all of them. Frozen parts keep their parameters
            (``requires_grad=False``) and stay in eval mode; the norms of the outputs are never frozen.
        norm_eval (bool): Keep batch norms in eval mode while training. Only for an ``arch`` with batch
            norms: the other norms do the same in both modes. Defaults to False.
        drop_path_rate (float): Stochastic depth of the last block, in [0, 1); it grows linearly from 0 at
            the first. Defaults to 0.0.
        window (int | sequence | None): Window of attention in tokens: a side for all stages with attention,
            or for each stage a side, height and width, or None for no window. Odd and positive in mode
            ``'slide'``. Defaults to None: attention over the whole map.
        border (str): A sliding window at the border: ``'shift'``, moved inwards, or ``'truncate'``. Defaults
            to ``'shift'``.
        window_mode (str): ``'slide'``, around each query, or ``'block'``, windows beside each other. Defaults
            to ``'slide'``.
        backend (str): ``'sdpa'`` or, if it is installed, ``'natten'``; see :class:`Attention`. Defaults to
            ``'sdpa'``.
        with_cp (bool): Recompute blocks in backward instead of keeping their activations. Defaults to False.
        out_stride (int | None): Stride of the last stages' outputs, for heads that want fine maps: 8 or 16
            where the stages end at 32. Downsamplings beyond it lose their stride, and the kernels and the
            pooling behind them are dilated instead; attention, random matrices and mixers of your own are as
            they are. The same weights load. Defaults to None: the product of all strides.
        output_norm (bool | str | dict): Norm of each output. Defaults to True: the family's, which is
            ``dict(type='LN', eps=1e-6)`` where it sets no other. False for raw features, or a norm as in
            ``arch``.
        init_cfg (dict | list | None): Initialisation. ``dict(type='Pretrained', checkpoint=...)`` loads
            published weights of any layout, completely or not at all: see :meth:`init_weights`. Defaults to
            None, the papers' initialisation: normal with standard deviation 0.02, truncated, for weights
            of linear and convolution layers, zero for their biases.

    Raises:
        UsageError: An argument has an invalid value.
    """

    #: Settings of a family that override ``ARCH_DEFAULTS``.
    arch_settings: ClassVar[dict[str, Any]] = {}
    #: The members of the family: name to ``depths``, ``dims`` and other settings that differ.
    arch_table: ClassVar[dict[str, dict[str, Any]]] = {}
    #: Locations of pretrained weights that may run code when :meth:`init_weights` reads them.
    trusted_checkpoints: Collection[str] = ()
    #: Norm of the outputs unless the constructor is given another one.
    output_norm: ClassVar[dict[str, Any]] = dict(type='LN', eps=1e-6)
    # Of MMEngine's BaseModule.
    init_cfg: dict[str, Any] | list[dict[str, Any]] | None
    _is_init: bool

    def __init__(
        self,
        arch: str | dict,
        in_channels: int = 3,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        drop_path_rate: float = 0.0,
        window: int | Sequence | None = None,
        border: str = 'shift',
        window_mode: str = 'slide',
        backend: str = 'sdpa',
        with_cp: bool = False,
        out_stride: int | None = None,
        output_norm: bool | str | dict = True,
        init_cfg: dict | list | None = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.02, bias=0.0)
        super().__init__(init_cfg)
        self.arch = arch = self.resolve_arch(arch)
        self.depths, self.dims = arch['depths'], arch['dims']
        num_stages = len(self.depths)
        if out_indices is None:
            out_indices = range(num_stages)
        check_out_indices(out_indices, num_stages)
        check('in_channels', in_channels, is_integer(in_channels), 'a positive integer')
        for name, value in (('norm_eval', norm_eval), ('with_cp', with_cp)):
            check(name, value, isinstance(value, bool), 'True or False')
        if type(frozen_stages) is not int or not -1 <= frozen_stages <= num_stages:
            raise UsageError(
                f'frozen_stages={frozen_stages}: choose -1 (nothing), 0 (the stem) or up to {num_stages} '
                '(the stem and that many stages)'
            )
        if not is_number(drop_path_rate) or not 0 <= drop_path_rate < 1:
            raise UsageError(f'drop_path_rate={drop_path_rate!r}: choose a probability in [0, 1)')
        self.in_channels = in_channels
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.window = resolve_windows(window, arch['token_mixers'])
        check_choice('backend', backend, BACKENDS)
        for side in self.window:
            resolve_window(1 if side is None else side, window_mode, border)
        self.border = border
        self.window_mode = window_mode
        self.backend = backend

        stem = arch['stem']
        stem_dims = (in_channels, *stem['dims'], self.dims[0])
        self.stem = nn.Sequential(
            *(
                Embedding(
                    stem_dims[i], stem_dims[i + 1], kernel, stride, padding, post_norm=arch['embed_norm']
                )
                for i, (kernel, stride, padding) in enumerate(
                    zip(stem['kernel_sizes'], stem['strides'], stem['paddings'], strict=True)
                )
            )
        )
        #: Stride of each stage's output, in pixels.
        self.strides = resolve_strides(out_stride, stem['strides'], num_stages)

        drop_paths = torch.linspace(0, drop_path_rate, sum(self.depths), device='cpu').tolist()
        self.stages = nn.ModuleList(
            self._build_stage(i, drop_paths[sum(self.depths[:i]) :]) for i in range(self.out_indices[-1] + 1)
        )
        if not (output_norm is None or isinstance(output_norm, (bool, str, dict))):
            raise UsageError(f'output_norm={output_norm!r}: give True, False, or a norm as in arch')
        norm = self.output_norm if output_norm is True else output_norm
        self.norms = nn.ModuleDict(
            {str(i): build_norm(None if norm is False else norm, self.dims[i]) for i in self.out_indices}
        )
        if norm_eval and not any(isinstance(m, _BatchNorm) for m in self.modules()):
            raise UsageError(
                'norm_eval=True has no meaning here, the arch has no batch norm: leave it out, or set '
                "norm='BN' in the arch"
            )
        self._freeze()
        cfgs = [init_cfg] if isinstance(init_cfg, dict) else init_cfg
        #: Weights that ``init_cfg`` names, as long as nothing has been loaded.
        self._missing = next((cfg.get('checkpoint') for cfg in cfgs if _is_pretrained(cfg)), None)

    @classmethod
    def resolve_arch(cls, arch: str | dict) -> dict[str, Any]:
        """Return ``arch`` as a complete, validated dict with one entry for each stage where that applies.

        Args:
            arch (str | dict): As the constructor takes it.

        Raises:
            UsageError: A name is unknown, a key is unknown or missing, or a value does not fit.
        """
        return resolve_arch(arch, cls.__name__, cls.arch_settings, cls.arch_table)

    def _build_stage(self, i: int, drop_paths: Sequence[float]) -> Stage:
        arch, dim = self.arch, self.dims[i]
        windows = dict(window=self.window[i])
        if self.window[i] is not None:
            windows.update(border=self.border, window_mode=self.window_mode, backend=self.backend)
        downsample, dilation = nn.Identity(), 1
        if i:
            # As in a network with all strides, kernels reach as far on the image.
            before, dilation = (self.strides[0] * 2**j // self.strides[j] for j in (i - 1, i))
            stride = self.strides[i] // self.strides[i - 1]
            downsample = Embedding(
                self.dims[i - 1], dim, 3, stride, before, before, pre_norm=arch['embed_norm']
            )
        blocks = [
            MetaFormerBlock(
                dim,
                _build_token_mixer(arch['token_mixers'][i], dim, arch, windows, dilation),
                norm=arch['norm'][i],
                act=arch['act'],
                mlp_ratio=arch['mlp_ratio'],
                bias=arch['bias'],
                res_scale_init=1.0 if arch['res_scale'][i] else None,
                layer_scale_init=arch['layer_scale_init'][i],
                drop_path=drop_paths[j],
            )
            for j in range(self.depths[i])
        ]
        return Stage(downsample, blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the features of a batch of images.

        Args:
            x (Tensor): Images, ``(B, in_channels, H, W)``. Height and width need not be multiples of the
                stride, but at least one full stride (32 for four stages).

        Returns:
            tuple[Tensor]: For each of ``out_indices``, ``(B, dims[i], H_i, W_i)`` at stride 4, 8, 16, 32, or
            less with ``out_stride``, channels first in memory.

        Raises:
            UsageError: The image is smaller than the network's stride.
        """
        if self._missing is not None and not (torch.compiler.is_compiling() or x.is_meta):
            warnings.warn(
                f"{type(self).__name__} computes with random weights: '{self._missing}', which init_cfg "
                'names, is loaded by init_weights()',
                stacklevel=2,
            )
            self._missing = None
        x = _check_size(x, self.strides[-1], type(self).__name__)
        # Channels last inside: norms over channels and pointwise maps need no transposed copies. Not outside:
        # MMCV's operators, such as RoIAlign, assume contiguous memory and would read wrong values.
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        with_cp = self.with_cp and torch.is_grad_enabled()
        outs = []
        for i, stage in enumerate(self.stages):
            x = stage(x, with_cp=with_cp)
            if i in self.out_indices:
                outs.append(self.norms[str(i)](x).contiguous())
        return tuple(outs)

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` specifies.

        ``dict(type='Pretrained', checkpoint=...)`` takes a path, a URL, ``timm://`` and a model of timm's
        such as ``timm://caformer_s18.sail_in1k``, or ``mmmeta://`` and a name of our zoo such as
        ``mmmeta://caformer_s18_in21ft1k``. Beside ``checkpoint`` it takes ``strict`` (bool), True unless
        given: False loads matching tensors and logs the rest as a warning; and ``prefix`` (str), what the
        names of the network begin with that is chosen from a file with several. MMEngine's ``map_location``
        has no effect: files are read into main memory.

        Raises:
            UsageError: The weights cannot be read or do not fit.
        """
        init_cfg = self.init_cfg
        cfgs = [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg or [])
        pretrained = [cfg for cfg in cfgs if _is_pretrained(cfg)]
        if self._is_init:
            pretrained = []
        # MMEngine would load what fits, and log a warning.
        self.init_cfg = [cfg for cfg in cfgs if cfg not in pretrained]
        super().init_weights()
        self.init_cfg = init_cfg
        self._is_init = False  # a call that fails can be repeated
        for cfg in pretrained:
            arguments = {key: value for key, value in cfg.items() if key != 'type'}
            arguments.pop('map_location', None)
            unknown = sorted(set(arguments) - {'checkpoint', 'strict', 'prefix'})
            if unknown or 'checkpoint' not in arguments:
                raise UsageError(
                    f'init_cfg={dict(cfg)} of {type(self).__name__}: Pretrained takes checkpoint, strict, '
                    'prefix and map_location'
                )
            location = as_location(arguments.pop('checkpoint'))
            load(self, location, 'backbone', trusted=location in self.trusted_checkpoints, **arguments)
            if hasattr(self, '_params_init_info'):
                update_init_info(self, init_info=f'PretrainedInit: load from {location}')
        self._is_init, self._missing = True, None

    @staticmethod
    def named_archs() -> dict[str, dict]:
        """The members of all families, keyed by the arguments that build them."""
        return {
            f"{family.__name__} arch='{name}'": family.resolve_arch(name)
            for family in MetaFormer.__subclasses__()
            for name in family.arch_table
        }

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Load tensors of any layout, wherever in a model the backbone is."""
        own = {name: tensor for name, tensor in state_dict.items() if name.startswith(prefix)}
        self._missing = None if own else self._missing
        found = recognise([name.removeprefix(prefix) for name in own])
        if found is not None and found[0] is not OURS:
            state, _ = translate(
                {name.removeprefix(prefix): tensor for name, tensor in own.items()}, 'state_dict'
            )
            for name in own:
                del state_dict[name]
            state_dict.update(
                {prefix + name.removeprefix('backbone.'): tensor for name, tensor in state.items()}
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _frozen_modules(self) -> list[nn.Module]:
        return [] if self.frozen_stages < 0 else [self.stem, *self.stages[: self.frozen_stages]]

    def _freeze(self) -> None:
        for module in self._frozen_modules():
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> 'MetaFormer':
        """Set the mode of all parts but those that ``frozen_stages`` and ``norm_eval`` keep in eval mode."""
        super().train(mode)
        self._freeze()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter, for layer-wise learning-rate decay.

        Args:
            param_name (str): Name of a parameter.
            prefix (str): Prefix of the backbone's parameter names. Defaults to ''.

        Returns:
            tuple[int, int]: The depth and the number of depths: 0 for the stem, then one for each block,
            a downsampling with the block behind it, and the last for the norms of the outputs and for
            parameters outside of the backbone.
        """
        num_layers = sum(self.depths) + 2
        name = param_name[len(prefix) :] if param_name.startswith(prefix) else ''
        if name.startswith('stem.'):
            return 0, num_layers
        match = re.match(r'stages\.(\d+)\.(?:blocks\.(\d+)|downsample)\.', name)
        if match is None:
            return num_layers - 1, num_layers
        stage, block = int(match[1]), int(match[2] or 0)
        return sum(self.depths[:stage]) + block + 1, num_layers
