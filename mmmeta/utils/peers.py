"""Processes of a run that watch each other: one that is gone ends the others, whatever they wait for.

A process that waits for another one in PyTorch's communication does not see that its machine is gone until
the timeout of the process group, half an hour for Gloo. Here each has a connection to the first process, and
the kernel asks its other end for a sign of life.
"""

import json
import os
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from .processes import report_error
from .rendezvous import Meeting, host_name, number_from_environment

# Seconds without a sign of life of the other machine, unless PEER_TIMEOUT in the environment says otherwise.
TIMEOUT = 60
# Seconds in which a launcher ends the others, and reports what has failed, before they do it themselves.
GRACE = 2
# Seconds in which the main thread ends by itself, at an error of the communication.
MAIN_GRACE = 5
FAREWELL = '.'


class Watch:
    """The connections of a process: those of the first one to all others, those of others to the first one.

    Args:
        meeting (Meeting): The processes, connected.
    """

    def __init__(self, meeting: Meeting) -> None:
        self.lost = ''
        self._has_lost = threading.Event()
        self._is_done = self._is_reported = False
        #: Called with the sentence about a process that is gone; returns the one to report.
        self.explain: Callable[[str], str] = str
        self._peers = self._accept(meeting) if meeting.index == 0 else self._connect(meeting)
        timeout = number_from_environment('PEER_TIMEOUT', TIMEOUT, 1)
        for connection in self._peers:
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            interval = max(1, timeout // 6)
            tries = max(1, timeout // interval - 1)
            for option, value in (('IDLE', interval), ('INTVL', interval), ('CNT', tries)):
                if hasattr(socket, f'TCP_KEEP{option}'):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, f'TCP_KEEP{option}'), value)
        # Data workers would keep connections of a process that is gone.
        if hasattr(os, 'register_at_fork'):
            os.register_at_fork(after_in_child=self._close)
        threading.Thread(target=self._run, name='peers', daemon=True).start()

    @staticmethod
    def _accept(meeting: Meeting) -> dict[socket.socket, str]:
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        peers: dict[socket.socket, str] = {}
        token = secrets.token_hex(8)
        with socket.create_server(
            ('', 0), family=family, backlog=meeting.count, dualstack_ipv6=family == socket.AF_INET6
        ) as server:
            server.settimeout(meeting.timeout)
            port = server.getsockname()[1]
            meeting.agree('watch', '', lambda values: json.dumps([port, token]))
            while len(peers) < meeting.count - 1:
                connection, _ = server.accept()
                connection.settimeout(meeting.timeout)
                with suppress(OSError, ValueError):
                    given, index, host = connection.recv(300).decode().split(' ')
                    if given == token:
                        peers[connection] = f'process {int(index)} on {host}'
        return peers

    @staticmethod
    def _connect(meeting: Meeting) -> dict[socket.socket, str]:
        port, token = json.loads(meeting.agree('watch', '', lambda values: ''))
        # The store may be that of a launcher, but the launcher of the first process.
        connection = socket.create_connection((meeting.peer_address, port), meeting.timeout)
        connection.sendall(f'{token} {meeting.index} {host_name()}'.encode())
        return {connection: f'process 0 at {meeting.address}'}

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for connection in self._peers:
                selector.register(connection, selectors.EVENT_READ)
            while selector.get_map() and not self._is_done:
                for key, _ in selector.select():
                    try:
                        message, problem = key.fileobj.recv(2000).decode(), ''  # type: ignore[union-attr]
                    except OSError as error:
                        message, problem = '', error.strerror or str(error)
                    if message == FAREWELL:
                        selector.unregister(key.fileobj)
                    elif not self._is_done:
                        self._end(message, self._peers[key.fileobj], problem)  # type: ignore[index]
                        return

    def _end(self, message: str, peer: str, problem: str) -> None:
        """End this process, unless the launcher or the main thread does."""
        reason = f'no sign of life of its machine, {problem}' if problem else 'it has ended'
        message = message or f'{peer} is gone ({reason}), and the run cannot go on without it'
        for connection in self._peers:  # of the first process: the others know of it alone
            with suppress(OSError):
                connection.send(message.encode())
        if not problem:
            time.sleep(GRACE)
        self.lost = self.explain(message)
        self._has_lost.set()
        time.sleep(MAIN_GRACE)
        if not self._is_reported:
            report_error(self.lost)
        os._exit(1)  # the main thread waits for the other one inside PyTorch

    def wait_for_loss(self, timeout: float) -> str:
        """Return a sentence about a process that is gone, to be reported; an empty one if none is.

        Args:
            timeout (float): Seconds to wait for one.
        """
        self._is_reported = self._has_lost.wait(timeout)
        return self.lost

    def leave(self, farewell: bool) -> None:
        """Watch no more.

        Args:
            farewell (bool): Whether the others may go on without this process.
        """
        self._is_done = True
        for connection in self._peers if farewell else ():
            with suppress(OSError):
                connection.send(FAREWELL.encode())

    def _close(self) -> None:
        self._is_done = True
        for connection in self._peers:
            connection.close()
