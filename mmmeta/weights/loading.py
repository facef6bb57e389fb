"""Load weights completely, or raise an error."""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from mmmeta.errors import UsageError

from .fetch import fetch, is_remote, known_family, remove_from_cache
from .files import DamagedFileError, check_finite, find_state_dict, format_names, is_trusted, read_checkpoint
from .layouts import translate


def read_location(location: str, map_location: Any = 'cpu') -> Any:
    """Read the file at a location, see :func:`~mmmeta.weights.fetch.fetch`.

    Args:
        location (str): A path, ``mmmeta://...``, ``timm://...`` or a URL.
        map_location (Any): As :func:`torch.load` takes it. Defaults to ``'cpu'``.

    Returns:
        Any: What the file holds.

    Raises:
        UsageError: It cannot be fetched or read. A damaged download is removed from the cache.
    """
    path = fetch(location)
    try:
        return read_checkpoint(path, map_location, is_trusted(location))
    except DamagedFileError as error:
        if not is_remote(location):
            raise
        remove_from_cache(path)
        raise UsageError(
            f"the download from '{location}' was incomplete and is removed from the cache: try again "
            f'({error})'
        ) from error


def load_weights(location: str, map_location: Any = 'cpu') -> tuple[dict[str, Tensor], str]:
    """Read weights in any layout, and convert them to ours.

    Args:
        location (str): A path, ``mmmeta://...``, ``timm://...`` or a URL.
        map_location (Any): As :func:`torch.load` takes it. Defaults to ``'cpu'``.

    Returns:
        tuple[dict[str, Tensor], str]: As :func:`~mmmeta.weights.layouts.translate`.

    Raises:
        UsageError: The file cannot be fetched or read, has no MetaFormer, or a value in it is not finite.
    """
    state_dict = find_state_dict(read_location(location, map_location), location)
    check_finite(state_dict, location)
    return translate(state_dict, location)


def missing_output_norms(own: Collection[str], given: Collection[str]) -> set[str]:
    """Tensors of output norms that the weights lack, as those of classifiers do.

    Args:
        own (Collection[str]): Names of a backbone's tensors.
        given (Collection[str]): Names of the tensors to load.
    """
    norms = {name.rpartition('.')[0] for name in given}
    return {name for name in own if name.startswith('norms.') and name.rpartition('.')[0] not in norms}


def differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Compare names and shapes.

    Args:
        own (Mapping[str, Tensor]): A model's tensors.
        given (Mapping[str, Tensor]): Those that are to be loaded.

    Returns:
        dict[str, list[str]]: What is ``'missing'``, ``'unexpected'`` and ``'of another shape'``; without the
        kinds that do not occur.
    """
    problems = {
        'missing': [name for name in own if name not in given],
        'unexpected': [name for name in given if name not in own],
        'of another shape': [
            f'{name} {tuple(given[name].shape)} instead of {tuple(tensor.shape)}'
            for name, tensor in own.items()
            if name in given and given[name].shape != tensor.shape
        ],
    }
    return {kind: names for kind, names in problems.items() if names}


def format_differences(problems: Mapping[str, Sequence[str]]) -> str:
    """Format the result of :func:`differences`."""
    return '; '.join(f'{len(names)} {kind} ({format_names(names)})' for kind, names in problems.items())


def load_backbone(
    backbone: nn.Module,
    location: str,
    archs: Mapping[str, Mapping[str, Any]],
    strict: bool = True,
    map_location: Any = 'cpu',
) -> None:
    """Load published weights into a backbone: all of its tensors, or none.

    Only its output norms, which classifiers lack, may keep initial values. If the images of the backbone
    have another number of channels than the three of the weights, the first convolution is adapted: for one
    channel its three kernels are summed, for another number they are repeated in turn and scaled by
    3 / channels, so that grey images give the same features.

    Args:
        backbone (nn.Module): The backbone.
        location (str): A path, ``mmmeta://...``, ``timm://...`` or a URL.
        archs (Mapping[str, Mapping]): Named architectures to suggest if the weights do not fit.
        strict (bool): Whether to refuse what does not fit. If not, matching tensors are loaded, the rest is
            logged as a warning. Defaults to True.
        map_location (Any): As :func:`torch.load` takes it. Defaults to ``'cpu'``.

    Raises:
        UsageError: The weights cannot be read, or, with ``strict``, do not fit.
    """
    family = type(backbone).__name__
    if strict:
        _check_family(location, family, archs)
    state_dict, layout = load_weights(location, map_location)
    given = {
        name.removeprefix('backbone.'): tensor
        for name, tensor in state_dict.items()
        if name.startswith('backbone.')
    }
    own = backbone.state_dict()
    _adapt_stem(given, own)
    new_norms = missing_output_norms(own, given)
    # Stages after the last of ``out_indices``, and norms of stages that are not in it.
    stages = {name.split('.')[1] for name in own if name.startswith('stages.')}
    spare = {
        name
        for name in given
        if (name.startswith('norms.') and name not in own)
        or (name.startswith('stages.') and name.split('.')[1] not in stages)
    }
    own, given = ({n: t for n, t in part.items() if n not in new_norms | spare} for part in (own, given))
    problems = differences(own, given)
    if problems and strict:
        _check_activation(location, family, archs, own, given)
        fits = _matching_archs(given, archs) or "none of the papers' models"
        raise UsageError(
            f"'{location}' ({layout} layout) does not fit this {family}: of {len(own)} backbone "
            f'tensors {format_differences(problems)}. It matches {fits}'
        )
    fitting = {n: given[n] for n, tensor in own.items() if n in given and given[n].shape == tensor.shape}
    backbone.load_state_dict(fitting, strict=False)
    new = len({name.split('.')[1] for name in new_norms})
    print_log(
        f'loaded {len(fitting)} of {len(own)} backbone tensors from {location} ({layout} layout)'
        + (f'; new: {new} output norm{"s" if new > 1 else ""}' if new else ''),
        logger='current',
    )
    if problems:
        print_log(
            f'strict=False: {location} does not fit this {family}, and parts of it keep their values: '
            f'{format_differences(problems)}',
            logger='current',
            level=logging.WARNING,
        )


def _adapt_stem(given: dict[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Adapt the kernels of the first convolution to the number of input channels."""
    stem = 'stem.0.conv.weight'
    if stem in given and stem in own and given[stem].shape[1] == 3 != own[stem].shape[1]:
        channels = own[stem].shape[1]
        kernels = given[stem]
        if channels == 1:
            given[stem] = kernels.sum(1, keepdim=True)
        else:
            given[stem] = kernels[:, [i % 3 for i in range(channels)]] * (3 / channels)


