"""What whoever operates a server gets wrong, and what the log says of what happened."""

from __future__ import annotations

import logging
import re
import signal
import socket
from pathlib import Path

import pytest

from server.errors import StartFailed
from server.settings import Settings, load_settings, unknown_variables
from tests.server.bundles import write_bundle
from tests.server.conftest import Engine, serving
from tests.server.raw_client import RawStream, camera
from tests.server.test_command import Start, start
from tests.server.test_stopping import UNREADABLE, begin

__all__ = ["start"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-frame", "99999x1080"], "max-frame: a side has at most 16384 pixels, not '99999x1080'"),
        (["--threads", "999999"], "threads: Input should be less than or equal to 1024"),
        (["--instances", "100000000"], "instances: Input should be less than or equal to 256"),
        (["--max-streams", "9999999999"], "max-streams: Input should be less than or equal to 100000"),
        (["--max-cameras", "9999999999"], "max-cameras: Input should be less than or equal to 100000"),
        (["--max-watchers", "9999999999"], "max-watchers: Input should be less than or equal to 100000"),
        (["--host", ""], "host: String should have at least 1 character, not ''"),
    ],
)
def test_what_no_host_can_do_is_refused_before_anything_is_opened(arguments: list[str], message: str) -> None:
    with pytest.raises(StartFailed) as caught:
        load_settings(["bundle", *arguments])
    assert message in str(caught.value)


def test_the_largest_of_everything_can_be_started(tmp_path: Path, start: Start) -> None:
    most = ["--max-frame", "16384x16384", "--max-streams", "100000", "--max-watchers", "100000"]
    server = start(str(write_bundle(tmp_path / "quarters")), "--port", "0", "--metrics-port", "0", *most)
    assert server.address()
    server.process.send_signal(signal.SIGTERM)
    assert server.end()[0] == 0


SAID = {
    "bundle": "a",
    "repository": "bundles",
    "host": "0.0.0.0",
    "port": "9001",
    "metrics-port": "9002",
    "target": "gpu",
    "threads": "2",
    "instances": "3",
    "overlap": "off",
    "cpus": "0",
    "realtime-priority": "5",
    "wake-latency-us": "0",
    "record-scheduler": "2026-11-29",
    "plan-cache": "plans",
    "max-frame": "640x480",
    "max-batch": "4",
    "max-streams": "5",
    "max-cameras": "6",
    "max-watchers": "0",
    "memory-budget": "512M",
    "shared-memory-socket": "off",
    "drain-seconds": "2.5",
    "log-level": "debug",
}
SWITCHES = {"fallback": "true", "self-check": "false", "engine-process": "yes", "lock-memory": "on", "spin": "1"}


def test_flags_environment_and_file_mean_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """YAML alone would read off, yes and 0 as truths and numbers, and 2026-11-29 as a date."""
    assert {*SAID, *SWITCHES, "config"} == {name.replace("_", "-") for name in Settings.model_fields}
    bundle, *rest = (word for name, value in SAID.items() for word in (f"--{name}", value) if word != "--bundle")
    switches = (f"--{'no-' * (value == 'false')}{name}" for name, value in SWITCHES.items())
    by_flag = load_settings([bundle, *rest, *switches]).model_dump()
    path = tmp_path / "server.yaml"
    path.write_text("".join(f"{name}: {value}\n" for name, value in (SAID | SWITCHES).items()))
    assert load_settings(["--config", str(path)]).model_dump() == by_flag | {"config": path}
    for name, value in (SAID | SWITCHES).items():
        monkeypatch.setenv(f"MONOCOQUE_{name.upper().replace('-', '_')}", value)
    assert load_settings([]).model_dump() == by_flag


def test_a_setting_that_the_file_leaves_empty_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text("threads:\ncpus: ~\nplan-cache: null\nport: 0\n")
    found = load_settings(["bundle", "--config", str(path)])
    assert (found.threads, found.cpus, found.plan_cache, found.port) == (None, None, None, 0)


def test_a_file_that_says_a_thing_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text("max-frame: 640x480\nmax_frame: 320x240\n")
    with pytest.raises(StartFailed, match="it says max-frame twice"):
        load_settings(["bundle", "--config", str(path)])


def test_a_fault_of_the_environment_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONOCOQUE_PORT", "tcp://10.0.0.1:8001")  # Kubernetes, for a service named monocoque
    with pytest.raises(StartFailed, match=r"not 'tcp://10.0.0.1:8001' \(MONOCOQUE_PORT\)"):
        load_settings(["bundle"])


def test_a_variable_that_is_no_setting_is_told(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unknown_variables({"MONOCOQUE_PORT": "1", "MONOCOQUE_BIND": "0.0.0.0", "HOME": "/"}) == []
    monkeypatch.setenv("MONOCOQUE_MAX_FRAMES", "640x480")
    server = start(str(write_bundle(tmp_path / "quarters")), "--port", "0", "--metrics-port", "0")
    assert "is MONOCOQUE_MAX_FRAME meant?" in server.until("MONOCOQUE_MAX_FRAMES is no setting")[0] + server.said


@pytest.mark.parametrize("flag", ["--port", "--metrics-port"])
def test_a_port_that_is_taken_is_told_before_an_engine_is_opened(tmp_path: Path, start: Start, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"--port": "0", "--metrics-port": "0", flag: str(taken.getsockname()[1])}
        server = start(str(tmp_path / "no-bundle"), *(word for pair in ports.items() for word in pair))
        code, said = server.end()
    assert code == 2
    assert "cannot listen on" in said
    assert f"choose another {flag}" in said


def test_a_host_that_is_not_here_is_told_apart_from_a_port_that_is_taken(tmp_path: Path, start: Start) -> None:
    server = start(str(tmp_path / "no-bundle"), "--host", "192.0.2.1", "--port", "0", "--metrics-port", "0")
    code, said = server.end()
    assert code == 2
    assert "give an address of this host with --host" in said


def test_sighup_says_that_a_bundle_is_the_one_that_is_served(tmp_path: Path, start: Start) -> None:
    server = start(str(write_bundle(tmp_path / "quarters")), "--port", "0", "--metrics-port", "0")
    server.address()
    server.process.send_signal(signal.SIGHUP)
    assert server.until(r"quarters: version 1.0 \(\w{12}\) is the bundle that lies there")


def test_sighup_while_it_starts_ends_nothing(tmp_path: Path, start: Start) -> None:
    server = begin(start, write_bundle(tmp_path / UNREADABLE))
    server.until("reading for ever")
    server.process.send_signal(signal.SIGHUP)
    assert server.until("SIGHUP: no engine is served yet")


async def test_the_log_names_the_stream_that_ended_however_it_did(
    bundle_path: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "monocoque.service")
    async with serving(bundle_path, engine.open) as running:
        done = RawStream(running.channel)
        first = await done.open([camera()])
        await done.call.done_writing()
        await done.status()
        gone = RawStream(running.channel)
        second = await gone.open([camera("rear")])
        gone.call.cancel()

        def logged(words: str) -> bool:
            return any(re.fullmatch(words, record.getMessage()) for record in caplog.records)

        await running.until(lambda: logged(rf"{second.stream_id} of \S+ ended: (the client has left|all answered)"))
        assert logged(rf"{first.stream_id} of \S+ ended: all answered")
