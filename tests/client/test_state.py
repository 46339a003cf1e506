"""What a server can do, as its clients see it: the library with and without `async`, and the command."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import client
from client.rpc import error_of
from tests.server.bundles import write_bundle
from tests.server.conftest import serving
from tests.server.engines.dying import kill, workers
from tests.server.process import Process

COMMAND = [sys.executable, "-W", "error", "-m", "client", "state"]
PATIENCE_SECONDS = 60.0
"""Only a hang takes this long."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    """`python -m server` with the engine in a process of its own."""
    bundle = write_bundle(tmp_path / "quarters")
    running = Process(str(bundle), "--engine-process", "--port", "0", "--metrics-port", "0", "--threads", "1")
    yield running
    running.kill()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


async def test_a_client_sees_the_engine_die_come_back_and_the_server_end(server: Process) -> None:
    address = await asyncio.to_thread(server.address)
    async with client.connect(address) as connection:
        states = connection.watch_state()
        first = await anext(states)
        assert (first.state, first.reason, first.computes) == ("serving", "", True)
        (engine,) = first.engines
        assert engine.digest == (await connection.engine()).digest
        assert (engine.state, engine.instances_ready, engine.instances, engine.restarts) == ("ready", 1, 1, 0)
        (pid,) = workers(server.process.pid)
        kill(pid)
        seen = [first]
        while seen[-1].state != "serving" or len(seen) == 1:
            seen.append(await asyncio.wait_for(anext(states), PATIENCE_SECONDS))
        assert {state.state for state in seen} == {"serving", "starting"}
        assert f"the engine's process {pid} ended (signal SIGKILL)" in seen[1].reason
        assert seen[-1].engines[0].restarts == 1
        assert seen[-1].since_utc_ns > seen[1].since_utc_ns > first.since_utc_ns
        server.process.send_signal(signal.SIGTERM)
        assert [state.state async for state in states][-1:] in ([], ["draining"])
    code, said = await asyncio.to_thread(server.end)
    assert code == 0
    assert "is opened again in 0.5 s" in said
    assert "its process" in said
    assert "Traceback" not in said


def test_a_client_without_async_sees_the_same(server: Process) -> None:
    with client.connect_sync(server.address()) as connection:
        states = connection.watch_state()
        assert next(states).state == "serving"
        (pid,) = workers(server.process.pid)
        kill(pid)
        assert next(states).state == "starting"
        assert next(state for state in states if state.computes).engines[0].restarts == 1
        server.process.send_signal(signal.SIGTERM)
        assert [state.state for state in states][-1:] in ([], ["draining"])


def test_the_command_tells_the_state_and_follows_it(server: Process) -> None:
    address = server.address()
    done = run("--server", address)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].endswith("UTC  serving")
    assert "quarters 1.0" in done.stdout
    assert json.loads(run("--server", address, "--json").stdout)["engines"][0]["state"] == "ready"
    following = subprocess.Popen(
        [*COMMAND, "--server", address, "--follow", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert following.stdout is not None
    states = [json.loads(following.stdout.readline())]
    kill(*workers(server.process.pid))
    while states[-1]["state"] != "starting":
        states.append(json.loads(following.stdout.readline()))
    server.process.send_signal(signal.SIGTERM)
    out, err = following.communicate(timeout=PATIENCE_SECONDS)
    assert (following.returncode, err) == (1, "")
    assert json.loads(out.splitlines()[-1])["state"] == "draining"


async def test_a_server_without_engines_answers_too(tmp_path: Path) -> None:
    async with serving(write_bundle(tmp_path / "quarters")) as running:
        await running.server.catalogue.unload("quarters")
        async with client.connect(running.addresses.frames) as connection:
            told = await anext(connection.watch_state())
            assert (told.state, told.reason, told.engines) == ("starting", "no engine is loaded", ())
            with pytest.raises(client.Rejected, match="no engine"):
                await connection.engine()
        done = await asyncio.to_thread(run, "--server", running.addresses.frames)
        assert done.returncode == 1
        assert "starting: no engine is loaded" in done.stdout
        await running.server.catalogue.load("quarters")
        assert (await asyncio.to_thread(run, "--server", running.addresses.frames)).returncode == 0


def test_what_the_server_refuses_for_now_is_not_taken_for_a_network_that_fails() -> None:
    details = "quarters 1.0 is UNAVAILABLE: it could not be opened again: no bundle at /q → load it again"
    told = str(error_of(grpc.StatusCode.UNAVAILABLE, details, "here:1"))
    assert told == f"here:1 does not take this now: {details}"
    assert "no connection" in str(error_of(grpc.StatusCode.UNAVAILABLE, "Socket closed", "here:1"))


def test_a_call_that_breaks_off_under_its_hands_is_a_server_that_was_lost() -> None:
    error = error_of(grpc.StatusCode.INTERNAL, "Internal error from Core", "here:1", was_there=True)
    assert isinstance(error, client.ConnectionLost)
    assert isinstance(error_of(grpc.StatusCode.INTERNAL, "a bug", "here:1", was_there=True), client.Rejected)


def test_help_teaches() -> None:
    text = run("--help").stdout
    assert "--follow" in text
    assert "degraded" in text
    assert "exit code: 0 where frames are computed" in text


def test_no_server_says_how_to_start_one() -> None:
    done = run("--server", "127.0.0.1:1")
    assert done.returncode == 2
    assert "python -m server BUNDLE" in done.stderr
