"""Processes that join for a run: they meet, compare what they are about to run, and watch each other."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import all_gather_object, broadcast_object_list, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmeta.registry import HOOKS
from mmmeta.utils.errors import UsageError, shorten
from mmmeta.utils.mmengine_private import checkpoint_of
from mmmeta.utils.peers import Watch
from mmmeta.utils.rendezvous import Meeting, check_reachable, host_name
from mmmeta.utils.resources import PACKAGE

from .checkpoint_hook import CheckpointHook
from .records import collect_versions, flatten

# Keys of a config that may differ between processes: files, whose content is compared, and what is shown.
OWN_KEYS = (
    *('work_dir', 'load_from', 'resume', 'launcher', 'console'),
    *('visualizer', 'vis_backends', 'experiment_name'),
)
# Versions that may differ.
OWN_VERSIONS = ('python', 'timm')
# Ports for jobs of Slurm: below those that a system gives away by itself.
FIRST_PORT, NUM_PORTS = 20000, 10000
# The end of a checkpoint that has the checksums of all its tensors.
DIRECTORY_BYTES = 1 << 22

_watch: Watch | None = None


def _variable(name: str, launcher: str) -> str:
    value = os.environ.get(name)
    if not value:
        script = {'pytorch': 'tools/dist_*.sh', 'slurm': 'tools/slurm_*.sh'}.get(launcher, 'mpirun')
        raise UsageError(f'--launcher {launcher} is for processes that {script} starts: {name} is not set')
    return value


def first_host(nodes: str) -> str:
    """Return the first host of a list in Slurm's form, such as ``n[1-2,7],m3``.

    Args:
        nodes (str): The list.
    """
    first = re.match(r'(?:[^,\[]|\[[^\]]*\])*', nodes)
    return re.sub(r'\[([^\],-]+)[^\]]*\]', r'\1', first[0] if first else nodes)


def _set_environment(launcher: str) -> None:
    """Give the variables of other launchers the names of torchrun's."""
    if launcher == 'slurm':
        names = dict(RANK='SLURM_PROCID', WORLD_SIZE='SLURM_NTASKS', LOCAL_RANK='SLURM_LOCALID')
        nodes = os.environ.get('SLURM_STEP_NODELIST') or _variable('SLURM_NODELIST', launcher)
        job, step = (int(os.environ.get(f'SLURM_{name}_ID') or 0) for name in ('JOB', 'STEP'))
        address, port = first_host(nodes), FIRST_PORT + (10 * job + step) % NUM_PORTS
    elif launcher == 'mpi':
        names = {
            name: f'OMPI_COMM_WORLD_{part}'
            for name, part in dict(RANK='RANK', WORLD_SIZE='SIZE', LOCAL_RANK='LOCAL_RANK').items()
        }
        address, port = '127.0.0.1', 29500
    else:
        names = {name: name for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')}
        address, port = '', 0
    for name, source in names.items():
        os.environ[name] = _variable(source, launcher)
    os.environ.setdefault('MASTER_ADDR', address)
    os.environ.setdefault('MASTER_PORT', str(port))


def _node() -> str:
    """A name of the node of this process; two of them may be on one machine."""
    return next(filter(None, map(os.environ.get, ('GROUP_RANK', 'SLURM_NODEID'))), host_name())


def join(cfg: Config) -> None:
    """Let the processes of a run meet, and create their process group.

    Each says for whom it waits. They compare devices, versions, code and config, see whether their machines
    reach each other, and from then on watch each other: when one is gone, the others end
    within ``PEER_TIMEOUT`` seconds (60).

    Args:
        cfg (Config): The config, whose ``launcher`` says what has started them; ``'none'`` does nothing.
            ``env_cfg.dist_cfg.timeout`` is the timeout of the process group in seconds.

    Raises:
        UsageError: One is missing, differs, or is not reached.
    """
    global _watch
    launcher, options = cfg.get('launcher', 'none'), dict((cfg.get('env_cfg') or {}).get('dist_cfg') or {})
    device = get_device()
    others = options.pop('init_backend', 'torch') != 'torch' or device not in ('cpu', 'cuda')
    if launcher == 'none' or dist.is_initialized() or others:  # which MMEngine connects
        return
    seconds = options.pop('timeout', None)
    if seconds is not None and (
        isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds <= 0
    ):
        raise UsageError(f'env_cfg.dist_cfg.timeout={seconds!r}: give a number of seconds')
    _set_environment(launcher)
    if 'port' in options:
        os.environ['MASTER_PORT'] = str(options.pop('port'))
    rank, size, local_rank = (int(os.environ[name]) for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'))
    meeting = Meeting(
        *('process', rank, size, os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])),
        variables=('MASTER_ADDR', 'PORT' if launcher == 'pytorch' else 'MASTER_PORT'),
        is_server=rank == 0 and os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True',
        is_quiet=local_rank > 0,
    )
    meeting.connect()
    _check_same(meeting, cfg, device)
    nodes = meeting.agree('nodes', _node(), lambda values: str(len(set(values))))
    if int(nodes) > 1:
        check_reachable(meeting, _node(), local_rank == 0)
    if device == 'cuda':
        count = torch.cuda.device_count()
        if local_rank >= count:
            raise UsageError(
                f'process {rank} is number {local_rank} on {host_name()}, counted from 0, and sees {count} '
                'GPUs: start as many processes on a node as there are GPUs that all of them see'
            )
        torch.cuda.set_device(local_rank)
    backend = options.pop('backend', 'nccl') if device == 'cuda' else 'gloo'
    options.pop('backend', None)
    timeout = None if seconds is None else timedelta(seconds=seconds)
    store = dist.PrefixStore('mmmeta/group', meeting.store)
    store.set_timeout(timedelta(seconds=meeting.timeout))
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout, **options)
    except RuntimeError as error:
        interface = os.environ.get('GLOO_SOCKET_IFNAME', 'not set')
        raise UsageError(
            f'{host_name()}: {backend} cannot connect the {size} processes ({str(error).splitlines()[0]}): '
            f'see that no firewall is between the machines, and set GLOO_SOCKET_IFNAME ({interface}) and '
            'NCCL_SOCKET_IFNAME to an interface that all machines reach'
        ) from error
    _watch = Watch(meeting)


