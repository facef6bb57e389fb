"""What a run may resume from: the last checkpoint of a work directory, if its content is that of the run."""

import inspect
import itertools
import math
import os
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer, SparseAdam

from mmmeta.utils.errors import UsageError, shorten
from mmmeta.utils.mmengine_private import accumulative_counts
from mmmeta.weights import check_structure, differences, format_differences, is_finite, is_metadata

from .checkpoint import from_plain
from .schedules import PROGRESS

POINTER = 'last_checkpoint'
# Information of MMEngine's hub that its checkpoint hook takes for paths of files to remove.
PATHS = ('keep_ckpt_ids', 'last_ckpt', 'best_ckpt')
# Settings of parameter groups that say how a step is computed, or that not every version of PyTorch has.
VERSIONED = {
    *('foreach', 'fused', 'capturable', 'differentiable', 'maximize', 'decoupled_weight_decay'),
    *('initial_lr', 'param_names'),
}
# Beyond these no iteration, epoch or length is meant.
MAX_COUNT = 1 << 53
MAX_SEED = 1 << 32
MT19937_WORDS = 624


def find_last_checkpoint(work_dir: str, out_dir: str | os.PathLike | None = None) -> str | None:
    """Find the checkpoint that a run in a work directory would resume from.

    MMEngine notes its path in ``last_checkpoint``. Of that the name counts, so that a work directory can be
    moved or copied.

    Args:
        work_dir (str): The work directory.
        out_dir (str | os.PathLike | None): ``out_dir`` of the checkpoint hook, for checkpoints that are
            elsewhere. Defaults to None.

    Returns:
        str | None: The checkpoint; None if there is no ``last_checkpoint``.

    Raises:
        UsageError: ``last_checkpoint`` does not name a checkpoint that is there.
    """
    pointer = os.path.join(work_dir, POINTER)
    if not os.path.lexists(pointer):
        return None
    remedy = f'give the checkpoint, --resume FILE, or remove {POINTER} to start anew'
    if not os.path.isfile(pointer):
        raise UsageError(f"'{pointer}' is not a file with the path of a checkpoint: {remedy}")
    with open(pointer, 'rb') as file:
        content = file.read(1 << 16)
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        text = ''
    name = os.path.basename(text)
    if not text.isprintable() or name in ('', '.', '..'):
        raise UsageError(f"'{pointer}' does not hold the path of a checkpoint: {remedy}")
    folder = work_dir
    absolute = os.path.abspath(work_dir)  # as the runner has it, to which MMEngine compares out_dir
    if out_dir and str(out_dir) != absolute:
        folder = f'{str(out_dir).rstrip("/")}/{os.path.basename(absolute)}'
        if '://' in folder or '://' in text:  # in a storage that is not a file system
            if os.path.dirname(text) == folder:
                return text
            raise UsageError(f"'{pointer}' names '{text}', which is not in '{folder}': {remedy}")
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        raise UsageError(f"'{pointer}' names '{text}', and there is no '{name}' in '{folder}': {remedy}")
    return path


def remove_paths(runtime_info: dict[str, Any]) -> list[str]:
    """Remove what MMEngine would take for paths of files to remove from the information of a hub.

    Args:
        runtime_info (dict): It is changed.

    Returns:
        list[str]: The file names of the best checkpoints among them.
    """
    keys = [key for key in runtime_info if key in PATHS or str(key).startswith('best_ckpt_')]
    values = {key: runtime_info.pop(key) for key in keys}
    best = [value for key, value in values.items() if key.startswith('best_ckpt') and isinstance(value, str)]
    return [os.path.basename(path)[-100:] for path in best]


