"""Hosts on this machine: network namespaces on one switch, each with a name. Needs root and iproute2."""

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

PREFIX = 'mmmeta-'
SUBNET = '10.77.0'
HOSTS = dict(ctl=1, n1=11, n2=12)
NAMES = Path('/etc/netns')


def call(command: str, check: bool = True) -> str:
    """Run a command to its end, and return what it printed."""
    result = subprocess.run(shlex.split(command), capture_output=True, text=True)
    if check and result.returncode:
        raise RuntimeError(f'{command}: {result.stderr.strip()}')
    return result.stdout


class Network:
    """Hosts ``ctl``, ``n1`` and ``n2``, which reach each other and nothing else.

    Args:
        folder (Path): For the outputs of what is started.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> 'Network':
        try:
            call(f'ip netns add {PREFIX}switch')
            call(f'ip -n {PREFIX}switch link add br0 type bridge')
            call(f'ip -n {PREFIX}switch link set br0 up')
            for host, number in HOSTS.items():
                name = PREFIX + host
                call(f'ip netns add {name}')
                call(f'ip link add eth0 netns {name} type veth peer name {host} netns {PREFIX}switch')
                call(f'ip -n {PREFIX}switch link set {host} master br0 up')
                call(f'ip -n {name} addr add {SUBNET}.{number}/24 dev eth0')
                call(f'ip -n {name} link set eth0 up')
                call(f'ip -n {name} link set lo up')
                self.name_hosts(host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def name_hosts(self, host: str, **others: str) -> None:
        """Write what names a host knows, and which addresses they have where these are not the usual ones."""
        (NAMES / (PREFIX + host)).mkdir(parents=True, exist_ok=True)
        addresses = {name: f'{SUBNET}.{number}' for name, number in HOSTS.items()} | others
        lines = ['127.0.0.1 localhost', *(f'{address} {name}' for name, address in addresses.items())]
        (NAMES / (PREFIX + host) / 'hosts').write_text('\n'.join(lines) + '\n')

    def start(
        self, host: str, command: list, output: str, cwd: Path, env: Mapping[str, str]
    ) -> subprocess.Popen:
        """Start a command on a host; what it prints goes into a file of the folder."""
        enter = ['ip', 'netns', 'exec', PREFIX + host, 'unshare', '--uts', 'sh', '-c']
        line = [*enter, 'hostname "$0" && exec "$@"', host, *map(str, command)]
        with open(self.folder / output, 'a') as file:
            process = subprocess.Popen(
                line,
                cwd=cwd,
                env=dict(env),
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def cut(self, host: str, is_cut: bool = True) -> None:
        """Take the cable of a host out of the switch, or put it back."""
        call(f'ip -n {PREFIX}switch link set {host} {"down" if is_cut else "up"}')

    def pids(self, host: str) -> list[int]:
        """The processes of a host."""
        return [int(pid) for pid in call(f'ip netns pids {PREFIX}{host}', check=False).split()]

    def has_tool(self, host: str) -> bool:
        """Whether a training runs on a host."""
        return any(b'tools/train.py' in Path(f'/proc/{pid}/cmdline').read_bytes() for pid in self.pids(host))

    def end_all(self, host: str) -> None:
        """End all processes of a host, by SIGTERM and, after five seconds, by SIGKILL."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids(host):
                if pid != os.getpid():
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
            deadline = time.monotonic() + 5
            while self.pids(host) and time.monotonic() < deadline:
                for process in self.processes:
                    process.poll()
                time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        for host in (*HOSTS, 'switch'):
            self.end_all(host)
            call(f'ip netns del {PREFIX}{host}', check=False)
            shutil.rmtree(NAMES / (PREFIX + host), ignore_errors=True)
        for process in self.processes:
            process.wait()
        if NAMES.is_dir() and not any(NAMES.iterdir()):
            NAMES.rmdir()
