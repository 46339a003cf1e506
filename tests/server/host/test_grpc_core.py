from __future__ import annotations

import os
from pathlib import Path

import grpc.aio
import pytest

from server.host import grpc_core
from tests.server.process import Process, server
from tests.server.raw_client import RawStream, camera, frame

__all__ = ["server"]
FRAMES = 200


def hand_overs(pid: int) -> int:
    """How often threads of gRPC's pool have waited for work so far."""
    found = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        if (thread / "comm").read_text().strip() == "event_engine":
            lines = (thread / "status").read_text().splitlines()
            found += next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return found


async def test_reads_are_handed_to_no_pool_and_grpc_has_nothing_to_say_about_it(server: Process) -> None:
    address = server.address()
    async with grpc.aio.insecure_channel(address) as channel:
        stream = RawStream(channel)
        await stream.open([camera("front")])
        before = hand_overs(server.process.pid)
        for sequence in range(1, FRAMES + 1):
            await stream.send(frame(sequence))
            await stream.results(1)
        assert hand_overs(server.process.pid) - before < FRAMES / 2  # with the pool, at least one for each frame
        await stream.finish()
    server.process.terminate()
    assert "experiment" not in server.end()[1].lower()


def test_a_value_of_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(grpc_core.VARIABLE, "tcp_rcv_lowat")
    grpc_core.read_where_polled()
    assert os.environ[grpc_core.VARIABLE] == "tcp_rcv_lowat"
