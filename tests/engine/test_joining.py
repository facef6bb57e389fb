"""Processes that meet, compare what they run, and watch each other: each is a fork of this one."""

import multiprocessing
import os
import signal
import socket
import time
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from mmengine.config import Config

from mmmeta.engine import joining
from mmmeta.engine.joining import AgreementHook, find_difference, first_host, join, joined
from mmmeta.utils import peers, rendezvous
from mmmeta.utils.errors import UsageError
from mmmeta.utils.rendezvous import address_of, interface_of

FORK = multiprocessing.get_context('fork')


@pytest.fixture
def port():
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


def _run(function, rank, queue, variables):
    os.environ.update(variables)
    try:
        queue.put((rank, function(rank)))
    except UsageError as error:
        queue.put((rank, str(error)))


@pytest.fixture
def start(port, tmp_path):
    """Start a function of the rank in several processes of Slurm's; their ends, and what each returns."""
    processes, queue = [], FORK.SimpleQueue()

    def run(function, ranks=(0, 1), wait=True, **variables):
        for rank in ranks:
            names = dict(PROCID=rank, NTASKS=2, LOCALID=0, NODEID=rank, NODELIST='localhost')
            own = {f'SLURM_{name}': str(value) for name, value in names.items()}
            own |= dict(SLURMD_NODENAME=f'n{rank}', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
            own |= dict(RENDEZVOUS_TIMEOUT='20') | variables
            processes.append(FORK.Process(target=_run, args=(function, rank, queue, own)))
            processes[-1].start()
        if not wait:
            return processes
        results = [queue.get() for _ in ranks]
        return [result for _, result in sorted(results)]

    yield run
    for process in processes:
        process.kill()
        process.join()


def config(**keys):
    return Config(dict(launcher='slurm', **keys))


def test_they_meet_and_communicate(start):
    def run(rank):
        with joined(config(work_dir=str(rank))):  # which may differ
            values = [None, None]
            dist.all_gather_object(values, rank)
        return values, os.environ['GLOO_SOCKET_IFNAME']

    assert start(run) == [([0, 1], 'lo')] * 2


@pytest.mark.parametrize(
    ('keys', 'message'),
    [
        (lambda rank: dict(rate=0.001 * (1 + 4 * rank)), 'rate of the config, process 0 on n0: 0.001; '),
        (lambda rank: dict(a=dict(b=[rank])), 'a.b of the config, process 0 on n0: [0]; '),
    ],
)
def test_other_configs_are_refused_on_all(start, keys, message):
    results = start(lambda rank: join(config(**keys(rank))))
    assert results[0] == results[1]
    assert message in results[0] and results[0].startswith('the processes do not agree on ')


def test_another_version_is_refused(start, monkeypatch):
    def run(rank):
        joining.collect_versions = lambda: dict(torch=f'2.{rank}', python=f'3.{rank}')
        join(config())

    assert 'the version of torch, process 0 on n0: 2.0; process 1 on n1: 2.1: start all' in start(run)[1]


def test_one_that_is_missing_is_named(start):
    (message,) = start(lambda rank: join(config()), ranks=(0,), RENDEZVOUS_TIMEOUT='1')
    assert message.startswith('n0: waiting for process 1: 1 of 2 are at 127.0.0.1:')
    assert 'after 1 s: start all 2, ' in message and message.endswith('with RENDEZVOUS_TIMEOUT=SECONDS')


def test_an_address_that_refuses_is_named(start, port, capfd, monkeypatch):
    monkeypatch.setattr(rendezvous, 'INTERVAL', 0.3)
    (message,) = start(lambda rank: join(config()), ranks=(1,), RENDEZVOUS_TIMEOUT='1')
    tried = f'n1: no answer at 127.0.0.1:{port} from 127.0.0.1 (lo) (Connection refused)'
    assert message.startswith(f'{tried} after 1 s: start the run there as well')
    assert f'{tried}, 0 s of 1\n' in capfd.readouterr().err


def test_a_name_that_is_not_known(start):
    (message,) = start(lambda rank: join(config()), ranks=(1,), MASTER_ADDR='no-such-host.invalid')
    assert message.startswith('MASTER_ADDR=no-such-host.invalid is not known to n1')


def test_an_interface_that_is_not_there(start):
    messages = start(lambda rank: join(config()), GLOO_SOCKET_IFNAME='eth77')
    assert all('GLOO_SOCKET_IFNAME=eth77: n0 has no such interface' in message for message in messages)


def test_a_machine_that_is_not_reached(start, monkeypatch):
    """A listener that is closed stands for an interface behind which nobody is."""
    monkeypatch.setattr(rendezvous.socket, 'create_server', _closed)
    messages = start(lambda rank: join(config()))
    assert messages[0] == messages[1]
    assert messages[0].startswith('n0 does not reach n1 at 127.0.0.1, its interface lo (Connection refused)')


def _closed(address):
    sock = socket.socket()
    sock.bind(address)
    return sock


def test_the_ports_of_jobs(monkeypatch):
    names = dict(PROCID=0, NTASKS=1, LOCALID=0, STEP_NODELIST='node[07-09]', JOB_ID=123456, STEP_ID=2)
    for name, value in names.items():
        monkeypatch.setenv(f'SLURM_{name}', str(value))
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    joining._set_environment('slurm')
    assert (os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']) == ('node07', '24562')
    monkeypatch.delenv('SLURM_PROCID')
    with pytest.raises(UsageError, match=r'processes that tools/slurm_\*\.sh starts: SLURM_PROCID is not'):
        joining._set_environment('slurm')


@pytest.mark.parametrize(
    ('nodes', 'first'),
    [('n1', 'n1'), ('n[1-2,7],m3', 'n1'), ('m3,n[1-2]', 'm3'), ('r[02,4]n[09-10]', 'r02n09')],
)
def test_the_first_host_of_a_list(nodes, first):
    assert first_host(nodes) == first


def test_one_that_is_killed_ends_the_others(start, capfd, tmp_path):
    """While they wait for it, with the last checkpoint."""

    def run(rank):
        peers.GRACE = peers.MAIN_GRACE = 0.3
        with joined(config()):
            joining.explain_loss(lambda message: f'{message}; the last checkpoint is iter_7.pth')
            (tmp_path / str(rank)).touch()
            if rank == 1:
                time.sleep(60)
            os.read(os.pipe()[0], 1)  # in C, as a communication that waits

    processes = start(run, wait=False)
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.05)
    begin = time.monotonic()
    os.kill(processes[1].pid, signal.SIGKILL)
    processes[0].join(30)
    assert processes[0].exitcode == 1 and time.monotonic() - begin < 20
    assert capfd.readouterr().err == (
        'error: process 1 on n1 is gone (it has ended), and the run cannot go on without it; '
        'the last checkpoint is iter_7.pth\n'
    )


def test_what_differs():
    members = [('a', dict(x=1, y=2)), ('b', dict(x=1, y=3)), ('b', dict(x=1, y=3))]
    assert find_difference(members) == (
        'the processes do not agree on y, process 0 on a: 2; process 1 on b, process 2 on b: 3'
    )
    assert find_difference(members[1:]) == ''


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """A run on two hosts; what the second one says is given."""
    (tmp_path / 'iter_3.pth').write_bytes(b'weights')
    dataset = SimpleNamespace(metainfo=dict(classes=('a', 'b')))
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))
    logger = SimpleNamespace(warnings=[])
    logger.warning = logger.warnings.append
    runner = SimpleNamespace(train_loop=loop, iter=3, hooks=[], work_dir=str(tmp_path), logger=logger)
    runner._load_from = str(tmp_path / 'iter_3.pth')
    monkeypatch.setattr(joining, 'get_world_size', lambda: 2)
    monkeypatch.setattr(joining, 'get_rank', lambda: 0)
    monkeypatch.setattr(joining, 'broadcast_object_list', lambda values: None)
    monkeypatch.setattr(joining, 'host_name', lambda: 'n1')

    def answer(change, sees_folder):
        def gather(own):
            assert own[0] == 'n1'
            if isinstance(own[1], bool):
                return [own, ('n2', sees_folder)]
            return [own, ('n2', {**own[1], **change})]

        monkeypatch.setattr(joining, 'all_gather_object', gather)
        AgreementHook().before_train(runner)
        return logger.warnings

    return answer


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'the checkpoint to start from': 'none'}, 'from, process 0 on n1: iter_3.pth of 7 bytes, hash '),
        ({'the iteration to start at': 0}, 'start at, process 0 on n1: 3; process 1 on n2: 0: let '),
        ({'the number of classes': 150}, 'the number of classes, process 0 on n1: 2; process 1 on n2: 150'),
    ],
)
def test_machines_that_do_not_begin_alike(runner, change, message):
    with pytest.raises(UsageError) as error:
        runner(change, True)
    assert message in str(error.value)


def test_work_directories_that_are_not_shared(runner, tmp_path):
    assert runner({}, True) == []
    (warning,) = runner({}, False)
    assert warning.startswith(f"the work directory '{tmp_path}' of n2 is not that of n1, which alone has ")
    assert [path.name for path in tmp_path.iterdir()] == ['iter_3.pth']


def test_interfaces():
    assert (interface_of('127.0.0.1'), address_of('lo')) == ('lo', '127.0.0.1')
    assert (interface_of('192.0.2.1'), address_of('eth77')) == (None, None)


def test_a_port_that_another_one_listens_at(start, port):
    """And does not answer as the store of a run."""
    with socket.create_server(('127.0.0.1', port)):
        (message,) = start(lambda rank: join(config()), ranks=(0,))
    assert f'port {port} on 127.0.0.1 cannot be used (Address already in use)' in message
    assert f'MASTER_PORT={port + 1} for instance' in message
