"""Shared memory that clients name: only their own, never mapped, and gone when it is gone."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import LimitReached, NameTaken, NotSupported, RegionNotFound, RequestInvalid
from server.open_inference import regions as module
from server.open_inference.caller import Caller
from server.open_inference.regions import Regions, SharedInput
from server.open_inference.socket_owner import socket_owner

USER = os.getuid()
OTHER_USER = 12_345
needs_root = pytest.mark.skipif(USER != 0, reason="only root can act for another user")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A file of 64 bytes, 0 to 63."""
    path = Path(f"/dev/shm/monocoque-test-{secrets.token_hex(8)}")
    path.write_bytes(bytes(range(64)))
    yield path
    path.unlink(missing_ok=True)


def key(path: Path) -> str:
    return f"/{path.name}"


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_region_is_read_and_written_where_it_was_registered(shared: Path) -> None:
    regions = Regions()
    regions.register(USER, "name", key(shared), 16, 32)
    region = regions.find(USER, "name")
    target = np.zeros(2, np.uint32)
    SharedInput(region, 4, target.dtype, target.shape).copy_into(target.view(np.uint8).data)
    assert target.tobytes() == bytes(range(20, 28))
    region.write(0, memoryview(b"abcd"))
    assert shared.read_bytes()[12:24] == bytes(range(12, 16)) + b"abcd" + bytes(range(20, 24))


def test_a_file_that_was_shortened_is_an_error_and_nothing_worse(shared: Path) -> None:
    regions = Regions()
    regions.register(USER, "name", key(shared), 0, 64)
    os.truncate(shared, 8)
    region = regions.find(USER, "name")
    target = np.zeros(64, np.uint8)
    with pytest.raises(RequestInvalid, match="has become too short for byte 8"):
        SharedInput(region, 0, target.dtype, target.shape).copy_into(target.view(np.uint8).data)
    with pytest.raises(RequestInvalid, match="too short"):
        region.write(0, memoryview(bytes(64)))
    assert shared.stat().st_size == 8  # writing has not made it longer


@pytest.mark.parametrize(
    "name", ["", "/", "x", "/a/b", "/../etc/passwd", "/..", "/a..b", "//x", "/" + "x" * 65, "/a\0", "/\n", "/é"]
)
def test_a_key_is_nothing_but_a_name(name: str) -> None:
    with pytest.raises(RequestInvalid, match="is no name of shared memory"):
        Regions().register(USER, "name", name, 0, 1)


@given(st.text(max_size=70))
def test_no_key_opens_what_is_not_there(name: str) -> None:
    with pytest.raises(RequestInvalid):
        Regions().register(USER, "name", f"/monocoque-nothing{name}", 0, 1)


def test_what_is_no_file_of_the_caller_looks_like_nothing(shared: Path, tmp_path: Path) -> None:
    refused = []
    link, pipe, folder = (shared.with_name(f"{shared.name}-{kind}") for kind in ("link", "pipe", "folder"))
    link.symlink_to(shared)
    os.mkfifo(pipe)
    folder.mkdir()
    try:
        regions = Regions()
        before = open_descriptors()
        for user, path in ((USER, link), (USER, pipe), (USER, folder), (OTHER_USER, shared), (USER, Path("/nothing"))):
            with pytest.raises(RequestInvalid) as caught:
                regions.register(user, "name", key(path), 0, 1)
            refused.append(str(caught.value).replace(path.name, "x"))
        assert len(set(refused)) == 1  # one cannot tell a stranger's file from none
        assert open_descriptors() == before
    finally:
        link.unlink()
        pipe.unlink()
        folder.rmdir()


def test_a_file_on_a_disk_is_not_shared_memory(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk = Path(__file__).parent
    monkeypatch.setattr(module, "DIRECTORY", str(on_disk))
    with pytest.raises(RequestInvalid, match="can be opened"):
        Regions().register(Path(__file__).stat().st_uid, "name", f"/{Path(__file__).name}", 0, 1)


def test_a_region_belongs_to_its_user(shared: Path) -> None:
    regions = Regions()
    regions.register(USER, "name", key(shared), 0, 64)
    assert list(regions.of(OTHER_USER)) == []
    with pytest.raises(RegionNotFound):
        regions.find(OTHER_USER, "name")
    regions.unregister(OTHER_USER, "")
    assert [region.name for region in regions.of(USER)] == ["name"]
    with pytest.raises(NameTaken):
        regions.register(USER, "name", key(shared), 0, 64)


def test_a_region_in_use_outlives_its_name(shared: Path) -> None:
    regions, before = Regions(), open_descriptors()
    regions.register(USER, "name", key(shared), 0, 64)
    in_use = regions.find(USER, "name")
    regions.unregister(USER, "name")
    shared.unlink()
    target = np.zeros(4, np.uint8)
    SharedInput(in_use, 0, target.dtype, target.shape).copy_into(target.view(np.uint8).data)
    assert target.tolist() == [0, 1, 2, 3]
    del in_use
    assert open_descriptors() == before


def test_regions_are_limited(shared: Path) -> None:
    regions, before = Regions(), open_descriptors()
    for index in range(module.MAX_REGIONS):
        regions.register(USER, str(index), key(shared), 0, 1)
    with pytest.raises(LimitReached):
        regions.register(USER, "more", key(shared), 0, 1)
    regions.unregister(USER, "")
    assert open_descriptors() == before


@pytest.mark.parametrize(("offset", "size"), [(0, 33), (32, 1), (-1, 4), (0, -1), (2**63, 2**63)])
def test_nothing_outside_a_region_is_reached(shared: Path, offset: int, size: int) -> None:
    regions = Regions()
    regions.register(USER, "name", key(shared), 16, 32)
    with pytest.raises(RequestInvalid, match="of shared memory region 'name', which has 32"):
        regions.find(USER, "name").check(offset, size)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_kernel_says_whose_connection_it_is(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.create_server((address, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]) as client,
    ):
        port, server_port = client.getsockname()[1], server.getsockname()[1]
        assert socket_owner(family, address, port, server_port) == USER
        with pytest.raises(OSError, match="does not know the connection"):
            socket_owner(family, address, port, 1)
        peer = f"ipv6:%5B::1%5D:{port}" if ":" in address else f"ipv4:{address}:{port}"
        assert Caller(lambda: peer, lambda: server_port).user() == USER


@needs_root
def test_another_user_s_connection_is_another_user_s() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"exec 3<>/dev/tcp/127.0.0.1/{port}; read -n 1 <&3 || true"
        with subprocess.Popen(["/bin/bash", "-c", script], user=OTHER_USER, cwd="/") as process:
            connection, (_, client_port) = server.accept()
            assert socket_owner(socket.AF_INET, "127.0.0.1", client_port, port) == OTHER_USER
            connection.close()
        assert process.returncode == 0


@pytest.mark.parametrize(
    "peer", ["ipv4:192.0.2.1:4711", "ipv6:%5B2001:db8::1%5D:4711", "unix:", "unix:/tmp/x", "vsock:1"]
)
def test_shared_memory_is_for_callers_on_this_host(peer: str) -> None:
    with pytest.raises(NotSupported, match="for callers on this host"):
        Caller(lambda: peer, lambda: 1).user()


def test_a_caller_that_has_gone_has_no_user() -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server, pytest.raises(NotSupported):
        Caller(lambda: "ipv4:127.0.0.1:1", lambda: server.getsockname()[1]).user()