def _check_same(meeting: Meeting, cfg: Config, device: str) -> None:
    """Check that all processes are about to run the same, which begins with the process group's kind."""
    keys = {key: value for key, value in cfg.to_dict().items() if key not in OWN_KEYS}
    leaves = {key: _as_text(value) for key, value in flatten(keys).items()}
    versions = {f'the version of {k}': v for k, v in collect_versions().items() if k not in OWN_VERSIONS}
    facts = dict(versions, **{'the hash of the code of mmmeta': _hash_of_code(), 'the device': device})
    digest = hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()
    own = json.dumps(dict(host=host_name(), facts=facts, config=digest))

    def judge(values: list[str]) -> str:
        members = [json.loads(value) for value in values]
        problem = find_difference([(m['host'], m['facts']) for m in members])
        return problem or ('config' if len({m['config'] for m in members}) > 1 else '')

    problem = meeting.agree('facts', own, judge)
    if problem == 'config':  # which is large, and sent only where it differs
        own = json.dumps([host_name(), {f'{key} of the config': value for key, value in leaves.items()}])
        problem = meeting.agree(
            'config', own, lambda values: find_difference([tuple(json.loads(value)) for value in values])
        )
    if problem:
        raise UsageError(f'{problem}: start all processes with the same config, options and installation')


def _as_text(value: Any) -> str:
    """A value of a config, without addresses in memory."""
    return json.dumps(value, default=lambda part: getattr(part, '__qualname__', type(part).__qualname__))


def _hash_of_code() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(PACKAGE).rglob('*.py')):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def find_difference(members: list[tuple[str, dict[str, Any]]]) -> str:
    """Find what differs between processes.

    Args:
        members (list[tuple[str, dict]]): Host and facts of each process, in the order of their ranks.

    Returns:
        str: The first fact that differs, with hosts and values; empty if there is none.
    """
    names = list(dict.fromkeys(name for _, facts in members for name in facts))
    different = [name for name in names if len({facts.get(name) for _, facts in members}) > 1]
    if not different:
        return ''
    name = different[0]
    ranks: dict[Any, list[str]] = {}
    for rank, (host, facts) in enumerate(members):
        ranks.setdefault(facts.get(name), []).append(f'process {rank} on {host}')
    values = '; '.join(f'{shorten(group, 3)}: {value}' for value, group in ranks.items())
    more = f' (and {len(different) - 1} more differ)' if len(different) > 1 else ''
    return f'the processes do not agree on {name}{more}, {values}'


