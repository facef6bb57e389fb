"""Load weights completely, or raise an error."""

import logging
import os
import re
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from mmengine.logging import print_log
from torch import Tensor, nn

from mmmeta.utils.errors import UsageError

from .fetch import fetch, is_remote, known_family, remove_from_cache
from .files import DamagedFileError, check_finite, find_state_dict, format_names, read_checkpoint
from .layouts import OURS, find_networks, recognise, translate


@dataclass(frozen=True)
class LoadReport:
    """What was loaded into a model.

    Attributes:
        location (str): Where the weights come from.
        layout (str | None): Their layout; None where no MetaFormer was recognised.
        loaded (int): Number of tensors that were loaded.
        total (int): Number of tensors of the model that are not new.
        new (tuple[str, ...]): Tensors of output norms, which keep their values.
        differences (dict[str, list[str]]): What does not fit, as :func:`differences` returns it; empty unless
            it was loaded with ``strict=False``.
    """

    location: str
    layout: str | None
    loaded: int
    total: int
    new: tuple[str, ...] = ()
    differences: dict[str, list[str]] = field(default_factory=dict)


def load(
    model: nn.Module,
    location: str | os.PathLike[str],
    part: str = 'model',
    trusted: bool = False,
    prefix: str | None = None,
    strict: bool = True,
) -> LoadReport:
    """Load weights into a model: all of its tensors, or none.

    Of a backbone only the output norms, which classifiers lack, may keep their values. If its images have
    another number of channels than the three of the weights, the first convolution is adapted: for one
    channel its three kernels are summed, for another number they are repeated in turn and scaled by
    3 / channels, so that grey images give the same features.

    Args:
        model (nn.Module): The model, without wrappers.
        location (str | os.PathLike): A path, ``mmmeta://...``, ``timm://...`` or a URL; the weights may be in
            any layout.
        part (str): ``'model'`` for a whole model, ``'backbone'`` for a MetaFormer that takes the backbone out
            of whatever the file holds. Defaults to ``'model'``.
        trusted (bool): Whether code in the file may run. Defaults to False.
        prefix (str | None): What the names of the network begin with that is chosen from a file with
            several, such as ``'student.backbone.'``. Defaults to None: there has to be one.
        strict (bool): Whether to refuse what does not fit. If not, matching tensors are loaded, the rest is
            logged as a warning. Defaults to True.

    Returns:
        LoadReport: What was loaded.

    Raises:
        UsageError: The weights cannot be read, hold values that are not finite, or, with ``strict``, do not
            fit.
    """
    location = as_location(location)
    own, new = model.state_dict(), set()
    if part == 'model':
        checkpoint = read(location, trusted)
        layout = convert_checkpoint(checkpoint, location, prefix)
        given = checkpoint['state_dict']
    elif part == 'backbone':
        if strict:
            _check_family(location, model)
        state_dict, layout = read_weights(location, trusted, prefix)
        given = backbone_tensors(state_dict)
        _adapt_stem(given, own)
        new = missing_output_norms(own, given)
        given = {name: tensor for name, tensor in given.items() if not _is_spare(name, own)}
    else:
        raise UsageError(f"part={part!r}: load 'model' or 'backbone'")
    expected = {name: tensor for name, tensor in own.items() if name not in new}
    problems = differences(expected, given)
    if problems and strict:
        if part == 'backbone':
            _refuse_backbone(model, location, layout, expected, given)
        check_complete(model, given, location)
    fitting = OrderedDict(
        (name, given[name])
        for name, tensor in expected.items()
        if name in given and fits(tensor, given[name])
    )
    vars(fitting)['_metadata'] = getattr(given, '_metadata', None)
    model.load_state_dict(fitting, strict=False)
    report = LoadReport(location, layout, len(fitting), len(expected), tuple(sorted(new)), problems)
    _log(report, part, type(model).__name__)
    return report


def _log(report: LoadReport, part: str, name: str) -> None:
    layout = f' ({report.layout} layout)' if report.layout else ''
    norms = len({name.split('.')[1] for name in report.new})
    print_log(
        f'loaded {report.loaded} of {report.total} {part} tensors from {report.location}{layout}'
        + (f'; new: {norms} output norm{"s" if norms > 1 else ""}' if norms else ''),
        logger='current',
    )
    if report.differences:
        print_log(
            f'strict=False: {report.location} does not fit this {name}, and parts of it keep their values: '
            f'{format_differences(report.differences)}',
            logger='current',
            level=logging.WARNING,
        )


def as_location(location: str | os.PathLike[str]) -> str:
    """Return a location as a string.

    Raises:
        UsageError: It is neither a string nor a path.
    """
    if not isinstance(location, (str, os.PathLike)):
        raise UsageError(f'checkpoint={location!r}: give a path, mmmeta://, timm:// or a URL')
    return os.fspath(location)


