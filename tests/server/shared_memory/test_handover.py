"""The socket that hands descriptors over: to whom, how often, and what hostile clients get."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.errors import StartFailed
from server.shared_memory import handover
from server.shared_memory.handover import Handover
from tests.server.shared_memory.raw_slots import fetch

TOKEN = b"t" * 32


@pytest.fixture
def fd() -> Iterator[int]:
    opened = os.memfd_create("test")
    yield opened
    os.close(opened)


async def ask(server: Handover, token: bytes) -> tuple[bytes, int]:
    """What is said, and how many descriptors come."""
    said, descriptors = await asyncio.to_thread(fetch, server.address, token)
    for descriptor in descriptors:
        os.close(descriptor)
    return said, len(descriptors)


@pytest.mark.parametrize("kind", ["chosen", "path", "abstract"])
async def test_a_token_is_good_once(kind: str, tmp_path: Path, fd: int) -> None:
    address = {"chosen": None, "path": str(tmp_path / "s"), "abstract": f"@monocoque-test-{os.getpid()}"}[kind]
    server = Handover(address)
    server.start()
    try:
        assert (await ask(server, TOKEN))[1] == 0
        server.offer(TOKEN, fd)
        assert await ask(server, TOKEN) == (b"granted", 1)
        said, count = await ask(server, TOKEN)
        assert (b"handed over already" in said, count) == (True, 0)
        server.offer(TOKEN, fd)
        server.withdraw(TOKEN)
        assert (await ask(server, TOKEN))[1] == 0
        if kind == "path":
            assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    finally:
        await server.stop()
    assert not (tmp_path / "s").exists()


async def test_another_user_gets_nothing(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "_CREDENTIALS", _Stranger())
    server = Handover(None)
    server.start()
    try:
        server.offer(TOKEN, fd)
        said, count = await ask(server, TOKEN)
        assert (b"the server's own user" in said, count) == (True, 0)
    finally:
        await server.stop()


class _Stranger:
    """What the kernel would say of a process of another user."""

    size = 12

    def unpack(self, _: bytes) -> tuple[int, int, int]:
        return (1, os.geteuid() + 1, 1)


async def test_clients_that_say_nothing_hold_nobody_up(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "PATIENCE_SECONDS", 0.05)
    server = Handover(None)
    server.start()
    silent = []
    try:
        for _ in range(200):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            connection.settimeout(10)
            await asyncio.to_thread(connection.connect, f"\0{server.address[1:]}")
            silent.append(connection)
        server.offer(TOKEN, fd)
        for connection in silent:  # each is closed: those beyond the limit at once, the rest when patience ends
            assert await asyncio.to_thread(connection.recv, 1) == b""
        assert await ask(server, TOKEN) == (b"granted", 1)
        silent[0].close()
    finally:
        for connection in silent:
            connection.close()
        await server.stop()


async def test_a_socket_that_a_killed_server_left_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.bind(str(path))
    left.close()
    server = Handover(str(path))
    server.start()
    with pytest.raises(StartFailed, match="another server listens there"):
        Handover(str(path)).start()
    await server.stop()
    path.write_text("precious")
    with pytest.raises(StartFailed, match="a file that is no socket"):
        Handover(str(path)).start()
    assert path.read_text() == "precious"
    with pytest.raises(StartFailed, match="--shared-memory-socket"):
        Handover(str(tmp_path / "nowhere" / "s")).start()
    with pytest.raises(StartFailed):
        Handover(str(tmp_path / ("x" * 200))).start()
