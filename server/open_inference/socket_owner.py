"""Whose process holds the other end of a TCP connection on this host, asked of the kernel: sock_diag(7)."""

from __future__ import annotations

import errno
import functools
import socket
import struct
import threading
from pathlib import Path

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_ANY = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBBI")  # family, protocol, extensions, padding, states
_PORTS = struct.Struct("!HH")
_SOCKET_TAIL = struct.Struct("=III")  # interface, two cookies
_ANSWER = struct.Struct("=BBBB48sIIIII")  # family, state, timer, retransmits, socket, expires, queues, uid, inode
_UID_FIELD = 8
_PATIENCE_SECONDS = 1.0
_LARGEST_ANSWER_BYTES = 8192


def socket_owner(family: socket.AddressFamily, address: str, port: int, server_port: int) -> int:
    """The user that opened a client's socket.

    Args:
        family: AF_INET or AF_INET6.
        address: The client's address, which is this host's too.
        port: The client's port.
        server_port: The port it is connected to, at the same address.

    Returns:
        The user's number.

    Raises:
        OSError: There is no such connection, or the kernel does not tell.
    """
    packed = socket.inet_pton(family, address).ljust(16, b"\0")
    wanted = _PORTS.pack(port, server_port) + packed + packed + _SOCKET_TAIL.pack(0, _ANY, _ANY)
    kind, answer = _kernel.ask(_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ANY) + wanted)
    if kind == _NLMSG_ERROR:
        code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
        raise OSError(code, "the kernel does not know the connection")
    owner: int = _ANSWER.unpack_from(answer, _HEADER.size)[_UID_FIELD]
    if owner == _overflow_user():
        raise OSError(errno.EPERM, "the user is of another user namespace")
    return owner


class _Kernel:
    """A netlink socket that stays open: making one takes longer than asking."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._sequence = 0

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; returns the type of its answer, and the answer.

        Raises:
            OSError: There is none.
        """
        with self._lock:
            self._sequence = (self._sequence + 1) & _ANY
            header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, self._sequence, 0)
            try:
                if self._socket is None:
                    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
                    self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG)
                    self._socket.settimeout(_PATIENCE_SECONDS)
                self._socket.sendall(header + request)
                while True:
                    answer = self._socket.recv(_LARGEST_ANSWER_BYTES)
                    _, kind, _, sequence, _ = _HEADER.unpack_from(answer)
                    if sequence == self._sequence:  # else it is the late answer to another question
                        return kind, answer
            except OSError:
                self.close()
                raise

    def close(self) -> None:
        """Let go of the socket; the next question opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


_kernel = _Kernel()


@functools.cache
def _overflow_user() -> int:
    """What the kernel says in place of every user that this user namespace has no number for."""
    return int(Path("/proc/sys/kernel/overflowuid").read_text())