def check_resumable(runner: Runner, model: nn.Module, checkpoint: Any, source: str) -> None:
    """Check a checkpoint before a run resumes from it: its values, and that it is of the same config.

    Checked are the kinds of all values that are acted on; weights, averaged weights and gradients against the
    model; the states of optimisers and schedulers against those of the run; the classes; and that numbers are
    finite. A config in the metadata, which MMEngine would run, is removed.

    Args:
        runner (Runner): The runner, whose optimiser and schedulers are built.
        model (nn.Module): Its model, without wrappers.
        checkpoint (dict): The checkpoint; plain values in it become MMEngine's objects.
        source (str): Its origin, for the error.

    Raises:
        UsageError: It does not fit. Nothing has been loaded.
    """
    try:
        check_structure(checkpoint, source)
        _check(isinstance(checkpoint, dict), 'it is not a dict')
        for key, value in checkpoint.items():
            checkpoint[key] = from_plain(value)
        _check_meta(runner, checkpoint.get('meta'))
        _check_weights(runner, model, checkpoint)
        _check_optimizers(runner, checkpoint)
        _check_schedulers(runner, checkpoint.get('param_schedulers'))
        _check_hub(checkpoint.get('message_hub'))
        _check_random_states(checkpoint.get('random_states'))
        _check_gradients(model, checkpoint.get('gradients'))
    except _MisfitError as misfit:
        raise UsageError(
            f"cannot resume from '{source}': {misfit}. Resume with the config and the file of that run, or "
            f"start from its weights alone: load_from='{source}' instead of --resume"
        ) from None


class _MisfitError(Exception):
    """Why a run cannot be resumed from a checkpoint."""


def _check(condition: bool, problem: str) -> None:
    if not condition:
        raise _MisfitError(problem)


def _is_count(value: Any, limit: int = MAX_COUNT) -> bool:
    value = value.item() if isinstance(value, np.generic) else value
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def _is_number(value: Any) -> bool:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 1 << 63


def _check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    for name, tensor in tensors.items():
        _check(is_finite(tensor), f'{name} in its {where} has values that are not finite numbers')


def _check_meta(runner: Runner, meta: Any) -> None:
    _check(isinstance(meta, dict), 'it has no meta, which holds the iteration: it is not of a training run')
    meta.pop('config', None)  # MMEngine would run it
    for key in ('epoch', 'iter'):
        value = str(meta.get(key))[:50]
        _check(_is_count(meta.get(key)), f'{key} in its meta is {value}, not the number of those completed')
    for key, limit in dict(seed=MAX_SEED, sampler_seed=MAX_SEED, epoch_length=MAX_COUNT).items():
        value = meta.get(key)
        _check(
            value is None or _is_count(value, limit), f'{key} in its meta is {str(value)[:50]}, not a number'
        )
    loop = runner.train_loop
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    done, planned = (meta['epoch'], loop.max_epochs) if by_epoch else (meta['iter'], loop.max_iters)
    unit = 'epochs' if by_epoch else 'iterations'
    _check(done <= planned, f'it has been trained for {done} {unit}, and the config trains {planned}')
    dataset = getattr(getattr(loop, 'dataloader', None), 'dataset', None)
    _check_classes(getattr(dataset, 'metainfo', None), meta.get('dataset_meta'))


def _check_classes(own: Any, given: Any) -> None:
    _check(given is None or isinstance(given, dict), 'dataset_meta in its meta is not a dict')
    own, given = (part.get('classes') if isinstance(part, Mapping) else None for part in (own, given))
    if own is None or given is None:
        return
    _check(isinstance(given, (list, tuple)), 'the classes in its meta are not a list of names')
    own, given = ([str(name)[:50] for name in names] for names in (own, given))
    _check(len(own) == len(given), f'it has {len(given)} classes, and the data set has {len(own)}')
    pairs = enumerate(zip(own, given, strict=True))
    others = [f'{i} {theirs} instead of {name}' for i, (name, theirs) in pairs if name != theirs]
    _check(not others, f'of its {len(own)} classes {len(others)} are others ({shorten(others, 3)})')


