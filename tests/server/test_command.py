"""`python -m server` as a process: signals, exit codes, and what it says when it cannot start."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import grpc.aio
import pytest

from protos.monocoque.v1 import result_pb2 as pb
from protos.monocoque.v1 import state_pb2
from server.command import main
from tests.server.bundles import write_bundle
from tests.server.process import Process
from tests.server.raw_client import RawState, RawStream, camera, frame

Start = Callable[..., Process]


@pytest.fixture
def start() -> Iterator[Start]:
    processes: list[Process] = []

    def begin(*arguments: str, **how: Sequence[str]) -> Process:
        processes.append(Process(*arguments, **how))
        return processes[-1]

    yield begin
    for one in processes:
        one.kill()


async def test_sigterm_answers_what_was_accepted_and_exits_with_zero(bundle_path: Path, start: Start) -> None:
    server = start(str(bundle_path), "--port", "0", "--metrics-port", "0")
    address = await asyncio.to_thread(server.address)
    async with grpc.aio.insecure_channel(address) as channel:
        stream = RawStream(channel)
        await stream.open([camera()])
        await stream.send(frame(1))
        assert (await stream.results(1))[0].status == pb.STATUS_OK
        server.process.send_signal(signal.SIGTERM)
        assert await stream.result() is None
        code, details = await stream.status()
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in details
    code, said = await asyncio.to_thread(server.end)
    assert code == 0
    assert "draining" in said
    assert "Traceback" not in said


async def test_a_second_signal_exits_at_once(bundle_path: Path, start: Start) -> None:
    server = start(str(bundle_path), "--port", "0", "--metrics-port", "0", "--drain-seconds", "1000")
    address = await asyncio.to_thread(server.address)
    async with grpc.aio.insecure_channel(address) as channel:
        stream = RawStream(channel)
        await stream.open([camera()])
        server.process.send_signal(signal.SIGSTOP)  # both signals are there before it looks
        server.process.send_signal(signal.SIGINT)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGCONT)
        code, said = await asyncio.to_thread(server.end)
    assert code == 1
    assert "not waiting for answers" in said


async def test_sigterm_does_not_wait_for_an_engine_that_is_gone(tmp_path: Path, start: Start) -> None:
    bundle = write_bundle(tmp_path / "quarters")
    server = start(str(bundle), "--engine-process", "--port", "0", "--metrics-port", "0", "--threads", "1")
    address = await asyncio.to_thread(server.address)
    async with grpc.aio.insecure_channel(address) as channel:
        stream = RawStream(channel)
        await stream.open([camera()])
        watch = RawState(channel)
        await watch.until(state_pb2.SERVER_STATE_SERVING)
        bundle.rename(tmp_path / "away")
        children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
        (worker,) = [pid for task in children for pid in task.read_text().split()]
        os.kill(int(worker), signal.SIGKILL)
        while "could not be opened again" not in (await watch.until(state_pb2.SERVER_STATE_STARTING))[-1].reason:
            pass
        await stream.send(frame(1))
        assert (await stream.results(1))[0].status == pb.STATUS_FAILED
        server.process.send_signal(signal.SIGTERM)
        await watch.until(state_pb2.SERVER_STATE_DRAINING)
        assert await watch.next() is None
    code, said = await asyncio.to_thread(server.end)
    assert code == 0
    assert "is opened again in 1 s" in said
    assert "Traceback" not in said


def corrupt(bundle: Path, target: Path) -> Path:
    shutil.copytree(bundle, target)
    graph = target / "graphs" / "float.onnx"
    data = bytearray(graph.read_bytes())
    data[10] ^= 1
    graph.write_bytes(data)
    return target


def test_a_server_that_cannot_start_says_why_and_what_to_do(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        good = str(bundle_path)
        cases = [
            (["/does/not/exist"], "no bundle at /does/not/exist"),
            ([str(corrupt(bundle_path, tmp_path / "corrupt"))], "graphs/float.onnx has SHA-256"),
            ([good, "--target", "rtx"], "no graph for target 'rtx'"),
            (
                [good, "--port", port, "--metrics-port", "0"],
                f"cannot listen on 127.0.0.1:{port}: Address already in use",
            ),
            ([good, "--port", "0", "--metrics-port", port], f"cannot listen on 127.0.0.1:{port}"),
            ([good, "--max-frame", "big"], "max-frame: write WIDTHxHEIGHT"),
        ]
        for arguments, message in cases:
            assert main(arguments) == 2
            said = capsys.readouterr().err
            assert message in said
            assert "→" in said
            assert "Traceback" not in said
    assert "engine" not in {thread.name for thread in threading.enumerate()}
