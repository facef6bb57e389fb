"""The six families of the papers; architectures of arXiv:2111.11418 and arXiv:2210.13452, Tables I and II."""

from typing import Any, ClassVar

from mmmeta.registry import MODELS

from .metaformer import MetaFormer

SMALL, MEDIUM = (64, 128, 320, 512), (96, 192, 384, 768)
# Table I: stages of depth L/6, L/6, L/2, L/6.
TABLE_I = dict(
    s12=dict(depths=(2, 2, 6, 2), dims=SMALL),
    s24=dict(depths=(4, 4, 12, 4), dims=SMALL),
    s36=dict(depths=(6, 6, 18, 6), dims=SMALL),
    m36=dict(depths=(6, 6, 18, 6), dims=MEDIUM),
    m48=dict(depths=(8, 8, 24, 8), dims=MEDIUM),
)
TABLE_II = dict(
    s18=dict(depths=(3, 3, 9, 3), dims=SMALL),
    s36=dict(depths=(3, 12, 18, 3), dims=SMALL),
    m36=dict(depths=(3, 12, 18, 3), dims=(96, 192, 384, 576)),
    b36=dict(depths=(3, 12, 18, 3), dims=(128, 256, 512, 768)),
)
GN1 = dict(type='GN1', eps=1e-6, bias=False)


@MODELS.register_module()
class PoolFormer(MetaFormer):
    """PoolFormer (arXiv:2111.11418): average pooling mixes tokens.

    ``arch``: ``'s12'``, ``'s24'``, ``'s36'``, ``'m36'``, ``'m48'`` or a dict. The arguments are those of
    :class:`MetaFormer`.
    """

    arch_settings: ClassVar[dict[str, Any]] = dict(
        token_mixers='pooling',
        norm=dict(type='GN1', eps=1e-5),
        embed_norm=None,
        act='GELU',
        bias=True,
        res_scale=False,
        layer_scale_init=1e-5,
    )
    arch_table: ClassVar[dict[str, dict[str, Any]]] = {
        name: {**arch, 'layer_scale_init': 1e-5 if name in ('s12', 's24') else 1e-6}
        for name, arch in TABLE_I.items()
    }
    output_norm: ClassVar[dict[str, Any]] = dict(type='GN1', eps=1e-5)


@MODELS.register_module()
class PoolFormerV2(MetaFormer):
    """PoolFormerV2 (arXiv:2210.13452): PoolFormer with StarReLU, ResScale and without biases.

    ``arch``: ``'s12'``, ``'s24'``, ``'s36'``, ``'m36'``, ``'m48'`` or a dict. The arguments are those of
    :class:`MetaFormer`.
    """

    arch_settings: ClassVar[dict[str, Any]] = dict(token_mixers='pooling', norm=GN1)
    arch_table: ClassVar[dict[str, dict[str, Any]]] = TABLE_I


@MODELS.register_module()
class IdentityFormer(MetaFormer):
    """IdentityFormer (arXiv:2210.13452): tokens are mixed by the downsamplings only.

    ``arch``: ``'s12'``, ``'s24'``, ``'s36'``, ``'m36'``, ``'m48'`` or a dict. The arguments are those of
    :class:`MetaFormer`.
    """

    arch_settings: ClassVar[dict[str, Any]] = dict(token_mixers='identity', norm=GN1)
    arch_table: ClassVar[dict[str, dict[str, Any]]] = TABLE_I


@MODELS.register_module()
class RandFormer(MetaFormer):
    """RandFormer (arXiv:2210.13452): frozen random matrices mix tokens in the last two stages.

    ``arch``: ``'s12'``, ``'s24'``, ``'s36'``, ``'m36'``, ``'m48'`` or a dict. The arguments are those of
    :class:`MetaFormer`; see :class:`~mmmeta.models.layers.RandomMixing` for images that are
    not of 224x224 pixels.
    """

    arch_settings: ClassVar[dict[str, Any]] = dict(
        token_mixers=(
            'identity',
            'identity',
            dict(type='random_mixing', num_tokens=14 * 14),
            dict(type='random_mixing', num_tokens=7 * 7),
        ),
        norm=GN1,
    )
    arch_table: ClassVar[dict[str, dict[str, Any]]] = TABLE_I


@MODELS.register_module()
class ConvFormer(MetaFormer):
    """ConvFormer (arXiv:2210.13452): separable convolutions mix tokens.

    ``arch``: ``'s18'``, ``'s36'``, ``'m36'``, ``'b36'`` or a dict. The arguments are those of
    :class:`MetaFormer`.
    """

    arch_settings: ClassVar[dict[str, Any]] = dict(token_mixers='sep_conv')
    arch_table: ClassVar[dict[str, dict[str, Any]]] = TABLE_II


@MODELS.register_module()
class CAFormer(MetaFormer):
    """CAFormer (arXiv:2210.13452): convolutions in the first two stages, attention in the last two.

    ``arch``: ``'s18'``, ``'s36'``, ``'m36'``, ``'b36'`` or a dict. The arguments are those of
    :class:`MetaFormer`.
    """

    arch_settings: ClassVar[dict[str, Any]] = dict(
        token_mixers=('sep_conv', 'sep_conv', 'attention', 'attention')
    )
    arch_table: ClassVar[dict[str, dict[str, Any]]] = TABLE_II


#: The families by their names in configs, weights and the papers' tables.
FAMILIES: dict[str, type[MetaFormer]] = {
    family.__name__.lower(): family
    for family in (PoolFormer, PoolFormerV2, IdentityFormer, RandFormer, ConvFormer, CAFormer)
}
