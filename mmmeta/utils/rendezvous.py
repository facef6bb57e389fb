"""Machines and processes that meet at one address before a run, and say for whom they wait."""

import json
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from torch.distributed import TCPStore

from .errors import UsageError, shorten

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Seconds, unless RENDEZVOUS_TIMEOUT in the environment says otherwise, and between two lines about the
# waiting.
TIMEOUT = 60
INTERVAL = 10
# Seconds that one attempt to connect may take.
ATTEMPT = 3
SIOCGIFADDR = 0x8915


def number_from_environment(name: str, default: int, minimum: int) -> int:
    """Return an integer from the environment.

    Args:
        name (str): Name of the variable.
        default (int): Without it, or where it is empty.
        minimum (int): Smallest value that is allowed.

    Raises:
        UsageError: It is not such a number.
    """
    value = os.environ.get(name) or str(default)
    if not re.fullmatch(r'\d{1,9}', value) or int(value) < minimum:
        raise UsageError(f"{name}='{value}': give an integer of at least {minimum}")
    return int(value)


def host_name() -> str:
    """Return the name of this machine: that of the Slurm node, or its own."""
    return os.environ.get('SLURMD_NODENAME') or socket.gethostname()


def check_port(address: str, port: int, variable: str) -> None:
    """Check that this machine can listen on a port.

    Args:
        address (str): The address of this machine, for the error.
        port (int): The port.
        variable (str): The variable of the environment that sets it.

    Raises:
        UsageError: It cannot.
    """
    if not 0 < port < 65536:
        raise UsageError(f'{variable}={port}: choose a port from 1 to 65535')
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(('', port))
        except OSError as error:
            raise UsageError(
                f'port {port} on {address} cannot be used ({error.strerror}): choose another one, '
                f'{variable}={port + 1} for instance, or stop what uses it'
            ) from error


def address_of(interface: str) -> str | None:
    """Return the IPv4 address of a network interface; None without one."""
    if fcntl is None:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, suppress(OSError):
        request = struct.pack('256s', interface.encode()[:15])
        return socket.inet_ntoa(fcntl.ioctl(sock, SIOCGIFADDR, request)[20:24])
    return None


def interface_of(address: str) -> str | None:
    """Return the network interface with an IPv4 address; None without one."""
    return next((name for _, name in socket.if_nameindex() if address_of(name) == address), None)


def is_loopback(address: str) -> bool:
    """Return whether an address is that of a machine for itself."""
    return address.startswith('127.') or address == '::1'


def _source_address(address: str) -> str | None:
    """The address from which this machine would send to another one; nothing is sent."""
    with suppress(OSError):
        family, kind, _, _, target = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as sock:
            sock.connect(target)
            return str(sock.getsockname()[0])
    return None


@dataclass
class Meeting:
    """Members that meet at the address of the first one, in a key-value store of PyTorch.

    Args:
        role (str): What the members are: ``'machine'`` or ``'process'``.
        index (int): Number of this one.
        count (int): How many there are.
        address (str): Host name or address of the first one.
        port (int): Its port.
        variables (tuple[str, str]): Names of the variables with address and port, for errors.
        is_server (bool): Whether this one listens there.
        is_quiet (bool): Whether to leave out the lines about the waiting. Defaults to False.
    """

    role: str
    index: int
    count: int
    address: str
    port: int
    variables: tuple[str, str]
    is_server: bool
    is_quiet: bool = False

    def __post_init__(self) -> None:
        self.timeout = number_from_environment('RENDEZVOUS_TIMEOUT', TIMEOUT, 1)
        self.store: TCPStore = None  # type: ignore[assignment]
        #: Addresses of this machine and of the first one on their connection.
        self.local_address = self.peer_address = ''
        self._begin = self._said = 0.0

    def connect(self) -> None:
        """Connect to the store, which the first one starts.

        Raises:
            UsageError: The port is taken, or the first one is not reached in time.
        """
        self._start_clock()
        if self.is_server:
            check_port(self.address, self.port, self.variables[1])
            # Of all stores of this process on this port there is one server.
            server = self._store('127.0.0.1', is_master=True)
        while True:
            try:
                with socket.create_connection((self.address, self.port), ATTEMPT) as sock:
                    self.local_address, self.peer_address = sock.getsockname()[0], sock.getpeername()[0]
                break
            except socket.gaierror as error:
                raise UsageError(
                    f'{self.variables[0]}={self.address} is not known to {host_name()} ({error.strerror}): '
                    'give the address of the first machine'
                ) from error
            except OSError as error:
                problem = error.strerror or str(error)
            if self.is_server:
                raise UsageError(
                    f'{self.variables[0]}={self.address} is not an address of {host_name()}, which is the '
                    f'first machine ({problem}): give one by which the others reach it'
                )
            self._wait(partial(self._describe_unreached, problem), self._remedy_unreached)
        self.store = server if self.is_server else self._store(self.peer_address, is_master=False)

    def _store(self, address: str, is_master: bool) -> TCPStore:
        timeout = timedelta(seconds=max(self.timeout, 10))
        try:
            return TCPStore(
                address, self.port, None, is_master, timeout, wait_for_workers=False, multi_tenant=is_master
            )
        except RuntimeError as error:
            problem = str(error).split('\n')[0]
            raise UsageError(
                f'what listens at {self._place()} is not the run that was looked for ({problem}): choose '
                f'another {self.variables[1]}'
            ) from error

    def agree(self, topic: str, value: str, judge: Callable[[list[str]], str]) -> str:
        """Collect a value of each member, and return what the first one makes of them.

        Args:
            topic (str): A name for it.
            value (str): The value of this one.
            judge (callable): Called by the first one with the values of all, in their order.

        Returns:
            str: What ``judge`` returned, the same on all.

        Raises:
            UsageError: Not all are there in time, or the first one has ended.
        """
        self._start_clock()
        keys = [f'mmmeta/{self.role}/{topic}/{i}' for i in range(self.count)]
        result = f'mmmeta/{self.role}/{topic}/result'
        missing: list[int] = []

        def describe() -> str:
            missing[:] = [i for i, key in enumerate(keys) if not self.store.check([key])]
            names = f'{self.role} {shorten(missing or [0], 8)}'
            return f'waiting for {names}: {self.count - len(missing)} of {self.count} are at {self._place()}'

        try:
            self.store.set(keys[self.index], value)
            while not self.store.check(keys if self.index == 0 else [result]):
                self._wait(describe, self._remedy_missing)
            if self.index == 0:
                self.store.set(result, judge([self.store.get(key).decode() for key in keys]))
            text = str(self.store.get(result).decode())
            self.store.add(f'{result}/read', 1)
            deadline = time.monotonic() + ATTEMPT
            # The store ends with its server, which may be about to end.
            while self.is_server and self.store.add(f'{result}/read', 0) < self.count:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.01)
            return text
        except RuntimeError as error:  # its connection
            waited = f', after it had waited for {self.role} {shorten(missing, 8)}' if missing else ''
            raise UsageError(
                f'{self.role} 0 at {self._place()} has ended before all had met{waited}: see what it has '
                'printed'
            ) from error

    def _start_clock(self) -> None:
        self._begin = self._said = time.monotonic()

    def _place(self) -> str:
        """Address and port, and from where they are reached."""
        source = _source_address(self.address)
        interface = source and interface_of(source)
        place = f'{self.address}:{self.port}'
        if self.is_server or not source:
            return place
        return f'{place} from {source}' + (f' ({interface})' if interface else '')

    def _describe_unreached(self, problem: str) -> str:
        return f'no answer at {self._place()} ({problem})'

    def _wait(self, describe: Callable[[], str], remedy: Callable[[], str]) -> None:
        now = time.monotonic()
        if now - self._begin >= self.timeout:
            raise UsageError(
                f'{host_name()}: {describe()} after {self.timeout} s: {remedy()}, or wait longer with '
                'RENDEZVOUS_TIMEOUT=SECONDS'
            )
        if now - self._said >= INTERVAL:
            self._said = now
            if not self.is_quiet:
                elapsed = f'{now - self._begin:.0f} s of {self.timeout}'
                print(f'{host_name()}: {describe()}, {elapsed}', file=sys.stderr, flush=True)
        time.sleep(0.1 if now - self._begin < INTERVAL else 0.5)

    def _remedy_unreached(self) -> str:
        address, port = self.variables
        return (
            f'start the run there as well, give all the same {address} and {port}, and see that no firewall '
            'is between them'
        )

    def _remedy_missing(self) -> str:
        return f'start all {self.count}, or see why the others have ended'