def _signature(state_dict: Mapping[str, Tensor]) -> tuple:
    """Depths, widths and mixers of the stages in a backbone's tensors; mixers without tensors are None."""
    depths, dims, mixers = [], [], []
    for i in range(4):
        blocks = [name for name in state_dict if name.startswith(f'stages.{i}.blocks.')]
        depths.append(len({name.split('.')[3] for name in blocks}))
        width = state_dict.get(f'stages.{i}.blocks.0.mlp.fc2.weight')
        dims.append(None if width is None else width.shape[0])
        kinds = dict(qkv='attention', pwconv1='sep_conv', random_matrix='random_mixing')
        present = [
            kind for key, kind in kinds.items() if any(f'.token_mixer.{key}' in name for name in blocks)
        ]
        mixers.append(present[0] if present else None)
    scaled = any(name.endswith('layer_scale1') for name in state_dict)
    return tuple(depths), tuple(dims), tuple(mixers), scaled


def _matching_archs(state_dict: Mapping[str, Tensor], archs: Mapping[str, Mapping[str, Any]]) -> str:
    """Names of the architectures with matching tensors."""
    signature = _signature(state_dict)
    fits = []
    for name, arch in archs.items():
        names = (m['type'] if isinstance(m, dict) else m for m in arch['token_mixers'])
        mixers = tuple(None if name in ('identity', 'pooling') else name for name in names)
        scaled = any(init is not None for init in arch['layer_scale_init'])
        if (tuple(arch['depths']), tuple(arch['dims']), mixers, scaled) == signature:
            fits.append(name)
    return ' or '.join(fits)


def _check_activation(
    location: str,
    family: str,
    archs: Mapping[str, Any],
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
) -> None:
    """Reject weights that fit but for the scalars of the activation."""
    odd = {*own} ^ {*given}
    fits = all(given[name].shape == tensor.shape for name, tensor in own.items() if name in given)
    if not fits or not all(re.search(r'\.act\.(scale|bias)$', name) for name in odd):
        return
    size = _matching_archs(given, {name: arch for name, arch in archs.items() if family in name.split()[0]})
    size = size.partition("'")[2].strip("'") or '...'
    if odd <= {*own}:
        raise UsageError(
            f"'{location}' is of a {family} without scalars in its activations, as ReLU has none, and this "
            f"one has those of StarReLU: write arch=dict(base='{size}', act='ReLU')"
        )
    raise UsageError(
        f"'{location}' is of a {family} with StarReLU, and this one has an activation without its scalars: "
        f"write arch='{size}', without act"
    )


def _check_family(location: str, family: str, archs: Mapping[str, Any]) -> None:
    """Reject weights that are known to be another family's; identity and pooling have the same tensors."""
    known = known_family(location)
    families = {name.split()[0].lower(): name.split()[0] for name in archs}
    if known and family.lower() in families and known[0] != family.lower():
        raise UsageError(
            f"'{location}' is of another family than {family}: it fits {families[known[0]]} arch='{known[1]}'"
        )
