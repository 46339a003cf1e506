"""Hands descriptors to clients: gRPC cannot carry them, a Unix socket can (unix(7): SCM_RIGHTS, SO_PEERCRED)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import socket
import stat
import struct
from pathlib import Path

from server.errors import StartFailed

log = logging.getLogger("monocoque.shared_memory")

GRANTED = b"granted"
"""The message that a descriptor comes with; every other one is a refusal in words."""
PATIENCE_SECONDS = 5.0
"""For a client that has connected to send its token."""
MAX_WAITING = 32
"""Connections at the same time; a well-behaved client's takes less than a millisecond."""
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Handover:
    """The socket.

    Args:
        address: Its path; `@name` is an abstract one, which is no file and goes with its process; None chooses such a
            name.
    """

    def __init__(self, address: str | None) -> None:
        self.address = address or f"@monocoque-{secrets.token_hex(8)}"
        self._offers: dict[bytes, int] = {}
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._serving: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen.

        Raises:
            StartFailed: The address cannot be had.
        """
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if not self.address.startswith("@"):
                _remove_leftover(Path(self.address))
            listening.bind(_bindable(self.address))
            if not self.address.startswith("@"):
                Path(self.address).chmod(stat.S_IRUSR | stat.S_IWUSR)
            listening.listen(MAX_WAITING)
        except (OSError, ValueError) as error:
            listening.close()
            raise StartFailed(
                f"cannot listen on {self.address} for clients that use shared memory: {error}",
                remedy="choose another --shared-memory-socket PATH, or 'off'",
            ) from None
        self._socket = listening
        self._accepting = asyncio.ensure_future(self._accept(listening))

    def offer(self, token: bytes, fd: int) -> None:
        """Let whoever sends a token have a descriptor, once.

        Args:
            token: Unguessable.
            fd: Stays ours; the client gets its own.
        """
        self._offers[token] = fd

    def withdraw(self, token: bytes) -> None:
        """The descriptor is about to be closed."""
        self._offers.pop(token, None)

    async def stop(self) -> None:
        """Close the socket."""
        for task in (*self._serving, *([self._accepting] if self._accepting else [])):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._socket is not None:
            self._socket.close()
            if not self.address.startswith("@"):
                Path(self.address).unlink(missing_ok=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # out of descriptors: those who wait may yet be served
                log.warning("a client that uses shared memory could not connect: %s", error)
                await asyncio.sleep(0.1)
                continue
            if len(self._serving) >= MAX_WAITING:
                connection.close()
                continue
            task = asyncio.ensure_future(self._serve(connection))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, asyncio.TimeoutError):
            uid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[
                1
            ]
            loop = asyncio.get_running_loop()
            token = await asyncio.wait_for(loop.sock_recv(connection, 256), PATIENCE_SECONDS)
            if uid not in (os.geteuid(), 0):
                log.warning("user %d asked for shared memory of user %d", uid, os.geteuid())
                connection.send(b"shared memory is for clients of the server's own user; send the frames by gRPC")
            elif (fd := self._offers.pop(token, None)) is None:
                connection.send(b"no open stream has this token, or its memory was handed over already")
            else:
                socket.send_fds(connection, [GRANTED], [fd])


def _bindable(address: str) -> str:
    return f"\0{address[1:]}" if address.startswith("@") else address


def _remove_leftover(path: Path) -> None:
    """Remove a socket that a killed server left; raises `OSError` where one is in use."""
    if not path.exists():
        return
    if not path.is_socket():
        raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, "another server listens there")