def _check_weights(runner: Runner, model: nn.Module, checkpoint: dict) -> None:
    own = model.state_dict()
    expected = {'state_dict': (own, "the config's model")}
    averaged = [hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model')]
    if 'ema_state_dict' in checkpoint:
        _check(bool(averaged), 'it has averaged weights, and the config has no EMAHook')
        expected['ema_state_dict'] = (averaged[0].state_dict(), "the config's averaged model")
    for key, (tensors, name) in expected.items():
        given: Any = checkpoint.get(key)
        _check(isinstance(given, dict), f'it has no {key}: it is not of a training run')
        _check(all(isinstance(value, Tensor) for value in given.values()), f'{key} holds more than tensors')
        given = {str(k).removeprefix('module.') if key == 'state_dict' else k: v for k, v in given.items()}
        problems = differences(tensors, given)
        _check(
            not problems,
            f'its {key} is not that of {name}: of {len(tensors)} tensors {format_differences(problems)}',
        )
        _check_finite(given, key)
    metadata = getattr(checkpoint['state_dict'], '_metadata', None)
    if metadata is not None and not is_metadata(metadata):
        del checkpoint['state_dict']._metadata


def _check_optimizers(runner: Runner, checkpoint: dict) -> None:
    wrapper = runner.optim_wrapper
    given: Any = checkpoint.get('optimizer')
    kinds = optimizer_kinds(wrapper)
    noted = checkpoint['meta'].get('optimizer', kinds)
    _check(noted == kinds, f'it was trained with {shorten([noted])[:100]}, and the config has {kinds}')
    _check(isinstance(given, dict) and bool(given), 'it has no state of an optimizer')
    if isinstance(wrapper, OptimWrapperDict):
        wrappers = wrapper.optim_wrappers
        _check(
            given.keys() == wrappers.keys(),
            f'its optimizers are {shorten(given)}, and those of the config {shorten(wrappers)}',
        )
        for name, inner in wrappers.items():
            _check_optimizer(inner, given[name], checkpoint['meta']['iter'])
    else:
        _check_optimizer(wrapper, given, checkpoint['meta']['iter'])


def optimizer_kinds(wrapper: OptimWrapper | OptimWrapperDict) -> str:
    """The names of the classes of a run's optimisers, which a checkpoint notes."""
    wrappers = wrapper.optim_wrappers.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return ', '.join(type(inner.optimizer).__name__ for inner in wrappers)


def _check_optimizer(wrapper: OptimWrapper, given: Any, iteration: int) -> None:
    """Check settings of groups and states of parameters; PyTorch believes both."""
    optimizer, name = wrapper.optimizer, type(wrapper.optimizer).__name__
    _check(isinstance(given, dict), 'its state of an optimizer is not a dict')
    groups, states = given.get('param_groups'), given.get('state')
    _check(isinstance(groups, list) and isinstance(states, dict), 'it has no state of an optimizer')
    own = wrapper.state_dict()
    count = len(own['param_groups'])
    _check(
        len(groups) == count,
        f'its optimizer has {len(groups)} groups of parameters, and that of the config {count}',
    )
    numbers = []
    for i, (ours, theirs) in enumerate(zip(own['param_groups'], groups, strict=True)):
        _check_settings(
            ours, theirs, f'group {i} of its parameters', name, counts=not _is_of_torch(optimizer)
        )
        members = theirs.get('params')
        _check(
            isinstance(members, list)
            and all(map(_is_count, members))
            and len(members) == len(ours['params']),
            f'group {i} of its parameters is not that of the config, which has {len(ours["params"])}',
        )
        numbers += members
    _check(len(set(numbers)) == len(numbers) and {*states} <= {*numbers}, 'its groups of parameters overlap')
    extra = given.get('base_param_settings')
    if extra is not None:
        _check('base_param_settings' in own, 'it has base_param_settings, and the config no paramwise_cfg')
        _check_settings(own['base_param_settings'], extra, 'base_param_settings of its optimizer', name)
    if 'loss_scaler' in own and 'loss_scaler' in given:
        _check(is_like(own['loss_scaler'], given['loss_scaler']), 'the state of its loss scaler is malformed')
    members = itertools.chain.from_iterable(group['params'] for group in optimizer.param_groups)
    settings = itertools.chain.from_iterable([group] * len(group['params']) for group in groups)
    expected: dict[tuple, dict[str, Any] | None] = {}
    for number, parameter, group in zip(numbers, members, settings, strict=True):
        if number in states:
            kind = (parameter.ndim, parameter.dtype, parameter.device, *map(_structure, group.items()))
            if kind not in expected:
                expected[kind] = _state_of_a_step(optimizer, group, parameter)
            _check_state(expected[kind], states[number], parameter, f'parameter {number}', name)
    # Before the first step of accumulated gradients there is none.
    steps = iteration // accumulative_counts(wrapper)
    if steps and not states and 'loss_scaler' not in own:  # which leaves out steps
        first = optimizer.param_groups[0]['params'][0]
        _check(not _state_of_a_step(optimizer, groups[0], first), 'it has no state of an optimizer')


def _is_of_torch(optimizer: Optimizer) -> bool:
    return type(optimizer).__module__.startswith('torch.optim')


def _check_settings(own: Mapping, given: Any, where: str, name: str, counts: bool = False) -> None:
    """Check settings; other packages' optimizers, such as Lamb, add counts when they step."""
    _check(isinstance(given, dict), f'{where} is not a dict')
    added = {key for key, value in given.items() if key not in own and counts and _is_number(value)}
    odd = {str(key) for key in ({*own} ^ {*given}) - VERSIONED - added}
    _check(not odd, f'{where} is not of {name}: they differ in {shorten(sorted(odd))[:100]}')
    for key, value in own.items():
        if key in given and key != 'params':
            value = tuple(value) if isinstance(value, list) else value  # as long, unlike those of a schedule
            _check(is_like(value, given[key]), f'{key} of {where} is {str(given[key])[:50]}')


def _structure(setting: tuple[str, Any]) -> tuple[str, Any]:
    """A setting of a group as far as the entries of a state may depend on it."""
    key, value = setting
    return key, bool(value) if isinstance(value, (bool, int, float)) else None


def _state_of_a_step(optimizer: Optimizer, group: Mapping, parameter: Tensor) -> dict[str, Any] | None:
    """The state that a step gives to a parameter with two elements a side; None if that is not known."""
    kind = type(optimizer)
    if not _is_of_torch(optimizer) or kind in (LBFGS, SparseAdam):
        return None
    small = nn.Parameter(torch.zeros((2,) * parameter.ndim, dtype=parameter.dtype, device=parameter.device))
    small.grad = torch.zeros_like(small)
    known = {*inspect.signature(kind).parameters} - {'params'}
    try:
        probe = kind([small], **{key: value for key, value in group.items() if key in known})
    except (RuntimeError, ValueError) as error:  # as PyTorch refuses settings
        raise _MisfitError(f'the settings of its optimizer are refused: {error}') from None
    probe.step()
    return dict(probe.state[small])


def _check_state(expected: dict | None, given: Any, parameter: Tensor, where: str, name: str) -> None:
    _check(isinstance(given, dict), f'the state of {where} is not a dict')
    tensors = {str(key): value for key, value in given.items() if isinstance(value, Tensor)}
    _check_finite(tensors, f'state of {where}')
    if expected is None:
        return
    odd = sorted(map(str, {*expected} ^ {key for key, value in given.items() if value is not None}))
    _check(not odd, f'the state of {where} is not that of {name}: it differs in {shorten(odd)[:100]}')
    for key, value in expected.items():
        problem = f'{key} of {where} is not that of {name}'
        if not isinstance(value, Tensor):
            _check(is_like(value, given[key]), problem)
        elif value.ndim == 0 and parameter.ndim:  # a count, a number in earlier versions of PyTorch
            count = given[key]
            count = count.item() if isinstance(count, Tensor) and count.numel() == 1 else count
            _check(_is_number(count) and (key != 'step' or count >= 0), problem)
        else:
            # Others are factors, such as Adafactor's.
            shape = parameter.shape if value.shape == (2,) * parameter.ndim else None
            theirs = given[key]
            _check(
                isinstance(theirs, Tensor)
                and theirs.dtype.is_floating_point == value.dtype.is_floating_point
                and (theirs.shape == shape if shape is not None else theirs.ndim == value.ndim),
                f'{problem}, of shape {tuple(parameter.shape)}',
            )


def is_like(own: Any, given: Any) -> bool:
    """Whether a value may take the place of a run's own: its kind, and finite numbers.

    Args:
        own (Any): A value of a state: a number, a string, a tensor, or dicts and lists of them.
        given (Any): That of a checkpoint.
    """
    if isinstance(own, bool):
        return given is None or isinstance(given, bool)
    if own is None:
        return given is None or isinstance(given, bool) or _is_number(given)
    if isinstance(own, (int, float)):
        if isinstance(given, Tensor) and given.numel() == 1:
            given = given.item()
        return _is_number(given)
    if isinstance(own, Tensor):
        if isinstance(given, Tensor):
            return given.shape == own.shape and is_finite(given)
        return own.numel() == 1 and _is_number(given)
    if isinstance(own, Mapping):
        # Milestones are counted by other numbers; named values by the same.
        named = all(isinstance(key, str) for key in own)
        if not isinstance(given, Mapping) or (named and own and own.keys() != given.keys()):
            return False
        return all(is_like(own[key] if named and own else 0, value) for key, value in given.items())
    if isinstance(own, (list, tuple)):
        # Tuples of a Python config are lists in one of JSON or YAML.
        if not isinstance(given, (list, tuple)) or (isinstance(own, tuple) and len(own) != len(given)):
            return False
        return all(is_like(own[min(i, len(own) - 1)] if own else 0, v) for i, v in enumerate(given))
    return isinstance(given, type(own))


def _check_schedulers(runner: Runner, given: Any) -> None:
    own = runner.param_schedulers
    if own is None:
        return
    if isinstance(own, dict):
        same = isinstance(given, dict) and given.keys() == own.keys()
        _check(same, 'its schedules are not those of the config')
        pairs = [(own[name], given[name]) for name in own]
    else:
        pairs = [(own, given)]
    for ours, theirs in pairs:
        _check(isinstance(theirs, list), f'it has no schedules of parameters, and the config {len(ours)}')
        for i, (scheduler, state) in enumerate(zip(ours, theirs, strict=False)):
            expected, name = scheduler.state_dict(), type(scheduler).__name__
            _check(isinstance(state, dict), f'its schedule {i} is not a dict')
            for key in PROGRESS:  # others are compared, and replaced by those of the config
                _check(
                    key not in state or is_like(expected[key], state[key]),
                    f'{key} of its schedule {i} does not fit that of the config, {name}',
                )


def _check_hub(hub: Any) -> None:
    _check(isinstance(hub, dict), 'it has no message_hub: it is not of a training run')
    parts = [hub.get(key) for key in ('log_scalars', 'runtime_info', 'resumed_keys')]
    _check(
        all(isinstance(part, dict) and all(isinstance(key, str) for key in part) for part in parts),
        'its message_hub is malformed',
    )
    scalars, information, resumed = parts
    _check(
        all(isinstance(value, HistoryBuffer) for value in scalars.values()),
        'log_scalars in its message_hub are not histories of numbers',
    )
    flags = all(isinstance(value, bool) for value in resumed.values())
    _check(flags, 'resumed_keys in its message_hub are malformed')
    scores = {key: value for key, value in information.items() if key.startswith('best_score')}
    for key, value in scores.items():
        _check(_is_number(value), f'{key} in its message_hub is {str(value)[:50]}, not a number')


def _check_random_states(states: Any) -> None:
    """Check the states of generators: NumPy believes positions, and reads beyond its words."""
    if states is None:
        return
    problem = 'its states of random generators are malformed'
    _check(isinstance(states, list) and bool(states), problem)
    for state in states:
        try:
            version, words, gauss = state['python']
            random.Random().setstate((version, tuple(words.tolist()), gauss))
            numpy_state, inner = state['numpy'], state['numpy']['state']
            inner = dict(inner, key=inner['key'].astype(np.uint32))
            np.random.RandomState().set_state(dict(numpy_state, state=inner))
            torch.Generator().set_state(state['torch'].cpu())
            cuda = state['cuda']
        except (AttributeError, LookupError, OverflowError, RuntimeError, TypeError, ValueError):
            raise _MisfitError(problem) from None
        _check(gauss is None or _is_number(gauss), problem)
        _check(inner['key'].shape == (MT19937_WORDS,) and _is_count(inner['pos'], MT19937_WORDS + 1), problem)
        _check(cuda is None or (isinstance(cuda, Tensor) and cuda.dtype == torch.uint8), problem)
        if cuda is not None and torch.cuda.is_available():
            _check(cuda.shape == torch.cuda.get_rng_state().shape, problem)


def _check_gradients(model: nn.Module, gradients: Any) -> None:
    if gradients is None:
        return
    _check(isinstance(gradients, list), 'its accumulated gradients are not a list')
    own = dict(model.named_parameters())
    for given in gradients:
        _check(
            isinstance(given, dict) and all(isinstance(value, Tensor) for value in given.values()),
            'its accumulated gradients are not tensors',
        )
        problems = differences({name: own[name] for name in own if name in given}, given)
        _check(not problems, f'its accumulated gradients do not fit: {format_differences(problems)}')
        _check_finite(given, 'accumulated gradients')