def read(location: str | os.PathLike[str], trusted: bool = False) -> Any:
    """Read the file at a location, see :func:`~mmmeta.weights.fetch.fetch`, into main memory.

    Args:
        location (str | os.PathLike): A path, ``mmmeta://...``, ``timm://...`` or a URL.
        trusted (bool): Whether code in the file may run. Defaults to False.

    Returns:
        Any: What the file holds, see :func:`~mmmeta.weights.files.read_checkpoint`.

    Raises:
        UsageError: It cannot be fetched or read. A damaged download is removed from the cache.
    """
    location = as_location(location)
    path = fetch(location)
    try:
        return read_checkpoint(path, trusted)
    except DamagedFileError as error:
        if not is_remote(location):
            raise
        remove_from_cache(path)
        raise UsageError(
            f"the download from '{location}' was incomplete and is removed from the cache: try again "
            f'({error})'
        ) from error


def open_checkpoint(location: str | os.PathLike[str], trusted: bool = False) -> Any:
    """Read a checkpoint as MMEngine's loader gives it.

    Args:
        location (str | os.PathLike): A path, ``mmmeta://...``, ``timm://...`` or a URL.
        trusted (bool): Whether code in the file may run. Defaults to False.

    Returns:
        Any: What the file holds; of published weights, ``mmmeta://`` and ``timm://``, a dict with the tensors
        under ``state_dict``, those of a MetaFormer with our names.

    Raises:
        UsageError: It cannot be fetched or read.
    """
    checkpoint = read(location, trusted)
    if as_location(location).startswith(('mmmeta://', 'timm://')):
        convert_checkpoint(checkpoint, as_location(location))
        return {'state_dict': checkpoint['state_dict']}
    return checkpoint


def read_weights(
    location: str | os.PathLike[str], trusted: bool = False, prefix: str | None = None
) -> tuple[dict[str, Tensor], str]:
    """Read weights in any layout, and convert them to ours.

    Args:
        location (str | os.PathLike): A path, ``mmmeta://...``, ``timm://...`` or a URL.
        trusted (bool): Whether code in the file may run. Defaults to False.
        prefix (str | None): As of :func:`load`. Defaults to None.

    Returns:
        tuple[dict[str, Tensor], str]: As :func:`~mmmeta.weights.layouts.translate`.

    Raises:
        UsageError: The file cannot be fetched or read, has no MetaFormer, or a value in it is not finite.
    """
    location = as_location(location)
    state_dict = _choose(find_state_dict(read(location, trusted), location), prefix, location)
    check_finite(state_dict, location)
    return translate(state_dict, location)


def _choose(state_dict: dict[str, Tensor], prefix: str | None, source: str) -> dict[str, Tensor]:
    """The tensors of one network of several, without the prefix of their names."""
    if prefix is None:
        return state_dict
    prefix = prefix if prefix.endswith('.') else f'{prefix}.'
    chosen = {n.removeprefix(prefix): tensor for n, tensor in state_dict.items() if n.startswith(prefix)}
    networks = find_networks(state_dict)
    if not chosen and prefix == 'backbone.' and list(networks) == ['']:
        return state_dict  # a bare backbone or classifier, whose backbone has that name in our layout
    if not chosen:
        there = ', '.join(f"'{name}'" for name in networks) or 'none'
        raise UsageError(
            f"'{source}' has no tensors under prefix='{prefix}': those of its MetaFormers are {there}"
        )
    return chosen


def convert_checkpoint(checkpoint: dict[str, Any], source: str, prefix: str | None = None) -> str | None:
    """Convert a checkpoint to our own layout, in place.

    Args:
        checkpoint (dict): A checkpoint of ours, of another repository, or a bare state dict.
        source (str): Its origin, for the error.
        prefix (str | None): As of :func:`load`. Defaults to None.

    Returns:
        str | None: The layout that it was in; None if there is no MetaFormer.

    Raises:
        UsageError: It contains no tensors, or values that are not finite.
    """
    state_dict = _choose(find_state_dict(checkpoint, source), prefix, source)
    check_finite(state_dict, source)
    found = recognise(state_dict)
    # Another layout, or a backbone of ours by itself.
    if found is not None and (found[0] is not OURS or not found[1]):
        state_dict, _ = translate(state_dict, source)
        checkpoint.clear()
        print_log(f'{source}: {len(state_dict)} tensors in {found[0].name} layout', logger='current')
    checkpoint['state_dict'] = state_dict
    return found and found[0].name


