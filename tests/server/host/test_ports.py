from __future__ import annotations

import errno
import os
import socket

import pytest

from server.errors import StartFailed
from server.host.ports import join, listening, probe


def test_an_address_of_either_version_is_written_with_its_port() -> None:
    assert join("127.0.0.1", 8001) == "127.0.0.1:8001"
    assert join("::1", 8001) == "[::1]:8001"


def test_a_port_that_is_free_is_free_again_afterwards() -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    for _ in range(2):
        with listening("--port", "127.0.0.1", port):
            probe("127.0.0.1", port)


def test_a_port_that_another_has_is_said_with_the_flag_that_chooses_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = pytest.raises(StartFailed, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already")
        with refused as caught, listening("--metrics-port", "127.0.0.1", port):
            probe("127.0.0.1", port)
    assert "choose another --metrics-port" in caught.value.remedy


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
def test_an_address_of_nobody_here_is_said_with_those_that_work(host: str) -> None:
    with pytest.raises(StartFailed, match="cannot listen on") as caught, listening("--port", host, 0):
        probe(host, 0)
    assert "0.0.0.0 for all" in caught.value.remedy


def test_a_port_for_root_is_called_so() -> None:
    with pytest.raises(StartFailed) as caught, listening("--port", "127.0.0.1", 80):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    assert "below 1024 are for root" in caught.value.remedy