def check_reachable(meeting: Meeting, node: str, is_first_of_node: bool) -> None:
    """Choose the network interface of Gloo, and check that all machines reach each other by it.

    Gloo takes the address to which the name of the machine resolves, which may be one that others cannot
    reach.

    Args:
        meeting (Meeting): The processes, connected. ``GLOO_SOCKET_IFNAME`` is set in the environment, unless
        it is.
        node (str): Name of the machine, or of the part of it that is a node.
        is_first_of_node (bool): Whether this process tries it, for all on its node.

    Raises:
        UsageError: A machine does not reach another one.
    """
    seen = '' if is_loopback(meeting.peer_address) else meeting.peer_address
    first = meeting.agree('address', seen, lambda values: next(filter(None, values), ''))
    own = meeting.local_address
    if is_loopback(own) and meeting.peer_address == own and first:
        own = first  # by which others reach this machine
    found = interface_of(own)
    if found:
        os.environ.setdefault('GLOO_SOCKET_IFNAME', found)
    interface = os.environ.get('GLOO_SOCKET_IFNAME', '').split(',')[0]
    address, problem = address_of(interface) if interface else None, ''
    if interface and address is None:
        names = ', '.join(name for _, name in socket.if_nameindex() if address_of(name))
        problem = (
            f'GLOO_SOCKET_IFNAME={interface}: {host_name()} has no such interface with an IPv4 address, but '
            f'{names}; unset it, or choose one of them, and the same for NCCL_SOCKET_IFNAME'
        )
    _raise_first(meeting, 'interface', problem)
    listener = socket.create_server((address, 0)) if is_first_of_node and address else None
    place = [node, host_name(), address, interface, listener.getsockname()[1]] if listener else None
    places = json.loads(
        meeting.agree('listening', json.dumps(place), lambda values: json.dumps([*map(json.loads, values)]))
    )
    others = [other for other in places if other and other[0] != node] if listener else []
    problem = next(filter(None, map(_try_to_reach, others)), '')
    _raise_first(meeting, 'reached', problem)
    if listener:
        listener.close()


def _raise_first(meeting: Meeting, topic: str, problem: str) -> None:
    """Raise the first problem that a member has, on all."""
    problem = meeting.agree(topic, problem, lambda values: next(filter(None, values), ''))
    if problem:
        raise UsageError(problem)


def _try_to_reach(place: list[Any]) -> str:
    """Why a listener is not reached; nothing if it is."""
    _, host, address, interface, port = place
    try:
        with socket.create_connection((address, port), 2 * ATTEMPT):
            return ''
    except OSError as error:
        problem = error.strerror or str(error)
    return (
        f'{host_name()} does not reach {host} at {address}, its interface {interface} ({problem}): set '
        'GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME there to an interface that all machines reach, and see '
        'that no firewall is between them'
    )
