"""Names of MetaFormer weights in other repositories, and their translation into ours and back.

A layout is a table. To add one, describe it as :class:`Layout` does and put it into ``LAYOUTS``; it is
recognised by the names of its tensors, never by that of a file.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from mmmeta.utils.errors import UsageError

STAGES = range(4)


@dataclass(frozen=True)
class Layout:
    """How one source names the tensors of a MetaFormer.

    In the names ``{i}`` stands for the stage, counted from 0, ``{even}`` for ``2 * i`` and ``{odd}`` for
    ``2 * i - 1``. None stands for a part that the source does not have.

    Args:
        name (str): Name shown to users.
        stem (str): Convolution of the stem.
        downsample (str): Convolution in front of the stages 1, 2 and 3.
        blocks (str): Prefix of the index of a block.
        stem_norm (str | None): Norm behind the stem. Defaults to None.
        downsample_norm (str | None): Norm in front of a downsampling. Defaults to None.
        parts (dict[str, str]): Names inside of a block, ours to theirs, where they differ.
        outputs (str | None): Norms of the outputs of a multi-scale backbone. Defaults to None.
        classifier_norm (str | None): Norm of the classifier. Defaults to None.
        classifier (dict[str, str]): Parts of the classifier, ours to theirs.
        convolutions (str): Which pointwise maps are stored as 1x1 convolutions, with weights of four
            dimensions: ``'all'``, ``'none'``, or ``'no attention'``, those of blocks without attention.
            Only for writing; both are read. Defaults to ``'all'``.
    """

    name: str
    stem: str
    downsample: str
    blocks: str
    stem_norm: str | None = None
    downsample_norm: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    outputs: str | None = None
    classifier_norm: str | None = None
    classifier: Mapping[str, str] = field(default_factory=dict)
    convolutions: str = 'all'

    def modules(self) -> dict[str, str]:
        """Modules outside of blocks and classifier, and prefixes of blocks: ours to theirs."""
        table = {'stem.0.conv': self.stem, 'stem.0.post_norm': self.stem_norm}
        for i in STAGES:
            stage = dict(i=i, even=2 * i, odd=2 * i - 1)
            named = {f'stages.{i}.blocks': self.blocks, f'norms.{i}': self.outputs}
            if i:
                named[f'stages.{i}.downsample.pre_norm'] = self.downsample_norm
                named[f'stages.{i}.downsample.conv'] = self.downsample
            table.update({ours: theirs and theirs.format(**stage) for ours, theirs in named.items()})
        return {ours: theirs for ours, theirs in table.items() if theirs is not None}


OURS = Layout(
    name='mmmeta',
    stem='stem.0.conv',
    stem_norm='stem.0.post_norm',
    downsample='stages.{i}.downsample.conv',
    downsample_norm='stages.{i}.downsample.pre_norm',
    blocks='stages.{i}.blocks',
    outputs='norms.{i}',
    convolutions='none',
)

# One linear layer, or the parts of the MLP head, which ours has under `head.fc` too.
HEAD = {'head.fc': 'head'}
SCALES = {f'{kind}_scale{i}': f'{kind}_scale{i}.scale' for kind in ('res', 'layer') for i in (1, 2)}

TIMM = Layout(
    name='timm',
    stem='stem.conv',
    stem_norm='stem.norm',
    downsample='stages.{i}.downsample.conv',
    downsample_norm='stages.{i}.downsample.norm',
    blocks='stages.{i}.blocks',
    parts={**SCALES, 'token_mixer.act': 'token_mixer.act1'},
    classifier_norm='head.norm',
    classifier={'head.fc': 'head.fc'},
    convolutions='no attention',
)

# Of create_model(..., features_only=True), and of segmentation_models.pytorch's encoders ``tu-...``.
TIMM_FEATURES = replace(
    TIMM,
    name='timm-features',
    downsample='stages_{i}.downsample.conv',
    downsample_norm='stages_{i}.downsample.norm',
    blocks='stages_{i}.blocks',
    classifier_norm=None,
    classifier={},
)

SAIL_METAFORMER = Layout(
    name='sail-sg/metaformer',
    stem='downsample_layers.0.conv',
    stem_norm='downsample_layers.0.post_norm',
    downsample='downsample_layers.{i}.conv',
    downsample_norm='downsample_layers.{i}.pre_norm',
    blocks='stages.{i}',
    parts={**SCALES, 'token_mixer.act': 'token_mixer.act1'},
    classifier_norm='norm',
    classifier=HEAD,
    convolutions='none',
)

SAIL_POOLFORMER = Layout(
    name='sail-sg/poolformer',
    stem='patch_embed.proj',
    downsample='network.{odd}.proj',
    blocks='network.{even}',
    parts={'layer_scale1': 'layer_scale_1', 'layer_scale2': 'layer_scale_2'},
    classifier_norm='norm',
    classifier=HEAD,
)

# PoolFormer of MMPretrain and, as the backbone of segmentors, of MMSegmentation; `head.fc` as in ours.
MMPRETRAIN = Layout(
    name='mmpretrain',
    stem='patch_embed.proj',
    downsample='network.{odd}.proj',
    blocks='network.{even}',
    parts=SAIL_POOLFORMER.parts,
    outputs='norm{even}',
    classifier={'head.fc': 'head.fc'},
)

TRANSFORMERS = Layout(
    name='transformers',
    stem='poolformer.encoder.patch_embeddings.0.projection',
    downsample='poolformer.encoder.patch_embeddings.{i}.projection',
    blocks='poolformer.encoder.block.{i}',
    parts={
        'norm1': 'before_norm',
        'norm2': 'after_norm',
        'mlp.fc1': 'output.conv1',
        'mlp.fc2': 'output.conv2',
        **SAIL_POOLFORMER.parts,
    },
    classifier_norm='norm',
    classifier={'head.fc': 'classifier'},
)

LAYOUTS = {
    layout.name: layout
    for layout in (OURS, TIMM, TIMM_FEATURES, SAIL_METAFORMER, SAIL_POOLFORMER, MMPRETRAIN, TRANSFORMERS)
}


def find_networks(names: Collection[str]) -> dict[str, Layout]:
    """Find the MetaFormers among tensors by their names.

    Args:
        names (Collection[str]): Names of tensors.

    Returns:
        dict[str, Layout]: The layout of each by the prefix of its names, such as ``'backbone.'``.
    """
    known, networks = set(names), {}
    for layout in LAYOUTS.values():
        end = f'{layout.stem}.weight'
        block = f'{layout.blocks.format(i=0, even=0)}.0.{layout.parts.get("mlp.fc1", "mlp.fc1")}.weight'
        for name in names:
            prefix = name.removesuffix(end)
            if prefix == name or (prefix and not prefix.endswith('.')) or f'{prefix}{block}' not in known:
                continue
            if layout in (SAIL_POOLFORMER, MMPRETRAIN):  # the same but for the norms of the outputs
                multi_scale = any(re.match(rf'{re.escape(prefix)}norm\d\.', other) for other in known)
                networks[prefix] = MMPRETRAIN if multi_scale or prefix else SAIL_POOLFORMER
            else:
                networks.setdefault(prefix, layout)
    return networks


def recognise(names: Collection[str]) -> tuple[Layout, str] | None:
    """Recognise the layout of tensors by their names.

    Args:
        names (Collection[str]): Names of tensors.

    Returns:
        tuple[Layout, str] | None: The layout and the prefix of the backbone's names, such as
        ``'backbone.'``; of several networks the one without a prefix, the backbone, or the first. None if it
        is no layout of a MetaFormer.
    """
    networks = find_networks(names)
    # What learns without labels has copies beside the backbone.
    prefix = next((one for one in ('', 'backbone.', *networks) if one in networks), None)
    return None if prefix is None else (networks[prefix], prefix)


def _rename(name: str, table: Mapping[str, str]) -> str | None:
    """``name`` with its longest module prefix in the table replaced; None if there is none."""
    module = max((m for m in table if name == m or name.startswith(f'{m}.')), key=len, default=None)
    return None if module is None else table[module] + name[len(module) :]


def _inverse(table: Mapping[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in table.items()}


def _rename_backbone(
    name: str, modules: Mapping[str, str], parts: Mapping[str, str], blocks: set[str]
) -> str | None:
    """Rename a tensor of the backbone; in blocks, which ``blocks`` names, the part of the block too."""
    renamed = _rename(name, modules)
    if renamed is None:
        return None
    for prefix in blocks:
        match = re.fullmatch(rf'({re.escape(prefix)}\.\d+\.)(.+)', renamed)
        if match:
            return match[1] + (_rename(match[2], parts) or match[2])
    return renamed


def translate(state_dict: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], str]:
    """Convert tensors of any layout to the names and shapes of our models.

    Args:
        state_dict (Mapping[str, Tensor]): A backbone, a classifier, a detector or a segmentor.
        source (str): Its origin, for the error.

    Returns:
        tuple[dict[str, Tensor], str]: The tensors, ``backbone.*`` for the backbone, ``head.*`` for the
        classifier, and all others under their own names; and the name of the layout.

    Raises:
        UsageError: It is no layout of a MetaFormer, or there are several and none is the backbone.
    """
    networks = find_networks(state_dict)
    if len(networks) > 1 and not networks.keys() & {'', 'backbone.'}:
        raise UsageError(
            f"'{source}' holds {len(networks)} MetaFormers, under {', '.join(networks)}: choose one, such as "
            f"init_cfg=dict(type='Pretrained', checkpoint='{source}', prefix='{next(iter(networks))}')"
        )
    found = recognise(state_dict)
    if found is None:
        names = ', '.join(list(state_dict)[:3])
        raise UsageError(
            f"'{source}' holds no MetaFormer, its tensors are called {names}, ...: give weights in one of "
            f'the layouts of {", ".join(LAYOUTS)}'
        )
    layout, prefix = found
    modules, parts = _inverse(layout.modules()), _inverse(layout.parts)
    blocks = {f'stages.{i}.blocks' for i in STAGES}
    classifier = _inverse(layout.classifier)
    # Without a norm behind the stem it is PoolFormer, whose classifier normalises the map before it is
    # averaged: the norm of the last output. The others normalise the average.
    averaged = f'{prefix}{layout.stem_norm}.weight' in state_dict
    if layout.classifier_norm:
        classifier[layout.classifier_norm] = 'head.norm' if averaged else 'backbone.norms.3'
    renamed = {}
    for name, tensor in state_dict.items():
        inner = name.removeprefix(prefix) if name.startswith(prefix) else None
        ours = None
        if inner is not None and layout is not OURS:
            ours = _rename_backbone(inner, modules, parts, blocks)
        if ours is not None:
            ours = f'backbone.{ours}'
        elif layout is not OURS and (inner is not None or not prefix):
            ours = _rename(inner or name, classifier)
        if ours is None:
            of_backbone = inner is not None and not name.startswith('head.')
            ours = f'backbone.{inner}' if of_backbone else name
        renamed[ours] = _as_matrix(tensor) if layout is not OURS and 'backbone.stages.' in ours else tensor
    return renamed, layout.name


def _as_matrix(tensor: Tensor) -> Tensor:
    """The weight of a 1x1 convolution as a matrix; a depthwise one, (C, 1, k, k), unchanged."""
    return tensor.flatten(1) if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor


def convert_to_layout(state_dict: Mapping[str, Tensor], layout_name: str) -> dict[str, Tensor]:
    """Convert tensors of ours to the names and shapes of another layout.

    Args:
        state_dict (Mapping[str, Tensor]): What :func:`translate` returns; parts that are neither backbone nor
            classifier, such as a neck, keep their names.
        layout_name (str): One of ``LAYOUTS``.

    Returns:
        dict[str, Tensor]: The tensors in the other layout, without the norms of outputs that it has no name
        for.

    Raises:
        UsageError: The layout is unknown, or has no name for a tensor of the backbone.
    """
    if layout_name not in LAYOUTS:
        raise UsageError(f"unknown layout '{layout_name}': choose one of {', '.join(LAYOUTS)}")
    layout = LAYOUTS[layout_name]
    if layout is OURS:
        return dict(state_dict)
    modules, classifier = layout.modules(), dict(layout.classifier)
    blocks = {modules[f'stages.{i}.blocks'] for i in STAGES}
    if layout.classifier_norm:
        averaged = 'backbone.stem.0.post_norm.weight' in state_dict
        classifier['head.norm' if averaged else 'backbone.norms.3'] = layout.classifier_norm
    attends = {
        match[1] for name in state_dict if (match := re.match(r'(.+\.blocks\.\d+\.)token_mixer\.qkv\.', name))
    }
    # MMPretrain's backbones are parts of whole models, as ours are.
    whole = any(not name.startswith('backbone.') for name in state_dict)
    prefix = 'backbone.' if layout is MMPRETRAIN and whole else ''
    written, nameless = {}, []
    for ours, tensor in state_dict.items():
        theirs = _rename(ours, classifier)
        if theirs is None and ours.startswith('backbone.'):
            theirs = _rename_backbone(ours.removeprefix('backbone.'), modules, layout.parts, blocks)
            if theirs is None:
                if not ours.startswith('backbone.norms.'):
                    nameless.append(ours)
                continue
            block = re.match(r'.+\.blocks\.\d+\.', ours)
            pointwise = block is not None and tensor.ndim == 2 and not ours.endswith('random_matrix')
            as_convolution = layout.convolutions == 'all' or (
                layout.convolutions == 'no attention' and block and block[0] not in attends
            )
            if pointwise and as_convolution:
                tensor = tensor[:, :, None, None]
            theirs = prefix + theirs
        written[theirs or ours] = tensor
    if nameless:
        raise UsageError(f'the layout of {layout_name} has no name for {nameless[0]}: choose another layout')
    return written
