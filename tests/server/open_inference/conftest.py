from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.server.open_inference.bundles import write_repository
from tests.server.process import Process


@dataclass
class Server:
    """A server in its own process: `tritonclient` and our own messages cannot be in one."""

    address: str
    channel: grpc.Channel
    repository: Path


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("repository"))


@contextlib.contextmanager
def serving(repository: Path) -> Iterator[Server]:
    process = Process("--repository", str(repository), "--port", "0", "--metrics-port", "0", "--threads", "1")
    try:
        address = process.address()
        with grpc.insecure_channel(address) as channel:
            yield Server(address, channel, repository)
    finally:
        process.process.terminate()
        code, said = process.end()
    assert code == 0, said
    assert "Traceback" not in said


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[Server]:
    with serving(repository) as running:
        yield running