def check_complete(model: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> None:
    """Reject a state dict that does not match a model exactly.

    Args:
        model (nn.Module): The model, without wrappers.
        state_dict (Mapping[str, Tensor]): Tensors to load.
        source (str): Its origin, for the error.

    Raises:
        UsageError: Tensors are missing, unexpected, of another shape or type.
    """
    own = model.state_dict()
    problems = differences(own, state_dict)
    if problems:
        raise UsageError(
            f"'{source}' is not a checkpoint of this config's model: of {len(own)} tensors "
            f'{format_differences(problems)}. Give the config that it was trained with'
        )


def check_types(model: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> None:
    """Reject tensors that have the name of a model's, and another type, such as integers.

    Args:
        model (nn.Module): The model, without wrappers.
        state_dict (Mapping[str, Tensor]): Tensors to load.
        source (str): Its origin, for the error.

    Raises:
        UsageError: There are some; PyTorch would convert them.
    """
    others = differences(model.state_dict(), state_dict).get('of another type')
    if others:
        raise UsageError(f"'{source}' has tensors of another type: {format_names(others)}. Get them again")


def check_backbone_complete(backbone: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> None:
    """Reject a state dict of a whole model whose backbone does not match, apart from its output norms.

    Args:
        backbone (nn.Module): The backbone.
        state_dict (Mapping[str, Tensor]): Tensors to load.
        source (str): Its origin, for the error.

    Raises:
        UsageError: Tensors are missing, unexpected, of another shape or type.
    """
    own, given = backbone.state_dict(), backbone_tensors(state_dict)
    new = missing_output_norms(own, given)
    problems = differences({name: tensor for name, tensor in own.items() if name not in new}, given)
    if problems:
        raise UsageError(
            f"'{source}' does not have the backbone of this config's model: of {len(own)} tensors "
            f'{format_differences(problems)}. Give weights of the same backbone, or change the config'
        )


def backbone_tensors(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the backbone in a whole model of ours, without ``backbone.`` in front."""
    prefix = 'backbone.'
    return {n.removeprefix(prefix): tensor for n, tensor in state_dict.items() if n.startswith(prefix)}


def missing_output_norms(own: Collection[str], given: Collection[str]) -> set[str]:
    """Tensors of output norms that the weights lack, as those of classifiers do.

    Args:
        own (Collection[str]): Names of a backbone's tensors.
        given (Collection[str]): Names of the tensors to load.
    """
    norms = {name.rpartition('.')[0] for name in given}
    return {name for name in own if name.startswith('norms.') and name.rpartition('.')[0] not in norms}


def fits(own: Tensor, given: Tensor) -> bool:
    """Whether a tensor of a file can take the place of one of a model: its shape, and its kind of numbers."""
    kinds = [(tensor.is_floating_point(), tensor.is_complex()) for tensor in (own, given)]
    return own.shape == given.shape and kinds[0] == kinds[1]


def differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Compare names, shapes and types.

    Args:
        own (Mapping[str, Tensor]): A model's tensors.
        given (Mapping[str, Tensor]): Those that are to be loaded.

    Returns:
        dict[str, list[str]]: What is ``'missing'``, ``'unexpected'``, ``'of another shape'`` or
        ``'of another type'``, such as integers in place of floating-point numbers; without the kinds that do
        not occur.
    """
    both = {name: (tensor, given[name]) for name, tensor in own.items() if name in given}
    problems = {
        'missing': [name for name in own if name not in given],
        'unexpected': [name for name in given if name not in own],
        'of another shape': [
            f'{name} {tuple(theirs.shape)} instead of {tuple(tensor.shape)}'
            for name, (tensor, theirs) in both.items()
            if tensor.shape != theirs.shape
        ],
        'of another type': [
            f'{name} {theirs.dtype} instead of {tensor.dtype}'.replace('torch.', '')
            for name, (tensor, theirs) in both.items()
            if tensor.shape == theirs.shape and not fits(tensor, theirs)
        ],
    }
    return {kind: names for kind, names in problems.items() if names}


def format_differences(problems: Mapping[str, Sequence[str]]) -> str:
    """Format the result of :func:`differences`."""
    return '; '.join(f'{len(names)} {kind} ({format_names(names)})' for kind, names in problems.items())


def _is_spare(name: str, own: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is of a stage after the last of ``out_indices``, or of a norm that is not in it."""
    kind, _, rest = name.partition('.')
    indices = {other.split('.')[1] for other in own if other.startswith(f'{kind}.')}
    return kind in ('norms', 'stages') and rest.partition('.')[0] not in indices


def _named_archs(backbone: nn.Module) -> dict[str, dict[str, Any]]:
    """The architectures that a backbone knows by name."""
    return backbone.named_archs() if hasattr(backbone, 'named_archs') else {}


def _refuse_backbone(
    backbone: nn.Module,
    location: str,
    layout: str | None,
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
) -> NoReturn:
    """Report what of a backbone does not fit, and the architectures that do."""
    archs, family = _named_archs(backbone), type(backbone).__name__
    _check_activation(location, family, archs, own, given)
    matching = _matching_archs(given, archs) or "none of the papers' models"
    raise UsageError(
        f"'{location}' ({layout} layout) does not fit this {family}: of {len(own)} backbone "
        f'tensors {format_differences(differences(own, given))}. It matches {matching}'
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


def _signature(state_dict: Mapping[str, Tensor]) -> tuple[Any, ...]:
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


def _check_family(location: str, backbone: nn.Module) -> None:
    """Reject weights that are known to be another family's; identity and pooling have the same tensors."""
    known, family = known_family(location), type(backbone).__name__
    families = {name.split()[0].lower(): name.split()[0] for name in _named_archs(backbone)}
    if known and family.lower() in families and known[0] != family.lower():
        raise UsageError(
            f"'{location}' is of another family than {family}: it fits {families[known[0]]} arch='{known[1]}'"
        )
