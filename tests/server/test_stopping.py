"""SIGTERM while an engine is being opened, which may take minutes: the server ends all the same, in good order."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from protos.monocoque.v1 import admin_pb2, state_pb2, stream_pb2
from protos.monocoque.v1.result_pb2 import STATUS_OK, STATUS_REFUSED
from server.errors import Draining
from tests.engine.test_process import runs
from tests.server.bundles import write_bundle
from tests.server.conftest import serving
from tests.server.engines.dying import kill, workers
from tests.server.engines.test_swap import SWAP
from tests.server.process import Process
from tests.server.raw_client import RawState, RawStream, camera, frame
from tests.server.test_command import Start, start

assert start  # the fixture
ANYWHERE = ("--port", "0", "--metrics-port", "0", "--threads", "1")
UNREADABLE = "unreadable"
PROGRAM = """
import logging, sys, threading
from pathlib import Path
import server.app
from engine.bundle import Bundle
from server.command import main

def for_ever(what, wanted, real):
    def work(subject, *arguments, **named):
        if wanted(subject):
            logging.getLogger("test").warning("%s for ever", what)
            threading.Event().wait()
        return real(subject, *arguments, **named)
    return work

Bundle.open = for_ever("reading", lambda path: Path(path).name == "unreadable", Bundle.open)
server.app.open_runtime = for_ever("opening", lambda one: one.manifest.version == "2.0", server.app.open_runtime)
sys.exit(main(sys.argv[1:]))
"""
"""`python -m server`, where a bundle of that name is read, and version 2.0 of any bundle is opened, for ever."""
WORKER = """
import os, sys, threading

def for_ever(*arguments, **named):
    print(f"process {os.getpid()} opens it for ever", file=sys.stderr, flush=True)
    threading.Event().wait()

if "engine.worker" in sys.orig_argv and os.path.exists(os.environ["ENDLESS"]):
    import engine.opening
    engine.opening.open_runtime = for_ever
"""
"""`sitecustomize` of an engine's process that does the same, once a file is there."""


def begin(start: Start, bundle: Path) -> Process:
    return start(str(bundle), *ANYWHERE, program=("-c", PROGRAM))


def ended(server: Process, what: str) -> None:
    """Check how it has ended."""
    code, said = server.end()
    assert (code, "Traceback" in said) == (0, False), said
    assert f"{what} is still being opened: not waiting for it" in said


def test_while_its_bundle_is_read(bundle_path: Path, tmp_path: Path, start: Start) -> None:
    bundle = Path(shutil.copytree(bundle_path, tmp_path / UNREADABLE))
    server = begin(start, bundle)
    server.until("reading for ever")
    server.process.send_signal(signal.SIGTERM)
    ended(server, str(bundle))


def test_before_it_serves(tmp_path: Path, start: Start) -> None:
    server = begin(start, write_bundle(tmp_path / "bundle", version="2.0"))
    server.until("opening for ever")
    server.process.send_signal(signal.SIGTERM)
    ended(server, "quarters 2.0")


async def test_during_a_hot_swap(bundle_path: Path, tmp_path: Path, start: Start) -> None:
    path = Path(shutil.copytree(bundle_path, tmp_path / "bundle"))
    server = begin(start, path)
    address = await asyncio.to_thread(server.address)
    async with grpc.aio.insecure_channel(address) as channel:
        stream = RawStream(channel)
        await stream.open([camera()])
        shutil.rmtree(path)
        write_bundle(path, version="2.0")
        server.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(server.until, "opening for ever")
        await stream.send(frame(1))
        assert (await stream.results(1))[0].status == STATUS_OK
        server.process.send_signal(signal.SIGTERM)
        assert await stream.result() is None
        assert (await stream.status())[0] is grpc.StatusCode.UNAVAILABLE
    await asyncio.to_thread(ended, server, "quarters 2.0")


async def test_whoever_asked_for_a_hot_swap_is_told(bundle_path: Path, tmp_path: Path, start: Start) -> None:
    new = write_bundle(tmp_path / "new", version="2.0")
    server = begin(start, bundle_path)
    address = await asyncio.to_thread(server.address)
    async with grpc.aio.insecure_channel(address) as channel:
        request = admin_pb2.SwapEngineRequest(bundle=str(new)).SerializeToString()
        swapping = asyncio.ensure_future(end_of(channel.unary_unary(SWAP)(request)))
        await asyncio.to_thread(server.until, "opening for ever")
        server.process.send_signal(signal.SIGTERM)
        code, details = await swapping
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in details
    await asyncio.to_thread(ended, server, "quarters 2.0")


async def end_of(call: Awaitable[bytes]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


@pytest.fixture
def endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Once this file is there, engines' processes open for ever."""
    (tmp_path / "sitecustomize.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("ENDLESS", str(tmp_path / "endless"))
    return tmp_path / "endless"


async def test_a_process_that_opens_an_engine_ends_with_a_server_inside_another_program(
    bundle_path: Path, tmp_path: Path, endless: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving(bundle_path, engine_process=True) as running:
        before = workers()
        endless.touch()
        new = write_bundle(tmp_path / "new", version="2.0")
        swapping = asyncio.ensure_future(running.server.core.swap("", "", str(new)))
        said = ""
        while "opens it for ever" not in said:
            said += capfd.readouterr().err
            await asyncio.sleep(0.01)
        (opening,) = set(workers()) - set(before)
    with pytest.raises(Draining):
        await swapping
    await running.until(lambda: not runs(opening))


async def test_while_an_engine_that_died_is_opened_again(bundle_path: Path, start: Start, endless: Path) -> None:
    server = start(str(bundle_path), *ANYWHERE, "--engine-process", "--drain-seconds", "1")
    address = await asyncio.to_thread(server.address)
    async with grpc.aio.insecure_channel(address) as channel:
        stream = RawStream(channel)
        await stream.open([camera()], policy=stream_pb2.POLICY_REPLAY)
        (dead,) = workers(server.process.pid)
        endless.touch()
        kill(dead)
        await RawState(channel).until(state_pb2.SERVER_STATE_STARTING)
        await stream.send(frame(1))  # a replay's waits for the next engine
        found = await asyncio.to_thread(server.until, r"process (\d+) opens it for ever")
        server.process.send_signal(signal.SIGTERM)
        (refused,) = await stream.results(1)
        assert refused.status == STATUS_REFUSED
    await asyncio.to_thread(ended, server, "quarters 1.0")
    assert not runs(int(found[1]))
