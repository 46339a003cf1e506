"""The C++ client when its server dies or falls silent in the middle of a stream."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.test_cpp import ROOT, count, program
from tests.server.bundles import write_bundle

__all__ = ["program"]
PATIENCE_SECONDS = 90
"""A silent server is noticed after 20 s."""


class Server:
    """A server in a process of its own, which a test may stop or kill."""

    def __init__(self, bundle: Path) -> None:
        command = [sys.executable, "-m", "server", str(bundle), "--port", "0", "--metrics-port", "0", "--threads", "1"]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"serving .* at (\S+), metrics at", line):
                self.address = found[1]
                return
        raise AssertionError("the server did not start")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = Server(write_bundle(tmp_path / "bundle"))
    yield started
    started.process.kill()
    started.process.communicate()


@pytest.mark.parametrize(("how", "rate"), [("killed", "0"), ("killed", "200"), ("silent", "0")])
def test_what_was_measured_is_told_and_why_it_ended(program: Path, server: Server, how: str, rate: str) -> None:
    client = subprocess.Popen(
        [program, "--server", server.address, "--size", "64x32", "--frames", "10000000", "--rate", rate],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert client.stdout is not None
        assert any("STATUS_OK" in line for line in client.stdout)
        server.process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        output, complaint = client.communicate(timeout=PATIENCE_SECONDS)
    finally:
        server.process.send_signal(signal.SIGCONT)
        client.kill()
    assert client.returncode == 1
    assert count(output, "front: submitted") > 0
    assert count(output, "STATUS_OK") > 0
    assert complaint.count("ended the stream") == 1, complaint
    assert complaint.startswith(f"stream_frames: the server at {server.address} ended the stream")
    assert "is `python -m server` running there?" in complaint