@contextmanager
def joined(cfg: Config) -> Iterator[None]:
    """Join, see :func:`join`, and leave at the end of a ``with`` block.

    Args:
        cfg (Config): The config.

    Raises:
        UsageError: As there; or another process is gone, on which this one has waited.
    """
    global _watch
    join(cfg)
    try:
        yield
    except SystemExit:  # stopped by a signal, with the others
        leave()
        raise
    except RuntimeError as error:
        is_of_group = isinstance(error, dist.DistError) or 'gloo' in str(error)
        lost = _watch.wait_for_loss(10) if _watch and is_of_group else ''
        if not lost:
            raise
        raise UsageError(lost) from error
    leave()


def leave() -> None:
    """Let the others go on without this process."""
    global _watch
    if _watch is not None:
        _watch.leave(farewell=True)
    _watch = None


def explain_loss(explain: Callable[[str], str]) -> None:
    """Set what is called with the sentence about a process that is gone, and returns the one to report."""
    if _watch is not None:
        _watch.explain = explain


@HOOKS.register_module()
class AgreementHook(Hook):
    """End a run whose processes do not begin with the same: checkpoint, iteration, classes, number of images.

    Processes whose work directory is another one than that of the first say so. When a process is gone, the
    last checkpoint is named.
    """

    # After checkpoints are loaded; before anything that communicates while training.
    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Compare."""
        if get_world_size() == 1:
            return
        explain_loss(lambda message: self._explain(runner, message))
        dataset = getattr(getattr(runner.train_loop, 'dataloader', None), 'dataset', None)
        classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
        count = getattr(dataset, '__len__', None)  # which streams have not
        facts = {
            'the checkpoint to start from': _identify(checkpoint_of(runner)),
            'the iteration to start at': runner.iter,
            'the number of classes': None if classes is None else len(classes),
            'the number of training images': None if count is None else count(),
        }
        members = all_gather_object((host_name(), facts))
        problem = find_difference(members)
        if problem:
            raise UsageError(
                f'{problem}: let all machines share the work directory and the data, or start all from the '
                'same file with --resume FILE'
            )
        if len({host for host, _ in members}) > 1:
            self._check_shared(runner)

    def _check_shared(self, runner: Runner) -> None:
        name = [f'.shared_{os.urandom(6).hex()}']
        if get_rank() == 0:
            Path(runner.work_dir, name[0]).touch()
        broadcast_object_list(name)
        path = Path(runner.work_dir, name[0])
        hosts = all_gather_object((host_name(), path.exists()))
        if get_rank() == 0:
            path.unlink()
        apart = sorted({host for host, is_there in hosts if not is_there})
        if apart:
            runner.logger.warning(
                f"the work directory '{runner.work_dir}' of {shorten(apart)} is not that of {hosts[0][0]}, "
                'which alone has checkpoints there: let all machines share it, or copy a checkpoint to all '
                'of them before --resume FILE'
            )

    @staticmethod
    def _explain(runner: Runner, message: str) -> str:
        last = next((hook.last_complete for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        kept = (
            f"the last checkpoint is '{last}', from which --resume goes on"
            if last
            else 'there is no checkpoint'
        )
        message = f'{message}; {kept}'
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.FileHandler):  # the screen has it at the end
                handler.handle(logging.makeLogRecord(dict(levelname='ERROR', levelno=40, msg=message)))
        return message


def _identify(location: str | None) -> str:
    """Name, size and a hash of a checkpoint; the location itself where it is not a file."""
    path = Path(location or '')
    if location is None or not path.is_file():
        return location or 'none'
    with open(path, 'rb') as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - DIRECTORY_BYTES))
        digest = hashlib.sha256(file.read()).hexdigest()[:12]
    return f'{path.name} of {size} bytes, hash {digest}'
